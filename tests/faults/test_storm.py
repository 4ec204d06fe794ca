"""Two thousand clients lose their connections at one moment, and come back where they were."""

from collections.abc import Callable

import pytest

from streamcast.bench.plan import Member, Plan
from streamcast.bench.report import make
from streamcast.bench.run import measure
from streamcast.bench.schedule import Schedule
from streamcast.bench.target import address_of
from tests.faults.cases import ROOMS
from tests.stores import Server, Store
from tests.test_bench import Unseen

pytestmark = pytest.mark.one_cell

CLIENTS = 2000
RATE = 5.0
"""Messages a second in each room."""
CUT_AT, DURATION = 1.0, 3.0
READS = ("xrange", "xrevrange", "xread", "xinfo|stream")


async def test_all_catch_up(own_store: Callable[..., Store], run: Callable[..., Server]) -> None:
    """Nothing is missed, and the store is read for each room, not for each client."""
    store = own_store()
    # What else is read: expiry is a change of a stream too, and so is trimming.
    settings = ("--history", "0", "--retain", "0", "--audit", "1h")
    server = run("--redis", store.url, *settings)
    members: list[Member] = []
    for room in range(ROOMS):
        schedule = Schedule(room, RATE, room / ROOMS / RATE, DURATION)
        name = f"storm-{room}"
        members += [Member(name, False, schedule), *[Member(name, True)] * (CLIENTS // ROOMS)]
    plan = Plan(address_of(server.url), "json", 100, 0.0, DURATION, tuple(members), cut_at=CUT_AT)
    before = reads(store)
    report = make(measure(plan, 1, Unseen()), {"size": 100, "listeners_per_message": 100}, {}, None)
    assert report.is_whole
    assert report.deliveries == report.published * CLIENTS // ROOMS
    assert report.caught_up is not None
    assert report.caught_up.count == CLIENTS
    # One for each message, and for each room three when it is opened, and three in the storm.
    assert reads(store) - before <= report.published + 6 * ROOMS


def reads(store: Store) -> int:
    """How often streams were read, as the store counts it."""
    told = store.client.info("commandstats")
    return sum(told.get(f"cmdstat_{name}", {}).get("calls", 0) for name in READS)
