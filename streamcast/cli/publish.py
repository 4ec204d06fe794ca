"""`streamcast publish`."""

from typing import Annotated

import typer

from streamcast.cli import units
from streamcast.cli.options import settings_command
from streamcast.config import PlaceSettings, PublishSettings

Room = Annotated[
    str,
    typer.Argument(parser=units.option(units.room), metavar="ROOM", help="The room to publish in."),
]
Text = Annotated[
    str | None,
    typer.Argument(
        metavar="MESSAGE", help="The message; without it, standard input is.", show_default=False
    ),
]


@settings_command(what=PublishSettings, place=PlaceSettings)
def publish(
    context: typer.Context,
    room: Room,
    what: PublishSettings,
    place: PlaceSettings,
    message: Text = None,
) -> None:
    """Publish messages in a room.

    Prints the ID of each once it is stored. Ends with 0 only if every one is;
    else it says how many are, which is the first that is not, and whether it may be.

    Examples:
    [bold]streamcast publish live 'hello'[/bold]
    [bold]seq 1000 | streamcast publish live --lines --quiet[/bold]
    [bold]streamcast publish live --binary < picture.png[/bold]
    """
    if what.lines and message is not None:
        raise typer.BadParameter("--lines reads standard input; give no MESSAGE.")
    if what.lines and what.count > 1:
        raise typer.BadParameter("--count is for one message, not for --lines.")
    if what.key is not None and (what.lines or what.count > 1):
        raise typer.BadParameter("--key is for one message, not for --lines or --count.")
    if what.key == "":
        raise typer.BadParameter("--key has at least one character.")
    # What only a running command needs is not loaded for --help.
    import asyncio

    from streamcast.cli.logs import warnings_only
    from streamcast.cli.place import check
    from streamcast.cli.publishing import publish_all

    check(context, place)
    warnings_only()
    asyncio.run(publish_all(room, message, what, place))
