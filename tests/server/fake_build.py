"""Stands in for `python -m build_wasm` in tests.

fake_build.py MODE MODEL --name N --models-dir DIR --progress json [--refresh]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def say(**report: object) -> None:
    print(json.dumps(report), flush=True)


def main() -> int:
    mode, model, *options = [argument for argument in sys.argv[1:] if argument != "--refresh"]
    refresh = "--refresh" in sys.argv
    values = dict(zip(options[::2], options[1::2], strict=True))
    assert values["--progress"] == "json"
    folder = Path(values["--models-dir"])
    name = values["--name"]
    print("a line that is no report", flush=True)
    print("[1, 2]", flush=True)
    say(event="progress", stage="weights", text="Quantizing", fraction=0.25)
    if mode == "log":
        with (folder.parent / "log").open("a") as log:
            log.write(f"{model} {name}{' refresh' * refresh}\n")
    if mode == "error":
        print("Traceback (most recent call last): ...", file=sys.stderr)
        say(event="error", message=f"no checkpoint {model}", hint="Check the name.")
        return 1
    if mode == "crash":
        print("RuntimeError: out of paper", file=sys.stderr)
        return 3
    if mode == "nothing":
        return 0
    if mode == "endless":
        # With a child of its own, as a compiler has: both must end with the server.
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (folder.parent / "pids").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    if mode == "long-line":
        print("x" * (3 << 20), flush=True)
    if mode == "gated":
        # Waits until the test lets it go on.
        while not (folder.parent / "go").exists():
            time.sleep(0.01)
    say(event="progress", stage="compile", text="Compiling", fraction=0.75)
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.server.conftest import write_artifact

    write_artifact(folder, name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
