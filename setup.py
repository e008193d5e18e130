"""What pyproject.toml cannot say: a wheel needs the page's npm packages bundled, which Node does once per checkout."""

import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithBundles(build_py):
    """build_py, after static/vendor is there."""

    def run(self) -> None:
        """Bundles the packages unless that is done, or the installation is editable (`make` does it then)."""
        if not self.editable_mode and not (ROOT / "static" / "vendor" / "LICENCES.txt").is_file():
            for command in ("ci", "run vendor"):
                node = [sys.executable, ROOT / "scripts" / "node.py", "npm", "--prefix", ROOT / "static"]
                subprocess.run([*node, *command.split(), "--silent"], check=True)
        super().run()


setup(cmdclass={"build_py": BuildWithBundles})
