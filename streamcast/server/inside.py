"""A server for clients of the same process, who go straight to the store with it.

The law of this file: it neither listens nor owns the rooms. It trims none and lets none expire:
what a room keeps is for the servers to say that it belongs to.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from streamcast.config import RelaySettings, ServerSettings, StreamSettings
from streamcast.relay import Relay
from streamcast.server.context import Context
from streamcast.server.head import Head
from streamcast.streams import RedisStreams

Open = Callable[[], Awaitable[socket.socket]]
"""Connects; the socket is the client's end."""


@asynccontextmanager
async def serving_inside(store: RedisStreams, messages: RelaySettings) -> AsyncIterator[Open]:
    """Serve until the context ends. Raises StartError."""
    await store.start()
    relay = Relay(store, messages)
    context = Context(relay, ServerSettings(), messages)

    async def connect() -> socket.socket:
        ours, theirs = socket.socketpair()
        try:
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: Head(context, ours), ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return theirs

    try:
        yield connect
    finally:
        for connection in list(context.connections):
            connection.abort()
        await relay.close()
        await store.close()


def streams_of_others(redis: str, prefix: str, max_message: int) -> RedisStreams:
    """Return the streams in a store, to be left as they are. Raises StartError."""
    # While it rested, so would its only client.
    settings = StreamSettings(redis=redis, prefix=prefix, history=0, retain=0, pace=0.0)
    return RedisStreams(settings, max_message)
