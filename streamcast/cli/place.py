"""Connecting a command to where its rooms are: a server, or a store."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import typer
from websockets.asyncio.client import ClientConnection

from streamcast.client import Client, ConnectionEvent, connect
from streamcast.client.dial import Dial, dial
from streamcast.config import PlaceSettings, RelaySettings
from streamcast.errors import StartError, Unreachable

OnConnection = Callable[[ConnectionEvent], None]


@asynccontextmanager
async def connected(place: PlaceSettings, on_connection: OnConnection) -> AsyncIterator[Client]:
    """Connect. Raises Unreachable, Disconnected; BadParameter where --redis is no URL."""
    if place.redis:
        async with _straight(place, on_connection) as client:
            yield client
    else:
        async with connect(*place.url, on_connection=on_connection) as client:
            yield client


@asynccontextmanager
async def _straight(place: PlaceSettings, on_connection: OnConnection) -> AsyncIterator[Client]:
    """Connect to a relay in this very process, which goes to the store."""
    from streamcast.server.inside import serving_inside, streams_of_others

    try:
        store = streams_of_others(place.redis, place.prefix, place.max_message)
    except StartError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        async with serving_inside(
            store, RelaySettings(max_message=place.max_message)
        ) as end_inside:

            async def open_inside() -> ClientConnection:
                return await dial("ws://inside/rooms", "the relay", sock=await end_inside())

            dials = [Dial("the relay", open_inside)]
            async with Client(dials, on_connection=on_connection) as client:
                yield client
    except StartError as error:
        # Not what a supervisor would start again and again.
        raise Unreachable(str(error)) from error
