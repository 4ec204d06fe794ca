"""A server in this process, on uvloop as it runs for users, so that a test can reach into it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import uvloop

from streamcast.config import RelaySettings, ServerSettings, StreamSettings
from streamcast.relay import Relay
from streamcast.server.accepting import Accepting
from streamcast.server.connection import Connection
from streamcast.server.context import Context
from streamcast.server.listening import listen, url_of
from streamcast.streams import RedisStreams
from tests.stores import Store

T = TypeVar("T")


class InProcess:
    """A server in a thread of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        messages = RelaySettings()
        streams = RedisStreams(StreamSettings(redis=self._store.url), messages.max_message)
        await streams.start()
        relay = Relay(streams, messages)
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.context = Context(relay, ServerSettings(), messages)
        sockets = await listen("127.0.0.1", 0)
        self.port = sockets[0].getsockname()[1]
        self.url = url_of(sockets)
        accepting = Accepting(self.context, sockets)
        self._ready.set()
        await self._stop.wait()
        accepting.close()
        for connection in self.context.connections:
            connection.abort()
        await relay.close()
        await streams.close()

    def call(self, function: Callable[[], T]) -> T:
        """Call it as the event loop does."""
        done: Future[T] = Future()
        self._loop.call_soon_threadsafe(lambda: done.set_result(function()))
        return done.result(10)

    def plain_connection(self) -> Connection:
        """The only one that speaks plain frames."""
        (found,) = (each for each in self.context.connections if not each.dialect.name)
        return found

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
