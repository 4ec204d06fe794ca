"""Clients go to the worker that has the fewest: one worker here, the other is played."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from streamcast.config import RelaySettings, ServerSettings, StreamSettings
from streamcast.relay import Relay
from streamcast.server.accepting import AT_ONCE, Accepting
from streamcast.server.context import Context
from streamcast.server.listening import listen
from streamcast.server.others import Others, Rows
from streamcast.streams import RedisStreams
from tests.load import until
from tests.stores import Store

pytestmark = pytest.mark.one_cell


@asynccontextmanager
async def accepting(store: Store, others: Others) -> AsyncIterator[tuple[Context, int]]:
    """A worker's context, and its port."""
    messages = RelaySettings()
    streams = RedisStreams(StreamSettings(redis=store.url), messages.max_message)
    await streams.start()
    relay = Relay(streams, messages)
    context = Context(relay, ServerSettings(), messages, others=others)
    sockets = await listen("127.0.0.1", 0)
    worker = Accepting(context, sockets)
    try:
        yield context, sockets[0].getsockname()[1]
    finally:
        worker.close()
        for head in list(context.heads):
            head.abort()
        await relay.close()
        await streams.close()


async def test_one_that_is_ahead_leaves_clients_to_one_that_takes_them(
    any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as that one does; then it takes what is left."""
    # Long enough that the other has taken some in it, however busy the machine is.
    monkeypatch.setattr("streamcast.server.accepting.MOMENT", 0.25)
    rows = Rows(2)
    theirs = Others(1, rows)
    theirs.accept_none()
    async with accepting(any_store, Others(0, rows)) as (context, port):
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        await until(lambda: len(context.heads) == 60)
        theirs.clients = 0
        clients.append(socket.create_connection(("127.0.0.1", port)))
        for count in range(60 - AT_ONCE):
            theirs.clients = count
            await asyncio.sleep(0.02)
        assert len(context.heads) == 60
        await until(lambda: len(context.heads) == 61)
        for client in clients:
            client.close()


async def test_one_that_is_full_leaves_clients_to_others(any_store: Store) -> None:
    rows = Rows(2)
    theirs = Others(1, rows)
    theirs.clients = 0
    async with accepting(any_store, Others(0, rows)) as (context, port):
        context.files = 64 + 1 + context.relay.streams.connections
        assert context.capacity == 1
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        await until(lambda: len(context.heads) == 1)
        await asyncio.sleep(0.05)
        assert len(context.heads) == 1
        # The other is full as well: one of them has to say so.
        theirs.clients = 1
        await until(lambda: len(context.heads) == 2)
        for client in clients:
            client.close()
