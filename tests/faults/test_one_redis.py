"""Servers and their Redis are killed under load: what was acknowledged is there, or it is told."""

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from tests.faults.conftest import ROOMS, Place
from tests.faults.load import Load, stored_in
from tests.stores import Store

pytestmark = pytest.mark.one_cell


async def test_servers_are_killed_five_times(
    own_store: Callable[..., Store], place: Callable[..., Place]
) -> None:
    """One of two, in turn."""
    store = own_store()
    places = [place("--redis", store.url) for _ in range(2)]
    load = Load([each.url for each in places], ROOMS)
    async with load.running():
        for number in range(5):
            killed = places[number % 2]
            killed.server.signal(signal.SIGKILL)
            await asyncio.to_thread(killed.server.ended)
            await load.flows()
            await asyncio.to_thread(killed.restart)
    verdict = load.verdict(stored_in(lambda _: store.client, load.rooms))
    assert not verdict.wrong
    assert not verdict.rolled_back
    assert not load.failed


async def test_redis_is_killed_and_lost_nothing(
    own_store: Callable[..., Store], place: Callable[..., Place]
) -> None:
    store = own_store("--appendonly", "yes", "--appendfsync", "always")
    load = Load([place("--redis", store.url).url], ROOMS)
    async with load.running():
        for _ in range(2):
            store.kill()
            await asyncio.to_thread(store.start)
            await load.flows()
    verdict = load.verdict(stored_in(lambda _: store.client, load.rooms))
    assert not verdict.wrong
    assert not verdict.rolled_back
    assert not load.failed


async def test_a_power_cut_is_told(
    own_store: Callable[..., Store], place: Callable[..., Place]
) -> None:
    """With everysec the end of the file may be missing: that is counted, and everybody is told."""
    store = own_store("--appendonly", "yes", "--appendfsync", "everysec")
    places = [place("--redis", store.url) for _ in range(2)]
    load = Load([each.url for each in places], ROOMS)
    async with load.running():
        store.kill()
        [file] = store.folder.glob("appendonlydir/*.incr.aof")
        os.truncate(file, file.stat().st_size * 3 // 4)
        await asyncio.to_thread(store.start)
        await load.flows()
    verdict = load.verdict(stored_in(lambda _: store.client, load.rooms))
    assert not verdict.wrong
    assert verdict.lost
