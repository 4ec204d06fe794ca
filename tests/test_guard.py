"""A fault in one connection's handling ends that connection alone, and is logged once.

The server runs in this process, on uvloop as it does for users, so that faults can be put into it.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import pytest
from websockets.frames import Opcode

from streamcast.server import handshake, head, target, websocket
from streamcast.server.connection import Connection
from streamcast.server.context import Context
from streamcast.server.head import Head
from streamcast.wire import JsonV1, Plain
from tests.bystander import Bystander
from tests.clients import Client
from tests.in_process import InProcess
from tests.outlets import write_by
from tests.raw import Frame, Raw, request, text
from tests.stores import Store, eventually

T = TypeVar("T")
INTERNAL = 1011
BOOM = "boom"


class Fault(Exception):
    """One that nobody thought of."""


def fail(*_args: Any, **_more: Any) -> Any:
    raise Fault


@pytest.fixture
def bystander(
    in_process: InProcess, any_store: Store, caplog: pytest.LogCaptureFixture
) -> Iterator[Bystander]:
    """He notices nothing, and the log has the fault once."""
    one = Bystander(in_process, any_store)
    yield one
    one.noticed_nothing()
    one.leave()
    logged = [each for each in caplog.get_records("call") if each.levelno >= logging.WARNING]
    assert [each.getMessage() for each in logged] == ["fault"]
    assert logged[0].exc_info is not None
    assert logged[0].exc_info[0] is Fault


class FaultyPlain(Plain):
    """Fails to read and to write a payload."""

    def decode(self, data: bytes, *args: Any, **more: Any) -> Any:
        if data.startswith(b"boom"):
            raise Fault
        return super().decode(data, *args, **more)

    def encode(self, room: str, items: Any) -> Any:
        if any(item.data == b"boom" for item in items):
            raise Fault
        return super().encode(room, items)


class FaultyJson(JsonV1):
    """Fails to answer what has a certain ref."""

    def _check(self, ref: Any) -> None:
        if ref == BOOM:
            raise Fault

    def joined(self, room: str, ref: Any, *args: Any, **more: Any) -> Any:
        self._check(ref)
        return super().joined(room, ref, *args, **more)

    def left(self, room: str, ref: Any) -> Any:
        self._check(ref)
        return super().left(room, ref)

    def acked(self, room: str, ref: Any, *args: Any) -> Any:
        self._check(ref)
        return super().acked(room, ref, *args)

    def pong(self, ref: Any) -> Any:
        self._check(ref)
        return super().pong(ref)

    def error(self, error: Any, room: Any, ref: Any) -> Any:
        self._check(ref)
        return super().error(error, room, ref)


@pytest.fixture(autouse=True)
def _faulty_dialects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "PLAIN", FaultyPlain())
    monkeypatch.setattr(handshake, "DIALECTS", {JsonV1.name: FaultyJson()})


# Dialects


@pytest.mark.parametrize("size", [4, 60_000])
def test_reading_a_frame(in_process: InProcess, bystander: Bystander, size: int) -> None:
    """At once, or in later turns of the loop."""
    with Raw.joined(in_process, bystander.room) as raw:
        raw.send(text(BOOM.ljust(size)))
        assert raw.closed() == INTERNAL


@pytest.mark.parametrize(
    "sent",
    [
        {"type": "join"},
        {"type": "join", "room": "a b"},
        {"type": "leave"},
        {"type": "ping"},
        {"type": "dance"},
    ],
    ids=repr,
)
def test_answering(in_process: InProcess, bystander: Bystander, sent: dict[str, Any]) -> None:
    with Client(f"{in_process.url}/rooms") as client:
        client.request({"room": bystander.room, "ref": BOOM} | sent)
        assert client.closed() == INTERNAL


def test_acknowledging(in_process: InProcess, bystander: Bystander) -> None:
    """The message is stored; its publisher can't know, which 1011 says."""
    with Client(f"{in_process.url}/rooms") as client:
        client.request({"type": "publish", "room": bystander.room, "data": "x", "ref": BOOM})
        assert client.closed() == INTERNAL
    bystander.stored.append("x")


def test_writing_a_message(in_process: InProcess, bystander: Bystander) -> None:
    """Those end whose dialect fails; it is tried once for all of them."""
    members = [Raw.joined(in_process, bystander.room) for _ in range(3)]
    bystander.hears("good")
    for raw in members:
        assert raw.frame().data == b"good"
    bystander.hears(BOOM)
    for raw in members:
        assert raw.closed() == INTERNAL
        raw.socket.close()


def test_writing_what_is_caught_up(in_process: InProcess, bystander: Bystander) -> None:
    bystander.hears(BOOM)
    with Raw(in_process) as raw:
        raw.send(request(f"/rooms/{bystander.room}?last=1"))
        raw.head()
        assert raw.closed() == INTERNAL


# Connections


class FaultyTransport:
    """Fails to write some data; the rest it leaves to another."""

    def __init__(self, transport: asyncio.Transport, data: bytes) -> None:
        self._transport = transport
        self._data = data

    def write(self, data: bytes) -> None:
        if self._data in data:
            raise Fault
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def make_write_fail(connection: Connection | Head, data: bytes) -> None:
    connection._transport = FaultyTransport(connection._transport, data)  # type: ignore[assignment]
    if isinstance(connection, Connection):
        write_by(connection, partial(write_unless, data, connection.outlet.write))


def write_unless(bad: bytes, write: Callable[[bytes], int], data: bytes) -> int:
    if bad in data:
        raise Fault
    return write(data)


def test_a_member_that_can_not_be_written_to(in_process: InProcess, bystander: Bystander) -> None:
    """The others of its room get the message, also those behind it."""
    with Raw.joined(in_process, bystander.room) as raw:
        make_write_fail(in_process.plain_connection(), b"bang")
        with Raw.joined(in_process, bystander.room) as other:
            bystander.hears("bang")
            assert raw.closed() == INTERNAL
            assert other.frame().data == b"bang"


def test_a_close_that_can_not_be_written(in_process: InProcess, bystander: Bystander) -> None:
    """The connection is cut: no close is left to say so."""
    with Raw.joined(in_process, bystander.room) as raw:
        make_write_fail(in_process.plain_connection(), b"\x88")
        raw.send(text(b"\xff"))
        assert raw.everything() == b""


def test_pinging(in_process: InProcess, bystander: Bystander) -> None:
    with Raw.joined(in_process, bystander.room) as raw:
        connection = in_process.plain_connection()
        make_write_fail(connection, b"\x89")
        in_process.call(connection.ping)
        assert raw.closed() == INTERNAL


def test_catching_up(
    in_process: InProcess, bystander: Bystander, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Raw.joined(in_process, bystander.room) as raw:
        connection = in_process.plain_connection()
        with monkeypatch.context() as patch:
            patch.setattr(in_process.context.relay, "resume", fail)
            in_process.call(connection.resume_writing)
        assert raw.closed() == INTERNAL


def test_the_end_of_what_is_sent(
    in_process: InProcess, bystander: Bystander, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Raw.joined(in_process, bystander.room) as raw, monkeypatch.context() as patch:
        patch.setattr(websocket.WebSocket, "receive_eof", fail)
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.closed() == INTERNAL


@pytest.mark.parametrize("name", ["pause_reading", "resume_reading"])
def test_pausing(in_process: InProcess, bystander: Bystander, name: str) -> None:
    """A transport that can't be paused, nor told to go on."""
    with Raw.joined(in_process, bystander.room) as raw:
        connection = in_process.plain_connection()
        if name == "resume_reading":
            in_process.call(connection.pause_writing)
        transport: Any = FaultyTransport(connection._transport, b"never")
        setattr(transport, name, fail)
        connection._transport = transport
        in_process.call(connection.pause_writing)
        in_process.call(connection.resume_writing)
        assert raw.frame() == Frame(Opcode.CLOSE, b"\x03\xf3internal error")
        # One that reads no more does not see the answer to its close.
        in_process.call(connection.abort)
        assert raw.everything() == b""


def test_leaving(
    in_process: InProcess, bystander: Bystander, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose leaving fails is forgotten all the same."""
    with Raw.joined(in_process, bystander.room) as raw:
        connection = in_process.plain_connection()
        with monkeypatch.context() as patch:
            patch.setattr(in_process.context.relay, "leave", fail)
            in_process.call(connection.abort)
            assert raw.everything() == b""
            in_process.call(lambda: None)
    assert connection not in in_process.context.connections


# Heads


def test_a_fault_before_the_upgrade(
    in_process: InProcess, bystander: Bystander, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Raw(in_process) as raw, monkeypatch.context() as patch:
        patch.setattr(target, "parse", fail)
        raw.send(request())
        assert raw.everything().startswith(b"HTTP/1.1 500 ")


def test_a_fault_in_the_upgrade(
    in_process: InProcess, bystander: Bystander, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Raw(in_process) as raw, monkeypatch.context() as patch:
        patch.setattr(head, "Connection", fail)
        raw.send(request())
        assert raw.everything().startswith(b"HTTP/1.1 500 ")


def test_a_fault_behind_the_upgrade(
    in_process: InProcess, bystander: Bystander, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Raw(in_process) as raw, monkeypatch.context() as patch:
        patch.setattr(in_process.context.relay, "join", fail)
        raw.send(request(f"/rooms/{bystander.room}"), text("for nobody"))
        assert raw.head().startswith("HTTP/1.1 101 ")
        assert raw.closed() == INTERNAL


def test_a_fault_in_accepting(
    in_process: InProcess, bystander: Bystander, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Context, "has_no_file_left", property(fail))
        with Raw(in_process) as raw:
            assert raw.everything().startswith(b"HTTP/1.1 500 ")


def test_an_answer_that_can_not_be_written(in_process: InProcess, bystander: Bystander) -> None:
    with Raw(in_process) as raw:
        (late,) = eventually(lambda: list(in_process.context.heads))
        make_write_fail(late, b"HTTP/1.1 ")
        in_process.call(late.give_up)
        assert raw.everything() == b""
