"""`webgemma`: the one command that an installed package brings. What it does is what the two modules do.

webgemma [serve] [OPTIONS]      python -m server
webgemma build MODEL [OPTIONS]  python -m build_wasm MODEL
webgemma list | verify | export | evaluate | remove ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

USAGE = """\
usage: webgemma [serve] [OPTIONS]      serve the chat page and its models; --help lists the options
       webgemma build MODEL [OPTIONS]  compile a Gemma 4 checkpoint: a hub id, a folder, a .gguf file, or demo
       webgemma list                   list what is built
       webgemma verify NAME            check an artifact's files and manifest
       webgemma export NAME... DIR     write a static site
       webgemma evaluate NAME --text FILE
       webgemma remove NAME            delete an artifact"""
OF_BUILD = ("list", "verify", "export", "evaluate", "remove")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    first = given[0] if given else "serve"
    if first in ("help", "-h", "--help"):
        print(USAGE)
        return 0
    if first == "serve" or first.startswith("-"):
        from server.__main__ import main as serve

        return serve(given[1:] if first == "serve" else given)
    if first == "build" or first in OF_BUILD:
        from build_wasm.cli import main as build

        return build(given[1:] if first == "build" else given)
    print(f"webgemma: there is no command {first!r}\n{USAGE}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
