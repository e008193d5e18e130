"""`python -m server`: serve the page and the models; a model that is missing is built in a child process."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from pydantic import ValidationError

from server.app import create_app
from server.builds import Builds
from server.patience import MOST_CONNECTIONS, PatientProtocol
from server.settings import Settings


class Server(uvicorn.Server):
    """uvicorn that says where it listens and ends event streams first: at shutdown it would wait for them for ever."""

    def __init__(self, config: uvicorn.Config, builds: Builds) -> None:
        super().__init__(config)
        self._builds = builds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then print the address: with port 0 it is known only now."""
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            name = f"[{host}]" if ":" in host else host
            print(f"WebGemma is at http://{name}:{port}/  (Ctrl-C ends it)", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the event streams, then the server, and the build even when a second Ctrl-C cut that short."""
        self._builds.end_streams()
        await super().shutdown(sockets)
        await self._builds.close()


def parser() -> argparse.ArgumentParser:
    """The command line. What is left out comes from the environment, then from the defaults in settings.py."""
    command = argparse.ArgumentParser(
        prog="python -m server", description="Serve the WebGemma chat page and its models."
    )
    command.add_argument(
        "--model",
        action="append",
        dest="models",
        metavar="NAME_OR_MODEL",
        help="a built model's name, a hub id, a checkpoint folder, or demo; may be repeated",
    )
    command.add_argument("--host", help="address to listen on (127.0.0.1)")
    command.add_argument("--port", type=int, help="port to listen on (8000); 0 takes a free one")
    command.add_argument("--models-dir", type=Path, help="folder of built models")
    command.add_argument(
        "--allowed-host", action="append", dest="allowed_hosts", help="a further name browsers may use; may be repeated"
    )
    command.add_argument(
        "--cors-origin",
        action="append",
        dest="cors_origins",
        help="an origin whose pages may use the engine and the models from here, or *; may be repeated",
    )
    command.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    return command


def settings_from(arguments: Sequence[str] | None) -> Settings:
    """Settings of a command line; ends the process with a message when a value is not usable."""
    command = parser()
    given = {name: value for name, value in vars(command.parse_args(arguments)).items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        command.error("; ".join(problems))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; returns the exit status."""
    settings = settings_from(arguments)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("webgemma").setLevel(settings.log_level.upper())
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=settings.log_level == "debug",
        log_level="debug" if settings.log_level == "debug" else "warning",
        server_header=False,
        http=PatientProtocol,
        limit_concurrency=MOST_CONNECTIONS,
        # Downloads are resumed by Range, so nobody needs to wait for them to end.
        timeout_graceful_shutdown=1,
    )
    server = Server(config, app.state.builds)
    try:
        server.run()
    except KeyboardInterrupt:
        return 0
    except SystemExit:
        if server.started:
            raise
        print(f"Could not listen on {settings.host}:{settings.port}; another --port may be free.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
