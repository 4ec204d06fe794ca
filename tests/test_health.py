"""/livez and /readyz: the process runs; deliveries work, or a word says why not."""

import asyncio
import http.client
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import psutil
import pytest

from streamcast.errors import Unavailable
from streamcast.streams import State
from streamcast.streams.health import Probing
from streamcast.streams.probe import Probe
from tests.clusters import Cluster, slot_of
from tests.conftest import ENGINES
from tests.deaf import without_pushes
from tests.stores import Server, Store, eventually, lanes

READY = (200, "ready\n")


class Said(NamedTuple):
    """An answer: its status and its text."""

    status: int
    text: str


def asked(server: Server, path: str = "/readyz", method: str = "GET") -> Said:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request(method, path)
    response = connection.getresponse()
    said = Said(response.status, response.read().decode())
    connection.close()
    return said


def becomes(server: Server, status: int, word: str) -> None:
    eventually(lambda: asked(server) == (status, f"{word}\n"), within=8)


def test_ready(store: Store, serve: Callable[..., Server]) -> None:
    """From the first moment; asked for by GET or HEAD, with or without a query."""
    server = serve(store)
    assert asked(server) == asked(server, "/readyz?verbose") == READY
    assert asked(server, "/livez") == (200, "live\n")
    assert asked(server, method="HEAD") == (200, "")
    assert asked(server, method="POST").status == 405
    assert asked(server, "/readyzz").status == 404
    eventually(lambda: store.client.keys("*probe*"))
    [key] = store.client.keys("*probe*")
    assert key.startswith(b"{streamcast:probe:")
    assert 0 < store.client.pttl(key) <= 30_000
    assert store.client.xlen(key) == 1
    assert asked(server) == READY


def test_a_store_that_is_gone(
    own_store: Callable[..., Store], serve: Callable[..., Server]
) -> None:
    store = own_store()
    server = serve(store)
    store.kill()
    becomes(server, 503, "no store")
    assert asked(server, "/livez") == (200, "live\n")
    store.start()
    becomes(server, 200, "ready")


@pytest.mark.one_cell
def test_a_store_that_stands_still(
    own_store: Callable[..., Store], serve: Callable[..., Server]
) -> None:
    store = own_store()
    server = serve(store)
    store.signal(signal.SIGSTOP)
    eventually(lambda: asked(server).status == 503)
    store.signal(signal.SIGCONT)
    becomes(server, 200, "ready")


@pytest.mark.one_cell
def test_a_store_that_takes_nothing(
    own_store: Callable[..., Store], serve: Callable[..., Server]
) -> None:
    """Its messages are still delivered, so it is ready; and says so."""
    store = own_store()
    server = serve(store)
    store.client.config_set("min-replicas-to-write", 1)
    becomes(server, 200, "ready: read-only")
    store.client.config_set("min-replicas-to-write", 0)
    becomes(server, 200, "ready")


@pytest.mark.one_cell
async def test_a_relay_that_is_connected_and_deaf(store: Store, run: Callable[..., Server]) -> None:
    """A proxy says OK to CLIENT TRACKING, and no change is ever told."""
    async with without_pushes(store) as url:
        server = await asyncio.to_thread(run, "--redis", url, "--follow", "tracking")
        await asyncio.to_thread(becomes, server, 503, "deaf")
        assert store.lanes() == lanes("tracking", 1)
        await asyncio.to_thread(server.stop)


@pytest.mark.one_cell
def test_each_master_of_a_cluster(run: Callable[..., Server]) -> None:
    """One key on each; when its slot moves another one takes its place, and all stays ready."""
    cluster = Cluster(ENGINES["valkey"], replicas=0)
    try:
        cluster.start()
        server = run("--redis", cluster.url)
        masters = cluster.masters()
        eventually(lambda: all(node.client.keys("*probe*") for node in masters))
        [key] = masters[0].client.keys("*probe*")
        cluster.move_slot(slot_of(key.decode()), masters[1])
        eventually(lambda: set(masters[0].client.keys("*probe*")) - {key})
        assert asked(server) == READY
        masters[2].pause()
        eventually(lambda: asked(server).status == 503)
        masters[2].resume()
        becomes(server, 200, "ready")
    finally:
        cluster.close()


@pytest.mark.one_cell
def test_all_workers(any_store: Store, run: Callable[..., Server]) -> None:
    """Whichever is asked answers for all: one that hangs, one that is gone until it is replaced."""
    server = run("--redis", any_store.url, "--workers", "2")
    assert [asked(server) for _ in range(8)] == [READY] * 8
    one, other = psutil.Process(server.process.pid).children()
    one.suspend()
    becomes(server, 503, "silent")
    assert asked(server, "/livez") == (503, "silent\n")
    one.resume()
    becomes(server, 200, "ready")
    # They are replaced.
    for process in (one, other):
        process.kill()
    eventually(lambda: server.logged().count("worker back") == 2)
    becomes(server, 200, "ready")


async def test_a_lane_that_is_lost_meanwhile() -> None:
    """While the key is read for the first time: that is told, and ends nothing."""

    class Lost:
        async def ask(self, *_: object, then: bytes) -> None:
            raise Unavailable("the connection to the store was lost")

    class OneMaster:
        def __init__(self) -> None:
            self.write_lane: Lost | None = Lost()
            self.read_lane = self.write_lane
            self.probe: Probe | None = None

        def masters(self) -> list[Any]:
            return [self]

        def of(self, _: bytes) -> "OneMaster":
            return self

        def follow(self, _: bytes, probe: Probe) -> None:
            self.probe = probe

    node: Any = OneMaster()
    looking = asyncio.create_task(Probing(node, "prefix:", 0.0)._look(node))
    await asyncio.sleep(0)
    node.write_lane = node.read_lane = None
    node.probe.follows.set()
    assert await looking is State.NO_STORE
