"""The one exception that a person sees: a sentence that says what is wrong and what to do about it."""


class BuildError(Exception):
    """The build cannot go on. `str(error)` is one complete sentence or two, fit to be shown without a traceback."""
