"""Make sure there is a Chromium for the end-to-end tests: one on PATH, else Debian's package, else Playwright's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def installed() -> str | None:
    """Path of a Chromium on PATH or of Playwright's own; None when there is neither."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


def administrator() -> list[str] | None:
    """The prefix that runs a command as root without asking for a password; None when that is not possible."""
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None


def install_from_apt() -> bool:
    """Whether apt installed Debian's Chromium (Ubuntu's package of that name is a wrapper for a snap: not that one)."""
    release = Path("/etc/os-release")
    debian = release.is_file() and "ID=debian" in release.read_text().splitlines()
    prefix = administrator() if debian and shutil.which("apt-get") else None
    if prefix is None:
        return False
    install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "chromium", "fonts-noto-core"]
    for command in (["apt-get", "update", "--quiet"], install):
        if subprocess.run([*prefix, "env", "DEBIAN_FRONTEND=noninteractive", *command], check=False).returncode != 0:
            return False
    return True


def main() -> int:
    """Exit status 0 once a Chromium is there."""
    if installed() is None and not install_from_apt():
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=True)
    path = installed()
    print(f"browser for the tests: {path}")
    return 0 if path else 1


if __name__ == "__main__":
    sys.exit(main())
