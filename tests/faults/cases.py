"""The cases: what is done under load, and whether acknowledged messages may be lost by it.

What a store lost is never streamcast's to keep; that it is told to everybody is, and that nothing
else is told, or lost.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psutil

from tests.clusters import slot_of
from tests.faults.checker import Verdict
from tests.faults.load import Load
from tests.faults.stage import Stage

ROOMS = 20
HOUR_MS = 3_600_000


class Loss(Enum):
    """Whether the store loses what it acknowledged."""

    NEVER = "never"
    MAY = "may"
    ALWAYS = "always"


@dataclass
class Outcome:
    """What came of it. `failed`: messages that were not acknowledged, in words.

    `recovered`: how many seconds it took each time until messages came everywhere again.
    """

    verdict: Verdict
    failed: list[str]
    recovered: list[float]


@dataclass(frozen=True)
class Case:
    """A case by its name."""

    name: str
    run: Callable[[Stage], Awaitable[Outcome]]
    loss: Loss

    def check(self, outcome: Outcome) -> None:
        """Raise AssertionError if a promise was broken."""
        verdict = outcome.verdict
        assert not verdict.wrong, "\n".join(verdict.wrong)
        assert not outcome.failed, "\n".join(outcome.failed)
        if self.loss is Loss.NEVER:
            assert not verdict.rolled_back, f"rolled back: {verdict.rolled_back}"
        if self.loss is Loss.ALWAYS:
            assert verdict.lost, "nothing was lost: the case does not do what it says"


# Servers, and one Redis


async def servers_killed(stage: Stage) -> Outcome:
    """One of two is killed, five times, in turn."""
    store = stage.store()
    places = [stage.place("--redis", store.url) for _ in range(2)]
    load = Load([each.url for each in places], ROOMS, lambda _: store.client)
    async with load.running():
        for number in range(5):
            killed = places[number % 2]
            killed.server.signal(signal.SIGKILL)
            await asyncio.to_thread(killed.server.ended)
            await load.flows()
            await asyncio.to_thread(killed.restart)
    return outcome_of(load)


async def workers_stopped(stage: Stage) -> Outcome:
    """One of a server's two workers is killed; then that server stops, in order."""
    store = stage.store()
    place = stage.place("--redis", store.url, "--workers", "2")
    other = stage.place("--redis", store.url)
    load = Load([place.url, other.url], ROOMS, lambda _: store.client)
    async with load.running():
        psutil.Process(place.server.process.pid).children()[0].kill()
        await load.flows()
        place.server.signal(signal.SIGTERM)
        code, logged = await asyncio.to_thread(place.server.ended)
        assert code == 0, logged
        await load.flows()
    return outcome_of(load)


async def redis_killed(stage: Stage) -> Outcome:
    """With an append-only file that is always written before the answer."""
    store = stage.store("--appendonly", "yes", "--appendfsync", "always")
    load = Load([stage.place("--redis", store.url).url], ROOMS, lambda _: store.client)
    async with load.running():
        for _ in range(2):
            store.kill()
            await asyncio.to_thread(store.start)
            await load.flows()
    return outcome_of(load)


async def power_cut(stage: Stage) -> Outcome:
    """With one that is written every second: its end is missing."""
    store = stage.store("--appendonly", "yes", "--appendfsync", "everysec")
    places = [stage.place("--redis", store.url) for _ in range(2)]
    load = Load([each.url for each in places], ROOMS, lambda _: store.client)
    async with load.running():
        store.kill()
        [file] = store.folder.glob("appendonlydir/*.incr.aof")
        os.truncate(file, file.stat().st_size * 3 // 4)
        await asyncio.to_thread(store.start)
        await load.flows()
    return outcome_of(load)


# Sentinels


async def primary_killed(stage: Stage) -> Outcome:
    """What replicas did not have yet is lost."""
    sentinels = stage.sentinels()
    load = load_on(stage, sentinels.url, lambda _: sentinels.primary.client)
    async with load.running():
        old = sentinels.primary
        old.kill()
        await asyncio.to_thread(sentinels.wait_for_failover, old)
        await load.flows()
    return outcome_of(load)


async def primary_cut_off(stage: Stage) -> Outcome:
    """It does not know, and takes messages on and on, while another one is the primary."""
    return await cut_off(stage, reached=True)


async def primary_gone(stage: Stage) -> Outcome:
    """It answers nobody any more, and closes nothing."""
    return await cut_off(stage, reached=False)


async def cut_off(stage: Stage, *, reached: bool) -> Outcome:
    """Cut the primary off, for clients too unless it is `reached`; then it is back."""
    sentinels = stage.sentinels()
    load = load_on(stage, sentinels.url, lambda _: sentinels.primary.client)
    async with load.running():
        old = sentinels.primary
        sentinels.isolate(old, clients=reached, silent=True)
        await asyncio.to_thread(sentinels.wait_for_failover, old)
        assert old.role == "master"
        await load.flows(within=10)
        sentinels.heal(old)
        await asyncio.to_thread(sentinels.wait_until_linked)
        await load.flows()
    return outcome_of(load)


async def replica_lagged(stage: Stage) -> Outcome:
    """The new primary is far behind, and its clock by an hour: it gives out older IDs."""
    sentinels = stage.sentinels()
    load = load_on(stage, sentinels.url, lambda _: sentinels.primary.client)
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
        await asyncio.to_thread(sentinels.wait_for_failover, old)
        await load.flows()
    return outcome_of(load)


# Clusters


async def master_killed(stage: Stage) -> Outcome:
    """Its replica takes its place; the others' rooms don't notice."""
    cluster = stage.cluster()
    load = load_on(stage, cluster.url, cluster.client_of)
    async with load.running():
        old = cluster.masters()[0]
        old.kill()
        await asyncio.to_thread(cluster.wait_for_failover, old)
        await load.flows()
    return outcome_of(load)


async def slots_moved(stage: Stage) -> Outcome:
    """Of busy rooms and of empty ones, step by step, as by hand.

    While its slot is half moved, a room can't be published to with a key (TRYAGAIN).
    """
    cluster = stage.cluster()
    quiet = [f"quiet-{number}" for number in range(4)]
    load = load_on(stage, cluster.url, cluster.client_of, *quiet)
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
    return outcome_of(load)


async def masters_change_places(stage: Stage) -> Outcome:
    """CLUSTER FAILOVER, in agreement with the old master."""
    cluster = stage.cluster()
    load = load_on(stage, cluster.url, cluster.client_of)
    async with load.running():
        for master in cluster.masters()[:2]:
            [replica] = cluster.replicas_of(master)
            await asyncio.to_thread(cluster.failover, replica)
            await load.flows()
    return outcome_of(load)


CASES = [
    Case("servers are killed", servers_killed, Loss.NEVER),
    Case("a worker is killed, then all stop", workers_stopped, Loss.NEVER),
    Case("Redis is killed, appendfsync always", redis_killed, Loss.NEVER),
    Case("a power cut, appendfsync everysec", power_cut, Loss.ALWAYS),
    Case("Sentinel: the primary is killed", primary_killed, Loss.MAY),
    Case("Sentinel: the primary is cut off and takes more", primary_cut_off, Loss.ALWAYS),
    Case("Sentinel: the primary answers nobody", primary_gone, Loss.MAY),
    Case("Sentinel: the replica lagged, its clock is behind", replica_lagged, Loss.ALWAYS),
    Case("Cluster: a master is killed", master_killed, Loss.MAY),
    Case("Cluster: slots are moved", slots_moved, Loss.NEVER),
    Case("Cluster: masters change places", masters_change_places, Loss.NEVER),
]


def load_on(stage: Stage, redis: str, client_of: Callable[[str], Any], *quiet: str) -> Load:
    """Two servers on a store, and a load for them."""
    places = [stage.place("--redis", redis) for _ in range(2)]
    return Load([each.url for each in places], ROOMS, client_of, quiet)


def outcome_of(load: Load) -> Outcome:
    return Outcome(load.verdict(), load.failed, load.recovered)
