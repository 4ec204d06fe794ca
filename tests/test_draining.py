"""Stopping: clients are sent away one after the other, and none of them loses anything."""

import http.client
import json
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector

import pytest
from websockets.exceptions import ConnectionClosed

from tests.clients import Client
from tests.raw import Raw, request
from tests.stores import Server, Store, eventually

pytestmark = pytest.mark.one_cell

BOUND = 3.5
"""Seconds that a stop may take besides the drain."""


def closing_times(clients: list[Raw]) -> list[float]:
    """When each client was closed, with 1012; they answer it."""
    times: list[float] = []
    with DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, EVENT_READ, client)
        while len(times) < len(clients):
            ready = selector.select(timeout=10)
            assert ready, "not all were closed"
            for key, _ in ready:
                times.append(time.monotonic())
                selector.unregister(key.fileobj)
                assert key.data.closed() == 1012
                key.data.socket.close()
    return times


def said_at(server: Server, path: str) -> tuple[int, str]:
    """The status and the body of a page."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", path)
    response = connection.getresponse()
    said = response.read().decode()
    connection.close()
    return response.status, said


def asked_to_join(server: Server) -> str:
    """How the answer to one who wants to join begins."""
    with Raw(server) as client:
        client.send(request("/rooms/live"))
        return client.head().partition("\r\n")[0]


def test_clients_are_closed_one_after_the_other(
    any_store: Store, run: Callable[..., Server]
) -> None:
    """10 ms apart, or closer where the drain is short: evenly in any case."""
    for drain, spread in (("5s", 0.8), ("0.4s", 0.4)):
        server = run("--redis", any_store.url, "--drain", drain)
        clients = [Raw.joined(server, "live") for _ in range(80)]
        server.signal(signal.SIGTERM)
        began = time.monotonic()
        times = closing_times(clients)
        assert server.ended()[0] == 0
        assert time.monotonic() - began < spread + BOUND
        for part in range(4):
            start, end = (began + spread * share for share in (part / 4, (part + 1) / 4))
            assert 12 <= sum(start <= when < end for when in times) <= 28, times


def test_without_a_drain_all_are_closed_at_once(
    any_store: Store, run: Callable[..., Server]
) -> None:
    server = run("--redis", any_store.url, "--drain", "0s")
    clients = [Raw.joined(server, "live") for _ in range(100)]
    server.signal(signal.SIGTERM)
    began = time.monotonic()
    assert closing_times(clients)[-1] - began < 0.5
    assert server.ended()[0] == 0


@pytest.mark.parametrize("count", [0, 1])
def test_who_stops_a_server_of_few_does_not_wait(
    any_store: Store, run: Callable[..., Server], count: int
) -> None:
    server = run("--redis", any_store.url, "--drain", "1m")
    clients = [Raw.joined(server, "live") for _ in range(count)]
    server.signal(signal.SIGINT)
    began = time.monotonic()
    closing_times(clients)
    assert server.ended()[0] == 0
    assert time.monotonic() - began < 1.0


def test_who_waits_for_its_turn_is_served(any_store: Store, run: Callable[..., Server]) -> None:
    """It hears messages and publishes; nobody new gets in."""
    server = run("--redis", any_store.url)
    early = [Raw.joined(server, "live") for _ in range(100)]
    last = Client(f"{server.url}/rooms/live")
    last.told()
    unheard = Raw(server)
    server.signal(signal.SIGTERM)
    assert early[0].closed() == 1012
    assert said_at(server, "/readyz") == (503, "stopping\n")
    assert said_at(server, "/livez") == (200, "live\n")
    assert asked_to_join(server) == "HTTP/1.1 503 Service Unavailable"
    ack = last.ask(type="publish", room="live", data="own")
    assert ack["type"] == "ack"
    any_store.client.xadd("streamcast:live", {"message": "another's"})
    last.until(lambda told: told.get("data") == "another's")
    assert server.process.poll() is None
    for client in early:
        client.socket.close()
    assert last.closed() == 1012
    assert unheard.head().startswith("HTTP/1.1 408 ")
    unheard.socket.close()
    assert server.ended()[0] == 0


def test_what_is_published_up_to_the_turn_is_acknowledged(
    any_store: Store, run: Callable[..., Server]
) -> None:
    """Whatever was answered is stored, and nobody is closed over an answer under way."""
    any_store.empty()
    server = run("--redis", any_store.url, "--drain", "0.2s")
    publishers = [Publisher(server, number) for number in range(10)]
    eventually(lambda: all(publisher.acked for publisher in publishers))
    server.signal(signal.SIGTERM)
    for publisher in publishers:
        publisher.join()
        assert publisher.client.socket.close_code == 1012
    assert server.ended()[0] == 0
    entries = any_store.client.xrange("streamcast:live")
    stored = [fields[b"message"].decode() for _, fields in entries]
    assert sorted(stored) == sorted(each for publisher in publishers for each in publisher.acked)


class Publisher(threading.Thread):
    """Publishes on and on, eight messages under way; `acked`: what was acknowledged."""

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(daemon=True)
        # Else its close could wait for what nobody reads.
        self.client = Client(f"{server.url}/rooms", max_queue=None)
        self.acked: list[str] = []
        self._number = number
        self.start()

    def run(self) -> None:
        with suppress(ConnectionClosed):
            for count in range(1_000_000):
                data = f"{self._number} {count}"
                self.client.request({"type": "publish", "room": "live", "data": data, "ref": data})
                if count >= 8:
                    self._hear()
        with suppress(ConnectionClosed):
            while True:
                self._hear()

    def _hear(self) -> None:
        told = self.client.told()
        assert told["type"] == "ack"
        self.acked.append(told["ref"])


def test_acks_that_never_come_are_not_waited_for(
    own_store: Callable[..., Store], run: Callable[..., Server]
) -> None:
    """A store that stands still: those without acks under way go at once, the others in time."""
    store = own_store()
    server = run("--redis", store.url, "--drain", "0.5s")
    waiting, idle = Client(f"{server.url}/rooms"), Client(f"{server.url}/rooms")
    waiting.ask(type="publish", room="live", data="first")
    store.signal(signal.SIGSTOP)
    waiting.send(json.dumps({"type": "publish", "room": "live", "data": "late", "ref": 1}))
    eventually(lambda: server.statistics()["unacknowledged"] > 0)
    server.signal(signal.SIGTERM)
    began = time.monotonic()
    assert idle.closed() == 1012
    assert time.monotonic() - began < 0.4
    assert waiting.closed() == 1012
    assert 0.5 <= time.monotonic() - began < 0.5 + BOUND
    assert server.process.wait(timeout=10) == 0
    assert time.monotonic() - began < 0.5 + BOUND
    store.signal(signal.SIGCONT)


def test_clients_that_do_not_answer_the_close_are_cut(
    any_store: Store, run: Callable[..., Server]
) -> None:
    server = run("--redis", any_store.url, "--drain", "0.2s")
    with Raw.joined(server, "live") as deaf:
        server.signal(signal.SIGTERM)
        began = time.monotonic()
        assert server.ended()[0] == 0
        assert 1.5 < time.monotonic() - began < 0.2 + BOUND
        assert deaf.frame().data[:2] == (1012).to_bytes(2, "big")
