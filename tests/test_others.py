"""What workers know of each other, in memory that they share."""

import os
from collections.abc import Iterator

import pytest

from streamcast.server import others
from streamcast.server.listening import close_all, listen
from streamcast.server.others import Others, Rows, shared_memory


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = shared_memory(3)
    yield descriptor
    os.close(descriptor)


def test_states(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads what the others told; one that ended is down, one that hangs is silent."""
    parent = Rows(3, memory)
    first, second = (Others(row, Rows(3, memory)) for row in (0, 1))
    assert first.states == ["down", "down", "down"]
    first.tell("ready")
    second.tell("read-only")
    assert first.states == second.states == ["ready", "read-only", "down"]
    parent.clear(1)
    assert first.states == ["ready", "down", "down"]
    monkeypatch.setattr(others, "STATE_LASTS", 0)
    assert second.states == ["silent", "down", "down"]


def test_who_has_the_fewest(memory: int) -> None:
    """Of those that accept clients."""
    parent = Rows(3, memory)
    first, second = (Others(row, Rows(3, memory)) for row in (0, 1))
    assert first.fewest == 0
    first.clients, second.clients = 5, 6
    assert (first.clients, first.fewest, second.fewest) == (5, 5, 5)
    first.accept_none()
    assert second.fewest == 6
    first.clients = 1
    assert second.fewest == 1
    parent.clear(0)
    assert second.fewest == 6


def test_how_many_all_serve(memory: int) -> None:
    parent = Rows(3, memory)
    first, third = (Others(row, Rows(3, memory)) for row in (0, 2))
    first.admitted += 2
    third.admitted += 1
    assert (first.admitted, first.admitted_by_all) == (2, 3)
    parent.clear(0)
    assert third.admitted_by_all == 1


def test_one_by_itself() -> None:
    alone = Others()
    alone.admitted += 1
    assert alone.admitted_by_all == 1
    alone.clients = 7
    assert alone.fewest == 7
    alone.tell("ready")
    assert alone.states == ["ready"]


async def test_all_addresses_of_a_host_have_one_port() -> None:
    sockets = await listen("", 0)
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    close_all(sockets)
