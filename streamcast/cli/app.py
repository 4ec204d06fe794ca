"""The program `streamcast`: its subcommands, and how their failures are told."""

import sys
from typing import Annotated

import typer

from streamcast.cli.bench import bench
from streamcast.cli.options import version_option
from streamcast.cli.publish import publish
from streamcast.cli.serve import serve
from streamcast.cli.tail import tail
from streamcast.errors import StartError, StreamcastError

FAILED = 1
CAN_NOT_START = 3

app = typer.Typer(
    name="streamcast",
    help="Broadcast messages to WebSocket clients through Redis Streams.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for command in (serve, publish, tail, bench):
    app.command()(command)


@app.callback()
def _streamcast(_version: Annotated[bool, version_option] = False) -> None:
    pass


def main() -> None:
    """Run the command line; exits the process."""
    try:
        app(prog_name="streamcast")
    except StreamcastError as error:
        # What only one who failed needs is not loaded for --help.
        from streamcast.cli.show import tell

        tell(str(error))
        sys.exit(CAN_NOT_START if isinstance(error, StartError) else FAILED)
