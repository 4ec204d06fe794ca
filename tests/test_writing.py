"""What a socket does not take at once comes all the same, in order; and who is gone is let go.

Every write goes straight to the socket; only the rest of one goes through the event loop.
"""

import json
import logging
from collections.abc import Iterator

import pytest

from streamcast.server.connection import Connection
from streamcast.wire import Ping
from tests.in_process import InProcess
from tests.raw import Raw, text
from tests.stores import Store, eventually

pytestmark = pytest.mark.one_cell

LARGE = "x" * 60_000


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
    send = connection.write
    connection.write = lambda data: send(data[: len(data) // 3])
    for number in range(5):
        any_store.client.xadd("streamcast:writing", {"message": f"message {number}"})
    assert told(raw, "message 4") == [f"message {number}" for number in range(5)]


def test_one_that_takes_nothing_for_a_moment(
    any_store: Store, raw: Raw, connection: Connection
) -> None:
    send, tries = connection.write, iter([BlockingIOError()])

    def take_nothing(data: bytes) -> int:
        if (error := next(tries, None)) is not None:
            raise error
        return send(data)

    connection.write = take_nothing
    for number in range(3):
        any_store.client.xadd("streamcast:writing", {"message": f"message {number}"})
    assert told(raw, "message 2") == [f"message {number}" for number in range(3)]


def test_what_is_said_to_one_that_does_not_read_waits_in_order(
    in_process: InProcess, any_store: Store, raw: Raw, connection: Connection
) -> None:
    """A pong that would fit into the socket is not put into the middle of a message."""
    straight = connection.write
    count = 0
    while connection.writable:
        any_store.client.xadd("streamcast:writing", {"message": f"message {count}" + LARGE})
        count += 1
    assert connection.write != straight
    in_process.call(lambda: connection._handle(Ping()))
    any_store.client.xadd("streamcast:writing", {"message": "message z"})
    found = told(raw, "message z")
    found.remove("pong")
    assert found == [*(f"message {number}" for number in range(count)), "message z"]
    # Then it goes straight to the socket again.
    eventually(lambda: connection.write == straight)


def test_one_that_is_gone_is_no_fault(
    in_process: InProcess,
    any_store: Store,
    raw: Raw,
    connection: Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def reset(_data: bytes) -> int:
        raise ConnectionResetError

    connection.write = reset
    with Raw.joined(in_process, "writing") as other:
        any_store.client.xadd("streamcast:writing", {"message": "to all"})
        assert other.frame().data == b"to all"
        assert raw.everything() == b""
        other.send(text("and on"))
        assert other.frame().data == b"and on"
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
