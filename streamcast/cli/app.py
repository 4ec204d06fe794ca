"""The program `streamcast`: its subcommands, and how their failures are told."""

import sys
from typing import Annotated

import typer

from streamcast import __version__
from streamcast.cli.serve import serve
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
app.command()(serve)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"streamcast {__version__}")
        raise typer.Exit


@app.callback()
def _streamcast(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; exits the process."""
    try:
        app(prog_name="streamcast")
    except StreamcastError as error:
        typer.echo(str(error), err=True)
        sys.exit(CAN_NOT_START if isinstance(error, StartError) else FAILED)
