"""Telling connections that are alive from those that are not."""

import socket
from collections.abc import Callable

from streamcast.server.keepalive import visit
from tests.clients import Client
from tests.stores import Server, Store
from tests.test_server import UPGRADE


class Peer:
    """What keepalive sees of a connection."""

    def __init__(self) -> None:
        self.is_closing = False
        self.writable = self.is_listening = True
        self.websocket = self
        self.talked = self.asked = self.answered = False
        self.left = 0
        self.stalled = 0.0
        self.waiting_bytes = 0
        self.pings = 0
        self.aborted = False

    def ping(self) -> None:
        self.pings += 1

    def abort(self) -> None:
        self.aborted = True


def test_a_peer_that_does_not_answer_is_given_up() -> None:
    peer = Peer()
    visit(peer, 20, 300)  # type: ignore[arg-type]
    assert peer.pings == 1
    peer.answered = True
    visit(peer, 20, 300)  # type: ignore[arg-type]
    assert (peer.pings, peer.aborted) == (2, False)
    visit(peer, 20, 300)  # type: ignore[arg-type]
    assert peer.aborted


def test_a_peer_that_talks_is_not_asked() -> None:
    peer = Peer()
    for _ in range(5):
        peer.talked = True
        visit(peer, 20, 300)  # type: ignore[arg-type]
    assert (peer.pings, peer.aborted) == (0, False)


def test_a_peer_that_is_not_read_from_is_not_given_up() -> None:
    """Its answer would not be heard: it waits for its turn, or publishes too much."""
    peer = Peer()
    visit(peer, 20, 300)  # type: ignore[arg-type]
    peer.is_listening = False
    for _ in range(10):
        visit(peer, 20, 300)  # type: ignore[arg-type]
    peer.is_listening = True
    visit(peer, 20, 300)  # type: ignore[arg-type]
    assert (peer.pings, peer.aborted) == (2, False)
    visit(peer, 20, 300)  # type: ignore[arg-type]
    assert peer.aborted


def test_a_paused_peer_is_judged_by_what_it_takes() -> None:
    peer = Peer()
    peer.asked = True
    peer.writable = False
    for left in range(100, 0, -1):
        peer.waiting_bytes = left
        visit(peer, 20, 300)  # type: ignore[arg-type]
    assert not peer.aborted
    for _ in range(14):
        visit(peer, 20, 300)  # type: ignore[arg-type]
    assert not peer.aborted
    visit(peer, 20, 300)  # type: ignore[arg-type]
    assert peer.aborted


def test_silent_clients_are_pinged_and_dead_ones_dropped(
    store: Store, serve: Callable[..., Server]
) -> None:
    server = serve(store, "--ping", "200ms")
    with Client(f"{server.url}/rooms") as client:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as dead:
            dead.sendall(UPGRADE + b"\r\n")
            heard = b""
            while more := dead.recv(1000):
                heard += more
            assert b"\x89\x00" in heard
        # Its library answers pings by itself.
        assert client.ask(type="ping")["type"] == "pong"
