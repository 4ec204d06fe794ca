"""A cluster that changes under load: rooms go with their slots, and nothing is missed."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.clusters import Cluster, slot_of
from tests.conftest import ENGINES
from tests.faults.conftest import ROOMS, Place
from tests.faults.load import Load, stored_in

pytestmark = pytest.mark.one_cell


@pytest.fixture
def cluster(engine: str) -> Iterator[Cluster]:
    made = Cluster(ENGINES[engine])
    try:
        made.start()
        yield made
    finally:
        made.close()


def load_of(cluster: Cluster, place: Callable[..., Place], *quiet: str) -> Load:
    places = [place("--redis", cluster.url) for _ in range(2)]
    return Load([each.url for each in places], ROOMS, quiet)


async def test_a_master_is_killed(cluster: Cluster, place: Callable[..., Place]) -> None:
    load = load_of(cluster, place)
    async with load.running():
        old = cluster.masters()[0]
        old.kill()
        await asyncio.to_thread(cluster.wait_for_failover, old)
        await load.flows()
    assert not load.verdict(stored_in(cluster.client_of, load.rooms)).wrong
    assert not load.failed


async def test_slots_are_moved(cluster: Cluster, place: Callable[..., Place]) -> None:
    """Of busy rooms and of empty ones, which are told of nothing; step by step, as by hand.

    While its slot is half moved, a room can't be published to with a key (TRYAGAIN).
    """
    quiet = [f"quiet-{number}" for number in range(4)]
    load = load_of(cluster, place, *quiet)
    async with load.running():
        for room in (*load.rooms[:4], *quiet):
            slot = slot_of(f"streamcast:{room}")
            owner = cluster.node_of_slot(slot)
            other = next(node for node in cluster.masters() if node is not owner)
            move = cluster.begin_move(slot, other)
            await load.flows(without=room)
            await asyncio.to_thread(move.keys)
            await load.flows(without=room)
            await asyncio.to_thread(move.finish)
        await load.flows()
    verdict = load.verdict(stored_in(cluster.client_of, load.rooms))
    assert not verdict.wrong
    assert not verdict.rolled_back
    assert not load.failed


async def test_masters_change_places(cluster: Cluster, place: Callable[..., Place]) -> None:
    """CLUSTER FAILOVER loses nothing, and nobody is told of a gap."""
    load = load_of(cluster, place)
    async with load.running():
        for master in cluster.masters()[:2]:
            [replica] = cluster.replicas_of(master)
            await asyncio.to_thread(cluster.failover, replica)
            await load.flows()
    verdict = load.verdict(stored_in(cluster.client_of, load.rooms))
    assert not verdict.wrong
    assert not verdict.rolled_back
    assert not load.failed
