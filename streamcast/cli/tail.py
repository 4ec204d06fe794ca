"""`streamcast tail`."""

from typing import Annotated

import typer

from streamcast.cli import units
from streamcast.cli.options import settings_command
from streamcast.config import PlaceSettings, ShowSettings, TailSettings

Rooms = Annotated[
    list[str],
    typer.Argument(parser=units.option(units.room), metavar="ROOM", help="The rooms to follow."),
]


@settings_command(tail=TailSettings, show=ShowSettings, place=PlaceSettings)
def tail(
    context: typer.Context,
    rooms: Rooms,
    tail: TailSettings,
    show: ShowSettings,
    place: PlaceSettings,
) -> None:
    """Print what is published in rooms.

    On a terminal with time and room; elsewhere the payloads, one a line.
    Connects again by itself, and goes on where it was. What may be missing is told.

    Examples:
    [bold]streamcast tail live[/bold]
    [bold]streamcast tail live chat --last 10 --json[/bold]
    [bold]streamcast tail live --all --wait 1s > messages.txt[/bold]
    """
    if sum((tail.all, tail.last is not None, tail.after is not None)) > 1:
        raise typer.BadParameter("Give one of --last, --after and --all.")
    if show.json and show.raw:
        raise typer.BadParameter("Give --json or --raw, not both.")
    # What only a running command needs is not loaded for --help.
    import asyncio

    from streamcast.cli.following import follow
    from streamcast.cli.logs import warnings_only
    from streamcast.cli.place import check

    check(context, place)
    warnings_only()
    asyncio.run(follow(list(dict.fromkeys(rooms)), tail, show, place))
