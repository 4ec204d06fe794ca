"""Failovers under load: whatever was rolled back is told, and nothing else is."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import ENGINES
from tests.faults.conftest import ROOMS, Place
from tests.faults.load import Load, stored_in
from tests.sentinels import Sentinels

pytestmark = pytest.mark.one_cell

HOUR_MS = 3_600_000


@pytest.fixture
def sentinels(engine: str) -> Iterator[Sentinels]:
    made = Sentinels(ENGINES[engine])
    try:
        made.start()
        yield made
    finally:
        made.close()


def load_of(sentinels: Sentinels, place: Callable[..., Place]) -> Load:
    places = [place("--redis", sentinels.url) for _ in range(2)]
    return Load([each.url for each in places], ROOMS)


async def test_the_primary_is_killed(sentinels: Sentinels, place: Callable[..., Place]) -> None:
    load = load_of(sentinels, place)
    async with load.running():
        old = sentinels.primary
        old.kill()
        new = await asyncio.to_thread(sentinels.wait_for_failover, old)
        await load.flows()
    assert not load.verdict(stored_in(lambda _: new.client, load.rooms)).wrong
    assert not load.failed


@pytest.mark.parametrize("reached", [True, False], ids=["by clients", "by nobody"])
async def test_the_primary_is_cut_off_and_does_not_know(
    sentinels: Sentinels, place: Callable[..., Place], reached: bool
) -> None:
    """It takes messages on and on, while another one is the primary; then it is back.

    The sentinels' majority decides: what the old one took since is lost, which is told.
    """
    load = load_of(sentinels, place)
    async with load.running():
        old = sentinels.primary
        sentinels.isolate(old, clients=reached, silent=True)
        new = await asyncio.to_thread(sentinels.wait_for_failover, old)
        assert old.role == "master"
        await load.flows(within=10)
        sentinels.heal(old)
        await asyncio.to_thread(sentinels.wait_until_linked)
        await load.flows()
    verdict = load.verdict(stored_in(lambda _: new.client, load.rooms))
    assert not verdict.wrong
    assert bool(verdict.lost) == reached
    assert not load.failed


async def test_a_replica_that_lagged_and_whose_clock_is_behind(
    sentinels: Sentinels, place: Callable[..., Place]
) -> None:
    """It gives out IDs an hour older than those that were lost; messages go on all the same."""
    load = load_of(sentinels, place)
    async with load.running():
        old, lagging = sentinels.primary, sentinels.replicas
        sentinels.isolate(*lagging)
        ahead = int(time.time() * 1000) + HOUR_MS
        for room in load.rooms:
            # From then on Redis gives out IDs behind this one, as if its clock were ahead.
            old.client.xadd(f"streamcast:{room}", {"message": "0"}, id=f"{ahead}-0")
        await load.flows()
        old.kill()
        sentinels.heal(*lagging)
        new = await asyncio.to_thread(sentinels.wait_for_failover, old)
        await load.flows()
    verdict = load.verdict(stored_in(lambda _: new.client, load.rooms))
    assert not verdict.wrong
    assert set(verdict.lost) == set(load.rooms)
    assert not load.failed
