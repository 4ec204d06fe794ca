"""A small server that loses, repeats, swaps and delays messages, each by known amounts.

It speaks plain frames: what one sends to a room all of the room get, as one frame each.
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

from streamcast.bench.load import READY


@dataclass(frozen=True)
class Fault:
    """What is done to a message on its way to a listener; `delay` and `stall` in seconds.

    `swap`: it comes right behind the next one, in the same piece. `stall`: the server does nothing
    at all for so long, before it. `other`: one byte of it is another. `cut`: the connection ends.
    `end`: those of all the room end, the publisher's too.
    """

    times: int = 1
    swap: bool = False
    delay: float = 0.0
    stall: float = 0.0
    other: bool = False
    cut: bool = False
    end: bool = False


FINE = Fault()
Faults = Callable[[int, int], Fault]
"""What is done, by the number of the listener in its room (0 is the first) and of the message."""


@dataclass
class Listener:
    """A connection in a room; `held` waits for the next message."""

    socket: ServerConnection
    held: bytes = b""


@dataclass
class Room:
    listeners: list[Listener] = field(default_factory=list)
    messages: int = 0


class FaultyServer:
    """Runs in a thread. Listeners are numbered without the one who publishes."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._rooms: dict[str, Room] = defaultdict(Room)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._port = 0

    async def run(self, ready: threading.Event) -> None:
        async with serve(self._hear, "127.0.0.1", 0, compression=None) as server:
            self._port = next(iter(server.sockets)).getsockname()[1]
            ready.set()
            await self._stop.wait()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    async def _hear(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        room = self._rooms[socket.request.path]
        publisher = Listener(socket)
        room.listeners.append(publisher)
        async for message in socket:
            data = message.encode() if isinstance(message, str) else message
            if data == READY:
                for listener in room.listeners:
                    _write(listener, _frame(data))
                continue
            _write(publisher, _frame(data))
            others = [listener for listener in room.listeners if listener is not publisher]
            for number, listener in enumerate(others):
                fault = self._faults(number, room.messages)
                if fault.end:
                    for each in room.listeners:
                        each.socket.transport.abort()
                self._deliver(listener, data, fault)
            room.messages += 1

    def _deliver(self, listener: Listener, data: bytes, fault: Fault) -> None:
        if fault.cut:
            listener.socket.transport.abort()
            return
        if fault.stall:
            threading.Event().wait(fault.stall)
        frames = _frame(data.replace(b"x", b"y", 1) if fault.other else data) * fault.times
        if fault.swap:
            listener.held = frames
            return
        frames, listener.held = frames + listener.held, b""
        if fault.delay:
            asyncio.get_running_loop().call_later(fault.delay, _write, listener, frames)
        else:  # At once: the next message may have been read already, and cut the connection.
            _write(listener, frames)


def _frame(data: bytes) -> bytes:
    return Frame(Opcode.TEXT, data).serialize(mask=False)


def _write(listener: Listener, frames: bytes) -> None:
    listener.socket.transport.write(frames)


@contextmanager
def faulty_server(faults: Faults = lambda _listener, _message: FINE) -> Iterator[str]:
    """Run such a server; returns its URL."""
    server, ready = FaultyServer(faults), threading.Event()

    def work() -> None:
        server._loop.run_until_complete(server.run(ready))
        server._loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert ready.wait(10)
        yield server.url
    finally:
        server._loop.call_soon_threadsafe(server._stop.set)
        thread.join()
