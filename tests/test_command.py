"""The installed program, run as a user runs it."""

import subprocess
import sys

from streamcast import __version__


def test_version() -> None:
    command = [sys.executable, "-m", "streamcast", "--version"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert printed.stdout == f"streamcast {__version__}\n"
    assert printed.stderr == ""
