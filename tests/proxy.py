"""A proxy between a server and a store, for the faults of a network.

It passes bytes on, in a thread of its own. `to_store` and `to_server` say how, one for each
direction; `cut`, `hang` and `heal` are faults and their end. All of it may change while it runs.
"""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Self

RECEIVED_AT_ONCE = 16 * 1024
AT_MOST_UNDER_WAY = 100
# On, for 0 seconds: closing is a reset, and what was still under way is lost (socket(7)).
RESET = struct.pack("ii", 1, 0)

UnderWay = asyncio.Queue[tuple[float, bytes]]


@dataclass
class Way:
    """One direction: `delay_ms` late, at most `rate` bytes a second, `step` bytes at a time.

    What is late keeps its order, and what comes behind it does not wait to be sent. `sends` and
    `passed` count how often something was passed on, and its bytes.
    """

    delay_ms: float = 0.0
    rate: float = inf
    step: int = RECEIVED_AT_ONCE
    sends: int = 0
    passed: int = 0


class Proxy:
    """Listens on a free port of this machine, for a store that listens on a unix socket."""

    def __init__(self, store: Path) -> None:
        self.to_store = Way()
        self.to_server = Way()
        self.attempts: list[float] = []
        """When the server connected, in monotonic seconds; where that came to nothing too."""
        self._store = store
        self._links: dict[asyncio.Task[None], tuple[socket.socket, socket.socket]] = {}
        self._refusing = False
        self._hanging = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def cut(self) -> None:
        """Reset all connections, and each new one at once."""
        self._refusing = True
        self._do(self._reset())

    def hang(self) -> None:
        """Pass nothing on any more, and close nothing; new connections are taken, for nothing."""
        self._hanging = True
        self._do(self._stop())

    def heal(self) -> None:
        """Serve new connections again. Those that hang are reset: nobody knows them any more."""
        self._refusing = False
        if self._hanging:
            self._hanging = False
            self._do(self._reset())

    @property
    def links(self) -> int:
        """How many connections there are; those that hang too."""
        return len(self._links)

    def close(self) -> None:
        """End everything."""
        self.cut()
        self._loop.call_soon_threadsafe(self._accepting.cancel)
        self._thread.join()
        self._listener.close()

    # In the thread

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            self._accepting = self._loop.create_task(self._accept())
            runner.run(asyncio.wait([self._accepting]))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=5)

    async def _accept(self) -> None:
        while True:
            server, _ = await self._loop.sock_accept(self._listener)
            self.attempts.append(time.monotonic())
            # Or what goes byte by byte would be gathered (Nagle's algorithm).
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            store = socket.socket(socket.AF_UNIX)
            store.setblocking(False)
            link = self._loop.create_task(self._serve(server, store))
            self._links[link] = server, store

    async def _serve(self, server: socket.socket, store: socket.socket) -> None:
        """Pass on what comes, until either end closes; that closes the other."""
        if self._hanging:
            return
        try:
            if not self._refusing:
                await self._loop.sock_connect(store, str(self._store))
                async with asyncio.TaskGroup() as tasks:
                    for source, sink, way in (
                        (server, store, self.to_store),
                        (store, server, self.to_server),
                    ):
                        under_way = UnderWay(AT_MOST_UNDER_WAY)
                        tasks.create_task(self._receive(source, way, under_way))
                        tasks.create_task(self._send(sink, way, under_way))
        except* OSError:
            # That is how a connection ends.
            pass
        task = asyncio.current_task()
        assert task is not None
        _close(self._links.pop(task))

    async def _receive(self, source: socket.socket, way: Way, under_way: UnderWay) -> None:
        while data := await self._loop.sock_recv(source, RECEIVED_AT_ONCE):
            await under_way.put((time.monotonic() + way.delay_ms / 1000, data))
            await asyncio.sleep(len(data) / way.rate)
        raise ConnectionResetError

    async def _send(self, sink: socket.socket, way: Way, under_way: UnderWay) -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - time.monotonic())
            # It may change while this waits.
            step = way.step
            for start in range(0, len(data), step):
                await self._loop.sock_sendall(sink, data[start : start + step])
                way.sends += 1
            way.passed += len(data)

    async def _stop(self) -> None:
        """Leave all connections open; what was under way is lost."""
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _reset(self) -> None:
        await self._stop()
        links, self._links = self._links, {}
        for sockets in links.values():
            _close(sockets)


def _close(sockets: tuple[socket.socket, socket.socket]) -> None:
    server, store = sockets
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    server.close()
    store.close()
