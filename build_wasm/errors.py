"""The one exception that a person sees: a sentence that says what is wrong and what to do about it."""


class BuildError(Exception):
    """The build cannot go on.

    `str(error)` says what is wrong in a sentence or two, fit to be shown without a traceback; `hint` says what to do
    about it, where that is not plain.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
