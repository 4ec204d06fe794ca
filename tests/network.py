"""A network between processes on this machine, parts of which can be cut off and come back.

Each host has an address, where a proxy stands for it, and a source address (127.0.0.x), which it
binds its own connections to (`bind-source-addr`). So the proxy before one host knows which host a
connection comes from, and a host that is cut off loses the links that it opened as well. What
comes from any other source is a client. One thread serves them all.
"""

import asyncio
import enum
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RECEIVED_AT_ONCE = 64 * 1024
# On, for 0 seconds: closing is a reset, and what was still under way is lost (socket(7)).
RESET = struct.pack("ii", 1, 0)


class Fate(enum.Enum):
    """What happens to the bytes of a link; `LOST`: they vanish, and the link stays open."""

    PASSED = enum.auto()
    LOST = enum.auto()
    RESET = enum.auto()


@dataclass(eq=False)
class Host:
    """`port`: where others find it; `target`: the port or path where it listens in truth."""

    source: str
    port: int
    target: int | Path = 0


@dataclass(eq=False, frozen=True)
class Island:
    """Hosts that reach each other and no other; `clients` may reach them still."""

    clients: bool
    silent: bool


class Network:
    """All reach each other, until some are isolated."""

    def __init__(self) -> None:
        self._listeners: dict[str, socket.socket] = {}
        self._islands: dict[str, Island] = {}
        self._links: set[Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def host(self) -> Host:
        """A new address; its `target` must be set before somebody connects."""
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        source = f"127.0.0.{len(self._listeners) + 2}"
        self._listeners[source] = listener
        host = Host(source, listener.getsockname()[1])
        self._loop.call_soon_threadsafe(self._loop.add_reader, listener, self._accept, host)
        return host

    def isolate(self, *hosts: Host, clients: bool = False, silent: bool = False) -> None:
        """Cut these off from all others, not from each other; `clients` may reach them still.

        Their links are reset, and new ones at once. `silent`: nothing is passed on any more, and
        nothing closed; new connections are taken, for nothing.
        """
        island = Island(clients, silent)
        self._do(self._islands | {host.source: island for host in hosts})

    def heal(self, *hosts: Host) -> None:
        """They are back. Links that were silent are reset: nobody knows them any more."""
        back = {host.source for host in hosts}
        self._do({source: each for source, each in self._islands.items() if source not in back})

    def close(self) -> None:
        """End everything."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _do(self, islands: dict[str, Island]) -> None:
        asyncio.run_coroutine_threadsafe(self._change(islands), self._loop).result(timeout=5)

    # In the thread

    def _run(self) -> None:
        self._loop.run_forever()
        for listener in self._listeners.values():
            self._loop.remove_reader(listener)
            listener.close()
        self._loop.run_until_complete(self._reset(self._links))
        self._loop.close()

    def _accept(self, host: Host) -> None:
        accepted, (source, _) = self._listeners[host.source].accept()
        link = Link(accepted, source, host)
        fate = self._fate(link)
        if fate is Fate.RESET:
            link.close(reset=True)
            return
        self._links.add(link)
        if fate is Fate.PASSED:
            link.serve(self._links.discard)

    async def _change(self, islands: dict[str, Island]) -> None:
        self._islands = islands
        fates = {link: self._fate(link) for link in self._links}
        for link, fate in fates.items():
            if fate is Fate.LOST:
                await link.hang()
        await self._reset(
            {
                link
                for link, fate in fates.items()
                if fate is Fate.RESET or (fate is Fate.PASSED and link.hangs)
            }
        )

    async def _reset(self, links: "set[Link]") -> None:
        for link in list(links):
            await link.hang()
            link.close(reset=True)
        self._links -= links

    def _fate(self, link: "Link") -> Fate:
        here = self._islands.get(link.source)
        there = self._islands.get(link.host.source)
        is_client = link.source not in self._listeners
        if here is there or (is_client and there is not None and there.clients):
            return Fate.PASSED
        is_silent = any(end is not None and end.silent for end in (here, there))
        return Fate.LOST if is_silent else Fate.RESET


class Link:
    """A connection from a source to a host: two sockets, and a task that passes bytes on."""

    def __init__(self, accepted: socket.socket, source: str, host: Host) -> None:
        self.source = source
        self.host = host
        self._accepted = accepted
        is_port = isinstance(host.target, int)
        self._onward = socket.socket(socket.AF_INET if is_port else socket.AF_UNIX)
        for each in (self._accepted, self._onward):
            each.setblocking(False)
        self._serving: asyncio.Task[None] | None = None

    @property
    def hangs(self) -> bool:
        return self._serving is None

    def serve(self, ended: "Callable[[Link], None]") -> None:
        """Pass on what comes until either end closes; that closes the other, and is told."""

        def end(serving: asyncio.Task[None]) -> None:
            if not serving.cancelled():
                ended(self)
                self.close()

        self._serving = asyncio.get_running_loop().create_task(self._serve())
        self._serving.add_done_callback(end)

    async def hang(self) -> None:
        """Pass nothing on any more, and close nothing."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])
            self._serving = None

    def close(self, *, reset: bool = False) -> None:
        # It may have ended by itself, while another was being reset.
        if reset and self._accepted.fileno() != -1:
            self._accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._accepted.close()
        self._onward.close()

    async def _serve(self) -> None:
        target = self.host.target
        address = ("127.0.0.1", target) if isinstance(target, int) else str(target)
        try:
            await asyncio.get_running_loop().sock_connect(self._onward, address)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pass_on(self._accepted, self._onward))
                tasks.create_task(_pass_on(self._onward, self._accepted))
        except* OSError:
            # That is how a connection ends.
            pass


async def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, RECEIVED_AT_ONCE):
        await loop.sock_sendall(sink, data)
    raise ConnectionResetError
