"""The program `streamcast`: its subcommands and what they share."""

from typing import Annotated

import typer

from streamcast import __version__

app = typer.Typer(
    name="streamcast",
    help="Broadcast messages to WebSocket clients through Redis Streams.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


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
    app()
