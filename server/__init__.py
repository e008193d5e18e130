"""Serves the chat page and the model artifacts. Never imports tvm: builds run in a child process."""
