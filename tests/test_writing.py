"""What a socket does not take at once comes all the same, in order; and who is gone is let go.

Every write goes straight to the socket; only the rest of one goes through the event loop.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator

import pytest
from websockets.frames import Opcode

from streamcast import row
from streamcast.fanout import LONG_TURN
from streamcast.message import ZERO
from streamcast.outlet import native, pure
from streamcast.server import connection as connections
from streamcast.server.connection import MANY_ACKS, Connection
from streamcast.wire import Close, Leave, Ping, frames
from streamcast.wire.close import Code
from tests.in_process import InProcess
from tests.outlets import write_by
from tests.raw import Raw, close, frame, text
from tests.stores import Store, eventually
from tests.test_fanout import Owner

pytestmark = pytest.mark.one_cell

LARGE = "x" * 60_000


@pytest.fixture(params=[native, pure], ids=["native", "pure"], autouse=True)
def outlets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without what is in C."""
    monkeypatch.setattr(connections, "Outlet", request.param.Outlet)
    monkeypatch.setattr(row, "write_each", request.param.write_each)


@pytest.fixture
def raw(in_process: InProcess) -> Iterator[Raw]:
    """A JSON client that has joined `writing` and has little room for what it does not read."""
    with Raw.joined(in_process, "writing", "json", receive_buffer=4096) as raw:
        yield raw
    eventually(lambda: not in_process.context.connections)


@pytest.fixture
def connection(in_process: InProcess, raw: Raw) -> Connection:
    """Its connection at the server."""
    (connection,) = in_process.context.connections
    return connection


def told(raw: Raw, until: str) -> list[str]:
    """What comes up to a message or the pong with that text: the texts, in short."""
    found: list[str] = []
    while until not in found:
        said = json.loads(raw.frame().data)
        found.append(said["data"][:9] if said["type"] == "message" else said["type"])
    return found


def test_a_part_is_followed_by_the_rest(any_store: Store, raw: Raw, connection: Connection) -> None:
    send = connection.outlet.write
    write_by(connection, lambda data: send(data[: len(data) // 3]))
    for number in range(5):
        any_store.client.xadd("streamcast:writing", {"message": f"message {number}"})
    assert told(raw, "message 4") == [f"message {number}" for number in range(5)]


def test_one_that_takes_nothing_for_a_moment(
    any_store: Store, raw: Raw, connection: Connection
) -> None:
    send, tries = connection.outlet.write, iter([BlockingIOError()])

    def take_nothing(data: bytes) -> int:
        if (error := next(tries, None)) is not None:
            raise error
        return send(data)

    write_by(connection, take_nothing)
    for number in range(3):
        any_store.client.xadd("streamcast:writing", {"message": f"message {number}"})
    assert told(raw, "message 2") == [f"message {number}" for number in range(3)]


def test_what_is_said_to_one_that_does_not_read_waits_in_order(
    in_process: InProcess, any_store: Store, raw: Raw, connection: Connection
) -> None:
    """A pong that would fit into the socket is not put into the middle of a message."""
    count = 0
    while connection.writable:
        any_store.client.xadd("streamcast:writing", {"message": f"message {count}" + LARGE})
        count += 1
    socket = in_process.call(lambda: Socket(connection, len))
    in_process.call(lambda: connection._handle(Ping()))
    any_store.client.xadd("streamcast:writing", {"message": "message z"})
    found = told(raw, "message z")
    found.remove("pong")
    assert found == [*(f"message {number}" for number in range(count)), "message z"]
    assert not any(b"pong" in data for data in socket.sent)
    # Then it goes straight to the socket again.
    eventually(lambda: connection.writable)
    in_process.call(lambda: connection._handle(Ping()))
    assert told(raw, "pong") == ["pong"]
    assert b"pong" in socket.sent[-1]


class Socket:
    """A connection's socket; `sent` is what was sent through it, and `take` limits the first."""

    def __init__(self, connection: Connection, take: Callable[[bytes], int]) -> None:
        self.straight = connection.outlet.write
        self.sent: list[bytes] = []

        def send(data: bytes) -> int:
            self.sent.append(data)
            return self.straight(data[: take(data) if len(self.sent) == 1 else None])

        write_by(connection, send)


def none_of(_: bytes) -> int:
    raise BlockingIOError


def publish(number: int) -> bytes:
    return text(json.dumps({"type": "publish", "data": f"message {number}", "room": "writing"}))


@pytest.mark.parametrize(
    "take",
    [len, none_of, lambda _: 5, lambda data: data.index(b"}") + 2, lambda data: len(data) - 1],
    ids=["all", "none", "some of the ack", "a little more than the ack", "nearly all"],
)
def test_an_ack_goes_in_one_write_with_the_publishers_own_message(
    in_process: InProcess,
    any_store: Store,
    raw: Raw,
    connection: Connection,
    take: Callable[[bytes], int],
) -> None:
    """Whatever the socket takes of it."""
    raw.send(publish(9))
    assert told(raw, "message 9") == ["ack", "message 9"]
    # The new stream is given its time to live, which is a change, and so read.
    eventually(lambda: any_store.client.pttl("streamcast:writing") > 0)
    any_store.client.xadd("streamcast:writing", {"message": "message z"})
    told(raw, "message z")
    socket = in_process.call(lambda: Socket(connection, take))
    for number in range(5):
        raw.send(publish(number))
        assert told(raw, f"message {number}") == ["ack", f"message {number}"]
    assert all(b'"ack"' in data and b'"message"' in data for data in socket.sent)
    if take is len:
        assert len(socket.sent) == 5
    eventually(lambda: not connection.outlet.held)


def test_an_ack_is_written_though_no_message_comes_with_it(
    in_process: InProcess, raw: Raw, connection: Connection
) -> None:
    """And what is said behind it comes behind it."""
    in_process.call(lambda: connection._handle(Leave("writing")))
    assert told(raw, "left") == ["left"]
    raw.send(publish(0))
    assert told(raw, "ack") == ["ack"]

    def answered() -> None:
        connection._ack(connection.dialect.acked("writing", 1, ZERO))
        connection._ack(connection.dialect.acked("writing", 2, ZERO))
        connection._handle(Ping())

    socket = in_process.call(lambda: Socket(connection, len))
    in_process.call(answered)
    assert told(raw, "pong") == ["ack", "ack", "pong"]
    assert len(socket.sent) == 1
    in_process.call(lambda: connection._ack(connection.dialect.acked("writing", 3, ZERO)))
    assert told(raw, "ack") == ["ack"]
    assert len(socket.sent) == 2


def test_an_ack_waits_for_what_came_with_it_and_no_longer(
    in_process: InProcess, raw: Raw, connection: Connection
) -> None:
    """Though others that came before have waited since then: each goes behind its own rooms."""
    fan_out = in_process.context.relay._fan_out
    ack = connection.dialect.acked("writing", 1, ZERO)
    held: list[bytes] = []
    with Raw.joined(in_process, "other", "json") as other:
        (second,) = in_process.context.connections.keys() - {connection}

        def begin() -> None:
            fan_out.add(Owner(meanwhile))
            connection._ack(ack)

        def meanwhile(_limit: int) -> bool:
            time.sleep(LONG_TURN)  # the turn is over then
            fan_out.add(Owner(look))
            second._ack(ack)
            return False

        def look(_limit: int) -> bool:
            held.extend(each.outlet.held for each in (connection, second))
            return False

        in_process.call(begin)
        assert told(raw, "ack") == told(other, "ack") == ["ack"]
    assert held == [b"", ack]


def test_acks_stay_in_front_whatever_the_socket_takes(
    in_process: InProcess, raw: Raw, connection: Connection
) -> None:
    """Wherever it stops taking: in an ack, between, or in what comes behind."""
    count = 300

    def answered() -> None:
        for number in range(count):
            connection._ack(connection.dialect.acked("writing", number, ZERO))
            connection.write(frames.text(b'{"type": "message"}' + b" " * (number * 37)))
        assert not connection.writable

    in_process.call(answered)
    said = [answer(raw) for _ in range(2 * count)]
    assert said == [each for number in range(count) for each in (number, "message")]


def test_one_that_is_gone_is_written_to_no_more(
    in_process: InProcess, raw: Raw, connection: Connection
) -> None:
    """The number of its socket may be another's."""
    raw.socket.close()
    eventually(lambda: not in_process.context.connections)
    in_process.call(lambda: None)
    assert connection.outlet.write(b"to nobody") == 9


def test_acks_are_not_gathered_without_bound(
    in_process: InProcess, raw: Raw, connection: Connection
) -> None:
    ack = connection.dialect.acked("writing", None, ZERO)

    def answered() -> int:
        socket = Socket(connection, len)
        for _ in range(2 * MANY_ACKS // len(ack)):
            connection._ack(ack)
        return len(socket.sent)

    assert in_process.call(answered) == 1
    for _ in range(2 * MANY_ACKS // len(ack)):
        assert told(raw, "ack") == ["ack"]


def test_a_close_comes_behind_the_acks(
    in_process: InProcess, raw: Raw, connection: Connection
) -> None:
    def answered() -> None:
        connection._ack(connection.dialect.acked("writing", None, ZERO))
        connection.close(Close(Code.RESTART, "restarting"))
        connection._ack(connection.dialect.acked("writing", None, ZERO))

    in_process.call(answered)
    assert told(raw, "ack") == ["ack"]
    assert raw.frame().opcode == Opcode.CLOSE
    raw.send(close(Code.RESTART))
    assert raw.everything() == b""


def test_a_close_over_a_mistake_comes_behind_the_acks(
    in_process: InProcess, raw: Raw, connection: Connection
) -> None:
    def answered() -> None:
        connection._ack(connection.dialect.acked("writing", None, ZERO))
        connection.received(frame(Opcode.TEXT, b"not masked", masked=False))

    in_process.call(answered)
    assert told(raw, "ack") == ["ack"]
    assert raw.frame().opcode == Opcode.CLOSE


def test_acks_are_not_put_into_the_middle_of_a_message(
    in_process: InProcess, raw: Raw, connection: Connection
) -> None:
    """Neither those that waited when the socket took no more, nor those that come then."""
    large = frames.text(json.dumps({"type": "message", "data": LARGE}).encode())

    def answered(number: int) -> None:
        connection._ack(connection.dialect.acked("writing", number, ZERO))

    def fill() -> Socket:
        socket = Socket(connection, len)
        answered(1)
        taken = len(large)
        while taken == len(large):
            try:
                taken = socket.straight(large)
            except BlockingIOError:
                taken = 0
        connection._transport.write(large[taken:])
        assert not connection.writable
        answered(2)
        return socket

    socket = in_process.call(fill)
    in_process.call(lambda: None)
    assert not socket.sent
    raw.send(text('{"type": "ping"}'))
    said = [answer(raw)]
    while said[-1] != "pong":
        said.append(answer(raw))
    assert [each for each in said if each != "message"] == [1, 2, "pong"]


def answer(raw: Raw) -> object:
    """What comes: an ack's ref, or the type of anything else."""
    said = json.loads(raw.frame().data)
    return said["ref"] if said["type"] == "ack" else said["type"]


def test_one_that_is_gone_is_no_fault(
    in_process: InProcess,
    any_store: Store,
    raw: Raw,
    connection: Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def reset(_data: bytes) -> int:
        raise ConnectionResetError

    write_by(connection, reset)
    with Raw.joined(in_process, "writing") as other:
        any_store.client.xadd("streamcast:writing", {"message": "to all"})
        assert other.frame().data == b"to all"
        assert raw.everything() == b""
        other.send(text("and on"))
        assert other.frame().data == b"and on"
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
