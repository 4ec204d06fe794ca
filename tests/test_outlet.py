"""The outlet in C and the one in Python do the same."""

import errno
import gc
import os
import socket
import weakref
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import streamcast.outlet
from streamcast.outlet import native, pure
from tests.stores import eventually

pytestmark = pytest.mark.one_cell

LARGE = bytes(range(256)) * 4096


@pytest.fixture(params=[native, pure], ids=["native", "pure"])
def kind(request: pytest.FixtureRequest) -> ModuleType:
    module: ModuleType = request.param
    return module


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, theirs


Ends = tuple[socket.socket, socket.socket]


def received(theirs: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += theirs.recv(65536)
    return data


def nothing_comes(theirs: socket.socket) -> bool:
    theirs.setblocking(False)
    try:
        theirs.recv(1)
    except BlockingIOError:
        return True
    finally:
        theirs.settimeout(5)
    return False


def test_where_there_is_a_compiler_the_one_in_c_is_used() -> None:
    assert streamcast.outlet.Outlet is native.Outlet
    assert streamcast.outlet.write_each is native.write_each


def test_it_writes(kind: ModuleType, ends: Ends) -> None:
    ours, theirs = ends
    outlet = kind.Outlet(ours)
    assert outlet.held == b""
    assert outlet.write(b"one") == 3
    assert outlet.write(b"") == 0
    assert outlet.write(b"two") == 3
    assert received(theirs, 6) == b"onetwo"


def test_what_is_held_goes_in_front_in_one_write(kind: ModuleType) -> None:
    """One datagram, so one write."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        outlet = kind.Outlet(ours)
        outlet.hold(b"ack 1 ")
        outlet.hold(b"ack 2 ")
        assert outlet.held == b"ack 1 ack 2 "
        assert nothing_comes(theirs)
        assert outlet.write(b"message") == 7
        assert outlet.held == b""
        assert theirs.recv(100) == b"ack 1 ack 2 message"
        assert outlet.write(b"next") == 4
        assert theirs.recv(100) == b"next"


@pytest.mark.parametrize("whole", [1023, 1024, 1025, 5000])
def test_however_much_it_is_that_is_one_write(kind: ModuleType, whole: int) -> None:
    """Up to a certain size C makes one piece of it, and from there on gives the kernel two."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        outlet = kind.Outlet(ours)
        held = bytes(range(250)) * 20
        outlet.hold(held[: whole - 7])
        assert outlet.write(b"message") == 7
        assert theirs.recv(10_000) == held[: whole - 7] + b"message"
        assert outlet.held == b""


def test_what_is_released_is_held_no_more(kind: ModuleType, ends: Ends) -> None:
    ours, theirs = ends
    outlet = kind.Outlet(ours)
    assert outlet.release() == b""
    outlet.hold(b"ack")
    assert outlet.release() == b"ack"
    assert outlet.release() == outlet.held == b""
    assert outlet.write(b"message") == 7
    assert received(theirs, 7) == b"message"


@pytest.mark.parametrize("held", [b"", b"ack"])
def test_a_socket_that_takes_nothing(kind: ModuleType, ends: Ends, held: bytes) -> None:
    ours, theirs = ends
    outlet = kind.Outlet(ours)
    before = fill(ours)
    if held:
        outlet.hold(held)
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            outlet.write(b"message")
        assert outlet.held == held
    received(theirs, before)
    assert outlet.write(b"message") == 7
    assert received(theirs, len(held) + 7) == held + b"message"


def fill(sock: socket.socket) -> int:
    count = 0
    while True:
        try:
            count += sock.send(LARGE)
        except BlockingIOError:
            return count


@pytest.mark.parametrize("held", [b"", b"ack", LARGE * 8])
def test_a_socket_that_takes_a_part(kind: ModuleType, held: bytes) -> None:
    """What was taken of what is held is written no more; what is left of it goes first."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    with ours, theirs:
        ours.setblocking(False)
        theirs.settimeout(5)
        outlet = kind.Outlet(ours)
        if held:
            outlet.hold(held)
        data = LARGE * 16
        taken = outlet.write(data)
        left = len(outlet.held)
        assert 0 <= taken < len(data)
        assert (left > 0) == (len(held) > len(LARGE))
        assert taken == 0 or not left
        arrived = received(theirs, len(held) - left + taken)
        assert outlet.held == held[len(held) - left :]
        assert arrived == (held + data)[: len(arrived)]
        assert len(arrived) == len(held) - left + taken
        while outlet.held:
            outlet.write(b"")
            arrived += received(theirs, left - len(outlet.held))
            left = len(outlet.held)
        assert arrived == held + data[:taken]


def test_a_peer_that_is_gone(kind: ModuleType, ends: Ends) -> None:
    ours, theirs = ends
    outlet = kind.Outlet(ours)
    theirs.close()
    for _ in range(2):
        with pytest.raises(BrokenPipeError) as caught:
            outlet.write(b"message")
        assert caught.value.errno == errno.EPIPE
        outlet.hold(b"ack")


def test_once_closed_it_takes_all_and_writes_nothing(kind: ModuleType, ends: Ends) -> None:
    """Also where its number is another's by then."""
    ours, theirs = ends
    outlet = kind.Outlet(ours)
    outlet.hold(b"ack")
    outlet.close()
    assert outlet.held == b""
    assert outlet.write(b"message") == 7
    outlet.hold(b"ack")
    assert outlet.write(b"message") == 7
    assert outlet.held == b""
    assert list(kind.write_each([outlet], b"message", 0, 1)) == []
    assert nothing_comes(theirs)


def test_it_is_free_with_what_it_holds(kind: ModuleType, ends: Ends) -> None:
    """And writing leaves nothing behind, whatever comes of it."""
    ours, _ = ends
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(100):
            outlet = kind.Outlet(ours)
            outlet.hold(os.urandom(10))
            kind.write_each([outlet, Broken(), Takes(1)], b"message", 0, 3)
        del outlet
        assert len(gc.get_objects()) <= before + 10
    finally:
        gc.enable()


# Many


class Takes:
    """Takes so many bytes."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.writes.append(data)
        return self.count


class Broken:
    """Raises."""

    def write(self, data: bytes) -> int:
        raise ZeroDivisionError(data)


def test_the_same_is_written_to_all_in_between(kind: ModuleType) -> None:
    pairs = [socket.socketpair() for _ in range(5)]
    for ours, _ in pairs:
        ours.setblocking(False)
    outlets: list[Any] = [kind.Outlet(ours) for ours, _ in pairs]
    outlets[2].hold(b"ack ")
    assert list(kind.write_each(outlets, b"message", 1, 4)) == []
    assert list(kind.write_each(outlets, b"message", 2, 2)) == []
    for index, (ours, theirs) in enumerate(pairs):
        expected = b"ack message" if index == 2 else b"message" if 1 <= index < 4 else b""
        assert received(theirs, len(expected)) == expected
        assert nothing_comes(theirs)
        ours.close()
        theirs.close()


def test_who_does_not_take_all_is_told_and_keeps_nobody_from_it(
    kind: ModuleType, ends: Ends
) -> None:
    ours, theirs = ends
    theirs.close()
    gone = kind.Outlet(ours)
    all_of_it, some, none, too_many = Takes(7), Takes(3), Takes(0), Takes(10**30)
    outlets = [Takes(7), some, gone, Broken(), none, too_many, all_of_it]
    failed = list(kind.write_each(outlets, b"message", 0, 7))
    assert [index for index, _ in failed] == [1, 2, 3, 4, 5]
    assert failed[0][1] == 3
    assert failed[3][1] == 0
    assert isinstance(failed[1][1], BrokenPipeError)
    fault = failed[2][1]
    assert isinstance(fault, ZeroDivisionError)
    assert fault.args == (b"message",)
    assert fault.__traceback__ is None
    assert all_of_it.writes == some.writes == [b"message"]


def test_an_interrupt_is_for_the_caller(kind: ModuleType) -> None:
    class Interrupted:
        def write(self, data: bytes) -> int:
            raise KeyboardInterrupt

    behind = Takes(7)
    with pytest.raises(KeyboardInterrupt):
        kind.write_each([Takes(7), Interrupted(), behind], b"message", 0, 3)
    assert behind.writes == []


def test_an_outlet_may_be_let_go_of_in_being_written_to(kind: ModuleType) -> None:
    class Leaves:
        def write(self, data: bytes) -> int:
            outlets[0] = Takes(7)
            return 1

    outlets: list[Any] = [Leaves(), Takes(7)]
    left = weakref.ref(outlets[0])
    assert list(kind.write_each(outlets, b"message", 0, 2)) == [(0, 1)]
    eventually(lambda: left() is None)


def test_a_list_that_gets_shorter_is_read_as_far_as_it_goes_in_c() -> None:
    class Clears:
        def write(self, data: bytes) -> int:
            outlets.clear()
            return len(data)

    outlets: list[Any] = [Clears(), *(Takes(7) for _ in range(100))]
    assert list(native.write_each(outlets, b"message", 0, 101)) == []


@pytest.mark.parametrize("bad", ["text", None, memoryview(b"message")])
def test_only_bytes_are_written_in_c(ends: Ends, bad: Any) -> None:
    """It would read beyond what anything else holds."""
    outlet = native.Outlet(ends[0])
    for call in (outlet.write, outlet.hold):
        with pytest.raises(TypeError):
            call(bad)
    with pytest.raises(TypeError):
        native.write_each([outlet], bad, 0, 1)
    with pytest.raises(TypeError):
        native.write_each((outlet,), b"message", 0, 1)  # not a list
    with pytest.raises(TypeError):
        native.write_each([outlet], b"message", 0)  # type: ignore[call-arg]
    with pytest.raises(IndexError):
        native.write_each([outlet], b"message", -1, 1)
    with pytest.raises(TypeError):
        native.Outlet("no socket")  # type: ignore[arg-type]
    closed = socket.socket()
    closed.close()
    with pytest.raises(ValueError, match="-1"):
        native.Outlet(closed)
