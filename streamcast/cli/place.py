"""Connecting a command to where its rooms are: a server, or a store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import typer
from websockets.asyncio.client import ClientConnection

from streamcast.cli.show import tell
from streamcast.client import Client, Connected, ConnectionEvent, connect
from streamcast.client.dial import Dial, dial
from streamcast.config import PlaceSettings, RelaySettings
from streamcast.errors import StartError, Unreachable


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
    try:
        async with serving_inside(
            store, RelaySettings(max_message=place.max_message)
        ) as end_inside:

            async def open_inside() -> ClientConnection:
                return await dial("ws://inside/rooms", "the relay", sock=await end_inside())

            dials = [Dial("the relay", open_inside)]
            async with Client(dials, on_connection=Telling()) as client:
                yield client
    except StartError as error:
        # Not what a supervisor would start again and again.
        raise Unreachable(str(error)) from error


class Telling:
    """Tells of connections that are lost and come again, each once however often it is tried."""

    def __init__(self) -> None:
        self._lost = False

    def __call__(self, event: ConnectionEvent) -> None:
        """Take in what happened."""
        if isinstance(event, Connected):
            if self._lost:
                tell(f"Connected again to {event.url}.")
            self._lost = False
        elif not self._lost:
            tell(f"Interrupted: {event.url}: {event.reason.rstrip('.')}. Connecting again …")
            self._lost = True
