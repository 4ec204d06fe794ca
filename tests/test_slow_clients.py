"""Clients that stop reading: they cost a position in the stream, and slow nobody.

One engine and one notifier do here: what is tried lies between the streams and the sockets.
"""

import json
import selectors
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

import pytest
from websockets.frames import Opcode

from tests.clients import Client
from tests.raw import Raw, frame
from tests.raw import text as raw_text
from tests.stores import Server, Store, eventually

KEY = "streamcast:busy"
MB = 1_000_000
GROWS_AT_MOST = 16 * MB


pytestmark = pytest.mark.one_cell


@pytest.fixture
def join() -> Iterator[Callable[..., Raw]]:
    """Joins `busy`, as a JSON client; one that is not to read has a small buffer."""
    clients: list[Raw] = []

    def connect(server: Server, receive_buffer: int = 0) -> Raw:
        clients.append(Raw.joined(server, "busy", "json", receive_buffer))
        return clients[-1]

    yield connect
    for client in clients:
        client.socket.close()


SMALL = 4096


class Reader(threading.Thread):
    """Reads all that its clients are sent, and only keeps the end of it.

    `rest`: for how many seconds it does nothing before each read.
    """

    def __init__(self, clients: list[Raw], rest: float = 0.0) -> None:
        super().__init__(daemon=True)
        self._rest = rest
        self._selector = selectors.DefaultSelector()
        self._tails = dict.fromkeys(clients, b"")
        for client in clients:
            self._selector.register(client.socket, selectors.EVENT_READ, client)
        self._ending = False
        self.start()

    def run(self) -> None:
        buffer = bytearray(1 << 20)
        while not self._ending:
            for key, _ in self._selector.select(0.1):
                time.sleep(self._rest)
                client: Raw = key.data
                size = client.socket.recv_into(buffer)
                assert size, "closed"
                self._tails[client] = (self._tails[client] + buffer[max(0, size - 20) : size])[-20:]

    def all_have(self, number: int) -> bool:
        """Whether a message is the last that each of them got."""
        return all(tail.endswith(b'x%d"}' % number) for tail in self._tails.values())

    def end(self) -> None:
        self._ending = True
        self.join()
        self._selector.close()


def text(number: int, size: int) -> str:
    """A message's text: its number, at the end."""
    return str(number).rjust(size, "x")


def number_of(told: dict[str, Any]) -> int:
    return int(told["data"].lstrip("x"))


def publish(store: Store, numbers: Iterable[int], size: int, *trim: str) -> list[str]:
    """Add numbered messages, as another program does; returns their IDs."""
    ids: list[str] = []
    for batch in batched(numbers, 50):
        with store.client.pipeline(transaction=False) as pipe:
            for number in batch:
                pipe.execute_command("XADD", KEY, *trim, "*", "message", text(number, size))
            ids += [id_.decode() for id_ in pipe.execute()]
    return ids


def batched(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    left = iter(numbers)
    while batch := list(islice(left, size)):
        yield batch


def receive(client: Raw) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(client.frame().data)
    return told


def test_one_that_stops_reading_while_200_mb_are_published(
    store: Store, serve: Callable[..., Server], join: Callable[..., Raw]
) -> None:
    """The others have it all before it reads again; then it is told what is not kept any more."""
    server = serve(store)
    fast = [join(server) for _ in range(3)]
    slow = join(server)
    reader = Reader(fast)
    publish(store, range(100), 50_000)
    eventually(lambda: reader.all_have(99))
    before = server.memory()
    ids = publish(store, range(100, 4200), 50_000, "MAXLEN", "500")
    eventually(lambda: reader.all_have(4199), within=60)
    told = server.statistics()
    assert (told["paused"], told["behind"], told["connections"]) == (1, 1, 4)
    assert server.memory() - before < GROWS_AT_MOST
    seen = []
    while (gap := receive(slow))["type"] == "message":
        seen.append(number_of(gap))
    assert seen == list(range(len(seen)))
    kept = ids[-500:]
    assert (gap["type"], gap["earliest"]) == ("gap", kept[0])
    rest = [receive(slow) for _ in kept]
    assert [each["id"] for each in rest] == kept
    assert [number_of(each) for each in rest] == list(range(3700, 4200))
    eventually(lambda: server.statistics()["behind"] == 0)
    [last] = publish(store, [4200], 1000)
    assert receive(slow)["id"] == last
    reader.end()


def test_a_hundred_of_a_thousand_stop_reading(
    store: Store, serve: Callable[..., Server], join: Callable[..., Raw]
) -> None:
    """All that is kept comes to them in order, since nothing is trimmed here."""
    server = serve(store)
    clients = [join(server) for _ in range(900)]
    slow = [join(server, SMALL) for _ in range(100)]
    reader = Reader(clients)
    before = server.memory()
    for first in range(0, 800, 50):
        # No more at once than sockets hold, so that those who read never are behind.
        publish(store, range(first, first + 50), 5000)
        eventually(partial(reader.all_have, first + 49), within=60)
    told = server.statistics()
    assert (told["paused"], told["behind"]) == (100, 100)
    assert server.memory() - before < GROWS_AT_MOST
    for client in slow:
        assert [number_of(receive(client)) for _ in range(800)] == list(range(800))
    eventually(lambda: server.statistics()["behind"] == 0)
    publish(store, [800], 5000)
    eventually(lambda: reader.all_have(800))
    assert {number_of(receive(client)) for client in slow} == {800}
    reader.end()


def test_five_hundred_read_slowly(
    store: Store, serve: Callable[..., Server], join: Callable[..., Raw]
) -> None:
    """All fall behind what the server keeps; none holds a page while it waits for its next."""
    server = serve(store)
    reader = Reader([join(server) for _ in range(500)], rest=0.0005)
    before = server.memory()
    publish(store, range(800), 5000)
    eventually(lambda: reader.all_have(799), within=120)
    # What it once had it keeps, nearly all.
    assert server.memory() - before < GROWS_AT_MOST
    reader.end()


def test_one_that_takes_nothing_for_too_long_is_ended(
    store: Store, serve: Callable[..., Server], join: Callable[..., Raw]
) -> None:
    """After `--stall`; one that goes on reading, however slowly, is not."""
    server = serve(store, "--stall", "2s", "--ping", "500ms", "--log-level", "debug")
    stalled = join(server, SMALL)
    slow = join(server, SMALL)
    publish(store, range(800), 5000)
    eventually(lambda: server.statistics()["paused"] == 2)
    given_up = "takes nothing of what waits for it"
    taken = 0
    while given_up not in server.logged():
        slow.socket.settimeout(5)
        taken += len(slow.socket.recv(10_000))
        time.sleep(0.05)
        assert taken < 2 * MB, "the other one was never given up"
    assert server.statistics()["connections"] == 1
    with suppress(ConnectionResetError):
        while stalled.socket.recv(100_000):
            pass
    assert server.logged().count(given_up) == 1


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(frame(Opcode.PING, b"x" * 100), id="ping frames"),
        pytest.param(raw_text(b'{"type":"ping","ref":1}'), id="pings"),
        pytest.param(
            raw_text(b'{"type":"publish","room":"other","data":"x","ref":1}'), id="publishes"
        ),
    ],
)
def test_one_that_sends_and_never_reads(
    store: Store, serve: Callable[..., Server], join: Callable[..., Raw], sent: bytes
) -> None:
    """The server stops reading from it before its answers fill the memory; others go on."""
    server = serve(store)
    publish(store, range(500), 5000)
    silent = join(server, SMALL)
    with Client(f"{server.url}/rooms") as other:
        before = server.memory()
        assert blocks(silent, sent * 500)
        assert server.memory() - before < GROWS_AT_MOST
        told = server.statistics()
        assert told["unread"] <= 8192
        assert told["unacknowledged"] <= 256 * 1024
        assert other.ask(type="publish", room="third", data="x")["type"] == "ack"
    silent.socket.close()
    eventually(lambda: server.statistics()["connections"] == 0)


def blocks(client: Raw, sent: bytes) -> bool:
    """Whether the server at some time takes no more of what a client sends."""
    client.socket.settimeout(1)
    try:
        for _ in range(10_000):
            client.socket.sendall(sent)
    except TimeoutError:
        return True
    return False


def test_one_that_joins_again_and_again(
    store: Store, serve: Callable[..., Server], join: Callable[..., Raw]
) -> None:
    """Each join ends what was being read for the one before; the last one is answered."""
    server = serve(store)
    ids = publish(store, range(1000), 5000)
    restless = join(server)
    sent = [
        raw_text(json.dumps({"type": "join", "room": "busy", "last": 1000, "ref": ref}))
        for ref in range(20_000)
    ]
    store.client.config_resetstat()
    before = server.memory()
    with Client(f"{server.url}/rooms") as other:
        restless.send(*sent)
        assert other.ask(type="publish", room="third", data="x")["type"] == "ack"
        while receive(restless).get("ref") != 19_999:
            pass
        assert [receive(restless)["id"] for _ in ids] == ids
    assert server.memory() - before < GROWS_AT_MOST
    assert store.client.info("commandstats")["cmdstat_xrevrange"]["calls"] < 4000
