"""`python -m build_wasm`."""

import sys

from build_wasm.cli import main

if __name__ == "__main__":
    sys.exit(main())
