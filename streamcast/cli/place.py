"""Connecting a command to where its rooms are: a server, or a store."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import typer
from websockets.asyncio.client import ClientConnection

from streamcast.cli.show import tell
from streamcast.client import Client, Connected, ConnectionEvent, connect
from streamcast.client.dial import Dial, dial
from streamcast.config import PlaceSettings, RelaySettings
from streamcast.errors import StartError, Unreachable


def check(context: typer.Context, place: PlaceSettings) -> None:
    """Refuse flags that go with the other place, and would be ignored. Raises BadParameter."""
    straight = place.redis is not None
    for name in ("url",) if straight else ("prefix", "max_message"):
        # A variable is for other commands too.
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = "--" + name.replace("_", "-")
            raise typer.BadParameter(
                f"{flag} is for a server, not for --redis."
                if straight
                else f"{flag} needs --redis."
            )


@asynccontextmanager
async def connected(place: PlaceSettings) -> AsyncIterator[Client]:
    """Connect, and tell on stderr when the connection is lost and comes again.

    Raises Unreachable, Disconnected; BadParameter where --redis is no URL.
    """
    if place.redis is None:
        async with connect(*place.url, on_connection=Telling()) as client:
            yield client
    else:
        async with _straight(place, place.redis) as client:
            yield client


@asynccontextmanager
async def _straight(place: PlaceSettings, redis: str) -> AsyncIterator[Client]:
    """Connect to a relay in this very process, which goes to the store."""
    from streamcast.server.inside import serving_inside, streams_of_others

    try:
        store = streams_of_others(redis, place.prefix, place.max_message)
    except StartError as error:
        raise typer.BadParameter(str(error)) from error
    _tell_of_store(f"Redis at {store.where}")
    messages = RelaySettings(max_message=place.max_message)
    try:
        async with serving_inside(store, messages) as connect_inside:

            async def open_inside() -> ClientConnection:
                return await dial("ws://inside/rooms", "the relay", sock=await connect_inside())

            dials = [Dial("the relay", open_inside)]
            async with Client(dials, on_connection=Telling()) as client:
                yield client
    except StartError as error:
        # Not what a supervisor would start again and again.
        raise Unreachable(str(error)) from error


def _tell_of_store(where: str) -> None:
    logger = logging.getLogger("streamcast")
    logger.handlers = [_StoreTelling(where, logger.handlers[0])]
    logger.setLevel(logging.INFO)


class Telling:
    """Tells of connections that are lost and come again, each once however often it is tried."""

    def __init__(self) -> None:
        self._lost = False

    def __call__(self, event: ConnectionEvent) -> None:
        """Take in what happened to the connection to a server."""
        if isinstance(event, Connected):
            self.back(event.url)
        else:
            self.lost(event.url, event.reason)

    def lost(self, where: str, reason: str) -> None:
        """Take in that there is no connection."""
        if not self._lost:
            tell(f"Interrupted: {where}: {reason.rstrip('.')}. Connecting again …")
        self._lost = True

    def back(self, where: str) -> None:
        """Take in that there is one."""
        if self._lost:
            tell(f"Connected again to {where}.")
        self._lost = False


class _StoreTelling(logging.Handler):
    """Tells in the same words of a store that is lost and comes again, instead of logging it."""

    def __init__(self, where: str, others: logging.Handler) -> None:
        super().__init__()
        self._where = where
        self._others = others
        self._telling = Telling()

    def emit(self, record: logging.LogRecord) -> None:
        """Tell, or leave it to the others."""
        event = record.getMessage()
        if event == "store lost":
            self._telling.lost(self._where, str(getattr(record, "fields", {}).get("reason", "")))
        elif event == "store back":
            self._telling.back(self._where)
        elif record.levelno >= logging.WARNING:
            self._others.handle(record)
