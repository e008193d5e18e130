"""Serves the repository's files, and other folders under prefixes, to a browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class _Handler(SimpleHTTPRequestHandler):
    """Files under folders by URL prefix, else under the repository; an empty page at /."""

    def __init__(self, *args: Any, folders: Mapping[str, Path], **kwargs: Any) -> None:
        self.folders = folders
        self.extensions_map = {**self.extensions_map, ".js": "text/javascript"}  # whatever the system's table says
        super().__init__(*args, directory=str(ROOT), **kwargs)

    def translate_path(self, path: str) -> str:
        bare = path.split("?", 1)[0]
        for prefix, folder in self.folders.items():
            if bare.startswith(prefix):
                return str(folder / bare.removeprefix(prefix))
        return super().translate_path(path)

    def do_GET(self) -> None:
        if self.path in ("/", "/favicon.ico"):  # a missing icon would be an error on the console
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>test</title>")
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def serving(folders: Mapping[str, Path]) -> Iterator[str]:
    """Address of a server on 127.0.0.1. folders: URL prefix, such as "/models/", -> the folder behind it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, folders=folders))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
