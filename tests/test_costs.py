"""What keeps it fast, counted and not timed: writes, encodings, reads, memory, garbage.

That rooms cost one connection to Redis, however many there are, is in test_streams; that a storm
of joins reads the store once for all, in test_relay and faults/test_storm.
"""

import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pytest

from streamcast.config import RelaySettings, StreamSettings
from streamcast.message import Item
from streamcast.relay import Relay
from streamcast.server.connection import Connection
from streamcast.server.head import Head
from streamcast.server.parser import Parser
from streamcast.server.websocket import SMALL
from streamcast.streams import RedisStreams
from streamcast.wire import Batch, Dialect, JsonV1, Plain, Start
from tests.clients import Client
from tests.in_process import InProcess
from tests.model import Remembers
from tests.outlets import write_by
from tests.raw import text
from tests.stores import Store, eventually
from tests.test_relay import RoomMember, until

WINDOW = 64 * 1024

pytestmark = pytest.mark.one_cell


@pytest.fixture
async def relay(store: Store) -> AsyncIterator[Relay]:
    streams = RedisStreams(StreamSettings(redis=store.url), 65536)
    await streams.start()
    relay = Relay(streams, RelaySettings(window=WINDOW))
    yield relay
    await relay.close()
    await streams.close()


class OtherDialect(Remembers):
    """A second one."""


async def members_of(relay: Relay, room: str, dialects: Sequence[Remembers]) -> list[RoomMember]:
    members = [RoomMember(dialect, relay, room) for dialect in dialects]
    for member in members:
        relay.join(member.cursor, Start())
    await until(lambda: all(member.head is not None for member in members))
    return members


def add(store: Store, room: str, count: int, size: int = 10) -> None:
    """In one step, so that they are read at once."""
    with store.client.pipeline(transaction=True) as pipe:
        for _ in range(count):
            pipe.xadd(f"streamcast:{room}", {"message": "x" * size})
        pipe.execute()


async def test_a_batch_costs_a_write_a_member_and_an_encoding_a_dialect(
    store: Store, relay: Relay
) -> None:
    """Also where those who speak the one stand between those who speak the other."""
    one, other = Remembers(), OtherDialect()
    members = await members_of(relay, "room", [one, other] * 150)
    add(store, "room", 7)
    await until(lambda: all(len(member.log) == 7 for member in members))
    assert {member.writes for member in members} == {1}
    assert len(one.batches) == len(other.batches) == 1


async def test_one_that_is_paused_costs_nothing_for_a_message(store: Store, relay: Relay) -> None:
    """It stays where it is, and what the room keeps in memory has its bound all the same."""
    paused, live = await members_of(relay, "room", [Remembers()] * 2)
    add(store, "room", 1)
    await until(lambda: len(paused.log) == len(live.log) == 1)
    paused.pause()
    place = paused.cursor.mark
    for number in range(1, 21):
        add(store, "room", 100, size=1000)
        await until(partial(has, live, 1 + 100 * number))
        assert paused.cursor.mark is place
        assert paused.cursor.work is None
        assert paused.writes == 1
        # The window's own bound, and what was read last.
        assert relay.statistics().window_bytes <= WINDOW + 100 * 1250
    paused.writable = True
    relay.resume(paused.cursor)
    await until(lambda: len(paused.log) == len(live.log) == 2001)


def has(member: RoomMember, count: int) -> bool:
    return len(member.log) == count


def counting(dialect: Dialect, encoded: Counter[str]) -> Dialect:
    """The dialect; what it encodes is counted by its name."""
    encode = dialect.encode

    def count(room: str, items: Sequence[Item]) -> Batch:
        encoded[dialect.name] += 1
        return encode(room, items)

    dialect.encode = count  # type: ignore[method-assign]
    return dialect


def test_a_batch_reaches_sockets_in_one_write_each(
    in_process: InProcess, any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: Counter[str] = Counter()
    json = counting(JsonV1(), encoded)
    monkeypatch.setattr("streamcast.server.handshake.PLAIN", counting(Plain(), encoded))
    monkeypatch.setattr("streamcast.server.handshake.DIALECTS", {json.name: json})
    clients = [Client(f"{in_process.url}/rooms/batch", None) for _ in range(5)]
    speakers = [Client(f"{in_process.url}/rooms/batch") for _ in range(5)]
    for speaker in speakers:
        assert speaker.told()["type"] == "joined"
    eventually(lambda: in_process.context.relay.statistics().members == 10)
    writes: list[bytes] = []

    def count(write: Callable[[bytes], int], data: bytes) -> int:
        writes.append(data)
        return write(data)

    for connection in in_process.context.connections:
        write_by(connection, partial(count, connection.outlet.write))
    add(any_store, "batch", 9)
    for client in clients:
        assert [client.receive() for _ in range(9)] == ["x" * 10] * 9
    for speaker in speakers:
        assert [speaker.told()["data"] for _ in range(9)] == ["x" * 10] * 9
    assert len(writes) == 10
    assert encoded == {"": 1, json.name: 1}
    for each in (*clients, *speakers):
        each.socket.close()
    eventually(lambda: not in_process.context.connections)


@contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("subprotocol", [None, JsonV1.name], ids=["plain", "json"])
def test_a_connection_that_is_closed_is_free_at_once(
    in_process: InProcess, subprotocol: str | None
) -> None:
    """The collector looks rarely; there must be nothing for it to find."""
    with no_collector():
        clients = [Client(f"{in_process.url}/rooms/free", subprotocol) for _ in range(5)]
        for client in clients:
            if subprotocol is None:
                client.send("x")
            else:
                client.request({"type": "publish", "room": "free", "data": "x"})
            client.receive()
            if subprotocol is not None:
                for wrong in (
                    {"type": "join"},
                    {"type": "join", "room": "a b"},
                    {"type": "ping", "ref": []},
                    {"type": "join", "room": "\ud800"},
                    {"type": "publish", "room": "free", "data": "\ud800"},
                    {"type": "publish", "room": "free", "data": "!", "encoding": "base64"},
                ):
                    client.request(wrong)
                    client.receive()
        eventually(lambda: len(in_process.context.connections) == 5)
        assert in_memory(Connection) == 5
        for number, client in enumerate(clients):
            # What has a parser made: a ping, a large frame, half a frame.
            client.socket.ping()
            client.socket.send("x" * 2 * SMALL)
            if number % 2:
                client.socket.close()
            else:
                client.socket.socket.sendall(text("x" * 2 * SMALL)[:SMALL])
                client.socket.socket.close()
        assert Client(f"{in_process.url}/rooms/a%20b", subprotocol).closed() == 4400
        eventually(lambda: not in_process.context.connections)
        eventually(lambda: in_memory(Connection) == 0)
        assert in_memory(Head) == 0
        assert in_memory(Parser) == 0


def in_memory(kind: type) -> int:
    """How many of a kind there are."""
    return sum(type(each) is kind for each in gc.get_objects())
