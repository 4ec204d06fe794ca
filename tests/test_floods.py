"""More than the store or a client can take at once: publishers are slowed, and nobody is shut out.

One engine and one notifier do here: what is tried lies between the sockets and the store's lanes.
"""

import asyncio
import json
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack
from math import inf
from typing import Any

import pytest
from websockets.frames import Opcode

from tests import raw
from tests.clients import JSON, Client
from tests.load import Peer, Peers, until
from tests.proxy import Proxy
from tests.stores import Server, Store, eventually

KIB = 1024
OF_ONE = 256 * KIB
OF_ALL = 2 * KIB * KIB
MB_A_SECOND = 1_000_000


pytestmark = pytest.mark.one_cell


class Flood:
    """A bare client that publishes as fast as it is allowed to; it reads all that it is told.

    `at_most`: how many messages it sends; the kernel holds more small ones than one can wait for.
    """

    def __init__(
        self, server: Server, room: str, size: int, pause: float = 0.0, at_most: int = 10_000
    ) -> None:
        self._port = server.port
        self._frame = raw.text(
            json.dumps({"type": "publish", "room": room, "data": "x" * size, "ref": 1})
        )
        self._pause = pause
        self._at_most = at_most
        self._ending = False
        self.acked: list[str] = []
        self.sent = 0

    async def start(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(raw.request("/rooms", f"Sec-WebSocket-Protocol: {JSON}"))
        await self._reader.readuntil(b"\r\n\r\n")
        self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._send())]

    async def _send(self) -> None:
        # What one has sent that the server does not take: so little that it is not under way.
        self._writer.transport.set_write_buffer_limits(high=0)
        while not self._ending and self.sent < self._at_most:
            for _ in range(10):
                self._writer.write(self._frame)
                self.sent += 1
            await self._writer.drain()
            await asyncio.sleep(self._pause)

    async def _receive(self) -> None:
        left = b""
        while data := await self._reader.read(65536):
            if raw.PING in data:
                self._writer.write(raw.frame(Opcode.PONG))
            *told, left = (left + data).split(b"}")
            for each in told:
                match = re.search(rb'"type":"ack","room":"[^"]+","id":"([0-9-]+)"', each)
                assert match is not None, each
                self.acked.append(match[1].decode())

    @staticmethod
    async def end(*floods: "Flood") -> None:
        """Send no more; return once all is acknowledged."""
        for flood in floods:
            flood._ending = True
        await asyncio.gather(*(flood._tasks[1] for flood in floods))
        await until(lambda: all(len(flood.acked) == flood.sent for flood in floods), within=30)
        for flood in floods:
            flood._writer.close()
        await asyncio.gather(*(flood._writer.wait_closed() for flood in floods))
        await asyncio.gather(*(flood._tasks[0] for flood in floods))


@pytest.mark.parametrize(
    ("publishers", "size", "bound"),
    [
        pytest.param(1, 100, OF_ONE, id="one, small messages"),
        pytest.param(1, 60_000, OF_ONE, id="one, large messages"),
        pytest.param(60, 60_000, OF_ALL, id="many, large messages"),
        pytest.param(60, 100, OF_ALL, id="many, small messages"),
        pytest.param(1000, 100, OF_ALL, id="a thousand, small messages"),
    ],
)
async def test_publishers_faster_than_the_store(
    store: Store, serve: Callable[..., Server], publishers: int, size: int, bound: int
) -> None:
    """They are slowed, and not ended for it. Another room's publisher is served all the same."""
    with Proxy(store.path) as proxy:
        server = serve(proxy, "--history", "0", "--ping", "500ms")
        async with Peers(server.url) as peers:
            other = await peers.open()
            await other.publish("other", "before")
            proxy.to_store.rate = MB_A_SECOND
            floods = [
                Flood(server, f"flood{number}", size, at_most=60_000 // publishers)
                for number in range(publishers)
            ]
            for flood in floods:
                await flood.start()
            largest = 0
            for number in range(3):
                told = await asyncio.to_thread(server.statistics)
                largest = max(largest, told["unacknowledged"])
                # Within 5 s, or it raises.
                for text in (str(number), "large".ljust(60_000, "x")):
                    assert "-" in await other.publish("other", text)
                await asyncio.sleep(0.3)
            assert bound // 8 < largest <= bound, "it was hardly a flood"
            proxy.to_store.rate = inf
            await Flood.end(*floods)
        for number, flood in enumerate(floods):
            ids = [id_.decode() for id_, _ in store.client.xrange(f"streamcast:flood{number}")]
            assert flood.acked == ids


async def test_one_rooms_flood_does_not_hold_up_another(
    store: Store, serve: Callable[..., Server]
) -> None:
    """Its messages come and go between those of the flood, not behind them."""
    server = serve(store)
    floods = [Flood(server, "flood", 100, at_most=50_000) for _ in range(3)]
    for flood in floods:
        await flood.start()
    async with Peers(server.url) as peers:
        quiet = await peers.open()
        await quiet.ask(type="join", room="quiet")
        between = 0
        for number in range(50):
            before = sum(len(flood.acked) for flood in floods)
            await quiet.publish("quiet", str(number))
            await until(lambda: len(quiet.told) == number + 1)  # noqa: B023 - awaited at once
            between += sum(len(flood.acked) for flood in floods) > before
    assert between > 40, "there was no flood between"
    await Flood.end(*floods)


def test_ten_thousand_rooms_joined_and_left_in_a_second(
    store: Store, serve: Callable[..., Server]
) -> None:
    server = serve(store)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(f"{server.url}/rooms")) for _ in range(10)]
        before = server.memory()
        for round_ in range(3):
            for each, client in enumerate(clients):
                for request in ("join", "leave"):
                    for number in range(1000):
                        room = f"room{each}-{number}"
                        ref = f"{request}{number}"
                        client.send(f'{{"type":"{request}","room":"{room}","ref":"{ref}"}}')
            for client in clients:
                client.until(lambda told: told.get("ref") == "leave999")
            if round_ == 0:
                before = server.memory()
        told = server.statistics()
        assert told["reads"] > 1000, "hardly a room was opened"
        assert (told["rooms"], told["members"], told["followed"]) == (0, 0, 0)
        assert server.memory() - before < 16 * KIB * KIB
        assert clients[0].ask(type="join", room="one")["type"] == "joined"
        id_ = store.client.xadd("streamcast:one", {"message": "a"}).decode()
        assert clients[0].told()["id"] == id_


async def test_joins_during_a_storm_of_messages(store: Store, serve: Callable[..., Server]) -> None:
    """Each sees every message behind the place at which it joined, once, in order."""
    server = serve(store, "--history", "0")
    flood = Flood(server, "busy", 100, pause=0.005)
    await flood.start()
    await until(lambda: len(flood.acked) > 500)
    async with Peers(server.url) as peers:
        joined: list[tuple[Peer, str]] = []
        for number in range(40):
            seen = flood.acked[-1 - number]
            starts: list[dict[str, Any]] = [{}, {"after": seen}, {"after": "0"}, {"last": number}]
            peer = await peers.open()
            told = await peer.ask(type="join", room="busy", **starts[number % 4])
            assert told["type"] == "joined"
            assert number % 4 != 1 or (told["head"], told["resumed"]) == (seen, True)
            joined.append((peer, told["head"]))
        await Flood.end(flood)
        ids = [id_.decode() for id_, _ in store.client.xrange("streamcast:busy")]
        assert flood.acked == ids
        await until(lambda: all(peer.told and peer.told[-1]["id"] == ids[-1] for peer, _ in joined))
        for peer, head in joined:
            expected = ids if head == "0-0" else ids[ids.index(head) + 1 :]
            assert [told["id"] for told in peer.told] == expected


def test_what_a_client_leaves_behind_is_not_counted_for_ever(
    store: Store, serve: Callable[..., Server]
) -> None:
    """What waited for a join counts no more once the store has answered, or is given up."""
    server = serve(store)
    store.signal(signal.SIGSTOP)
    eventually(store.is_stopped)
    try:
        with raw.Raw(server) as client:
            client.send(raw.request("/rooms/new"), raw.text("x" * 20_000) * 3)
            eventually(lambda: server.statistics()["unacknowledged"] > 60_000)
        eventually(lambda: server.statistics()["unacknowledged"] == 0, within=10)
    finally:
        store.signal(signal.SIGCONT)


def test_the_smallest_frames_are_bounded_too(store: Store, serve: Callable[..., Server]) -> None:
    """An empty plain frame has 6 bytes, and costs as much as any message beside its payload."""
    server = serve(store)
    with raw.Raw.joined(server, "plain") as client, raw.Raw.joined(server, "plain") as other:
        other.send(raw.text("a"))
        assert client.frame().data == b"a"
        store.signal(signal.SIGSTOP)
        eventually(store.is_stopped)
        try:
            client.send(raw.text("") * 3000)
            eventually(lambda: server.statistics()["unacknowledged"] > 60_000)
            assert server.statistics()["unacknowledged"] <= OF_ONE
        finally:
            store.signal(signal.SIGCONT)
        assert {client.frame().data for _ in range(3000)} == {b""}
