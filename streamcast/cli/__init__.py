"""The command line: one file a subcommand. Puts the parts together; no logic of its own."""

from streamcast.cli.app import main

__all__ = ["main"]
