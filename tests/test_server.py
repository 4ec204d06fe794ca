"""The server at its edges: heads, handshakes, requests, bad input, limits."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamcast.server import target
from streamcast.server.listening import UNSENT, close_all, listen
from streamcast.wire import Start
from tests.clients import JSON, Client, NodeClient
from tests.raw import Raw
from tests.stores import Server, Store, eventually

pytestmark = pytest.mark.one_cell


@pytest.fixture
def server(store: Store, serve: Callable[..., Server]) -> Server:
    return serve(store, "--max-message", "1000B")


def raw(server: Server, data: bytes) -> bytes:
    """Send bytes; return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(data)
        answer = b""
        while more := sock.recv(65536):
            answer += more
        return answer


UPGRADE = (
    b"GET /rooms/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


# Heads and handshakes


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (b"GET /rooms/live HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (UPGRADE.replace(b"/rooms/live", b"/nothing") + b"\r\n", 404),
        (UPGRADE.replace(b"13", b"12") + b"\r\n", 426),
        (UPGRADE + b"Sec-WebSocket-Protocol: mqtt\r\n\r\n", 400),
        (UPGRADE + b"Origin: https://elsewhere.example\r\n\r\n", 403),
        (UPGRADE + b"Origin: null\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
        (b"hello\r\n\r\n", 400),
        (UPGRADE.replace(b"live", "café".encode()) + b"\r\n", 400),
        (UPGRADE + b"no colon\r\n\r\n", 400),
    ],
)
def test_refused_before_the_upgrade(server: Server, sent: bytes, status: int) -> None:
    answer = raw(server, sent)
    assert answer.split(b" ")[1] == str(status).encode()
    if b"mqtt" in sent:
        assert b"streamcast.v1" in answer


def test_own_origin(server: Server) -> None:
    for origin in (f"http://127.0.0.1:{server.port}", f"https://127.0.0.1:{server.port}"):
        with Client(f"{server.url}/rooms/live", origin=origin) as client:
            assert client.told()["type"] == "joined"
    with pytest.raises(InvalidStatus) as refused:
        Client(f"{server.url}/rooms/live", origin="http://127.0.0.1:1")
    assert refused.value.response.status_code == 403


def test_frames_right_behind_the_head_are_read(server: Server) -> None:
    """And rubbish there ends that connection, after the handshake was answered."""
    ping = b"\x89\x80\0\0\0\0"
    close = b"\x88\x80\0\0\0\0"
    answer = raw(server, UPGRADE + b"\r\n" + ping + close)
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert rest == b"\x8a\x00\x88\x00"
    answer = raw(server, UPGRADE + b"\r\n" + b"rubbish")
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert rest[2:4] == (1002).to_bytes(2, "big")


def test_what_is_sent_before_the_join_is_done_is_heard(server: Server) -> None:
    """What is added goes to the store before what is read; the join comes first all the same."""
    for number in range(60):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
            head = UPGRADE.replace(b"live", b"new%d" % number)
            sock.sendall(head + b"\r\n" + b"\x81\x85\0\0\0\0hello")
            answer = b""
            while not answer.endswith(b"\x81\x05hello"):
                more = sock.recv(1000)
                assert more, "closed"
                answer += more


def test_what_is_sent_before_a_close_is_stored(server: Server, store: Store) -> None:
    """Also where the join was not done when the client closed, or went."""
    message, close = b"\x81\x85\0\0\0\0hello", b"\x88\x82\0\0\0\0\x03\xe8"
    for number in range(30):
        head = UPGRADE.replace(b"live", b"new%d" % number)
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
            sock.sendall(head + b"\r\n" + message + (close if number % 2 else b""))
    for number in range(30):
        eventually(lambda: store.client.xlen(f"streamcast:new{number}") == 1)  # noqa: B023


def test_a_head_that_comes_byte_by_byte(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        for byte in UPGRADE + b"\r\n":
            sock.sendall(bytes([byte]))
        assert sock.recv(100).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    "path", ["/rooms/a%20b", "/rooms/a/b", "/rooms/%ff", "/rooms/" + "x" * 129]
)
def test_a_bad_room_is_closed_after_the_upgrade(server: Server, dialect: str, path: str) -> None:
    """With 4400, since browsers show a refused upgrade only as 1006."""
    client = Client(server.url + path, JSON if dialect == "json" else None)
    if dialect == "json":
        assert client.told()["code"] == "bad_room"
    assert client.closed() == 4400


@pytest.mark.parametrize("query", ["?after=x", "?last=x", "?last=1&after=1-0"])
def test_a_bad_place_is_closed_after_the_upgrade(server: Server, query: str) -> None:
    client = Client(f"{server.url}/rooms/live{query}")
    assert client.told()["code"] == "bad_id"
    assert client.closed() == 4400


def test_rooms_without_a_room_is_for_json_only(server: Server) -> None:
    assert Client(f"{server.url}/rooms", None).closed() == 4400
    with Client(f"{server.url}/rooms") as client:
        assert client.ask(type="ping")["type"] == "pong"


def test_targets() -> None:
    parse = target.parse
    assert parse("/", "lobby") == ("lobby", Start(), None)
    assert parse("/?last=3", "lobby") == ("lobby", Start(last=3), None)
    assert parse("/rooms", "lobby") == (None, Start(), None)
    assert parse("/rooms/caf%C3%A9?after=0", "lobby") == ("café", Start(everything=True), None)
    assert parse("/other", "lobby") is None
    assert parse("/roomsx", "lobby") is None


# Requests


def test_json_requests(server: Server) -> None:
    with Client(f"{server.url}/rooms") as client:
        joined = client.ask(type="join", room="live")
        assert (joined["head"], joined["resumed"]) == ("0-0", False)
        ack = client.ask(type="publish", room="live", data="a", meta="m")
        assert ack["type"] == "ack"
        again = client.ask(type="publish", room="live", data="b", key="k")
        assert client.ask(type="publish", room="live", data="b", key="k")["id"] == again["id"]
        resumed = client.ask(type="join", room="live", after=ack["id"])
        assert resumed["resumed"]
        assert client.data(1) == ["b"]
        assert client.ask(type="leave", room="live")["type"] == "left"
        client.ask(type="publish", room="live", data="unheard")
        assert client.silent()
        elsewhere = client.ask(type="publish", room="elsewhere", data="needs no join")
        assert elsewhere["type"] == "ack"


def test_a_message_and_its_meta(server: Server) -> None:
    with Client(f"{server.url}/rooms/live") as client:
        client.told()
        ack = client.ask(type="publish", room="live", data="hé", meta="m")
        with Client(f"{server.url}/rooms/live?last=1") as other:
            other.told()
            assert other.told() == {
                "type": "message", "room": "live", "id": ack["id"], "data": "hé", "meta": "m"
            }  # fmt: skip


def test_too_big(server: Server, dialect: str) -> None:
    if dialect == "plain":
        client = Client(f"{server.url}/rooms/live", None)
        client.send("x" * 1000)
        assert client.receive() == "x" * 1000
        client.send("x" * 1001)
        assert client.closed() == 1009
        return
    with Client(f"{server.url}/rooms/live") as client:
        assert client.ask(type="publish", room="live", data="x" * 1001)["code"] == "too_big"
        assert client.ask(type="publish", room="live", data="\0" * 1000)["type"] == "ack"
        client.send("x" * (6 * 1000 + 4097))
        assert client.closed() == 1009


def test_a_frame_far_too_big_is_told_so(server: Server) -> None:
    """The close must not be lost with what is still coming: 1006 would mean to try again."""
    for protocol in (None, JSON):
        client = Client(f"{server.url}/rooms/live", protocol)
        with suppress(ConnectionClosed):
            client.send("x" * 10_000_000)
        assert client.closed() == 1009


def test_one_that_floods_does_not_hold_up_others(server: Server) -> None:
    """A megabyte of the smallest requests takes many turns of the loop, and others go between."""
    count = 60_000
    flood = (b"\x81\x8f\0\0\0\0" + b'{"type":"ping"}') * count
    answers = len(b'\x81\x0f{"type":"pong"}') * count
    head = UPGRADE.replace(b"/rooms/live", b"/rooms")
    with (
        Client(f"{server.url}/rooms/other") as other,
        socket.create_connection(("127.0.0.1", server.port)) as sock,
    ):
        other.told()
        sock.sendall(head + b"Sec-WebSocket-Protocol: streamcast.v1\r\n\r\n")
        sock.recv(1000)
        done = threading.Event()

        def receive() -> None:
            left = answers
            while left > 0:
                left -= len(sock.recv(1 << 20))
            done.set()

        threads = [
            threading.Thread(target=receive, daemon=True),
            threading.Thread(target=sock.sendall, args=[flood], daemon=True),
        ]
        for thread in threads:
            thread.start()
        between = 0
        while not done.is_set():
            other.ask(type="publish", room="other", data="x")
            between += 1
        for thread in threads:
            thread.join()
        assert between > 20


def test_text_that_is_not_utf8_is_1007_and_not_stored(server: Server, store: Store) -> None:
    client = Client(f"{server.url}/rooms/live", None)
    client.socket.send(b"\xff", text=True)
    assert client.closed() == 1007
    assert not store.client.exists("streamcast:live")


def test_fragments(server: Server) -> None:
    with Client(f"{server.url}/rooms/live", None) as client:
        client.socket.send(["a", "", "é", "b"])
        assert client.receive() == "aéb"


def test_the_tenth_frame_in_a_row_that_is_no_request(server: Server) -> None:
    client = Client(f"{server.url}/rooms")
    for good, answer in (("leave", "left"), ("publish", "ack"), ("ping", "pong")):
        assert client.ask(type=good, room="live", data="x")["type"] == answer
        for _ in range(9):
            client.send("x")
            assert client.told()["code"] == "bad_request"
    client.send("x")
    assert client.closed() == 1008


def test_bad_input_ends_only_its_own_connection(server: Server) -> None:
    with Client(f"{server.url}/rooms/live", None) as client:
        client.send("before")
        assert client.receive() == "before"
        for rubbish in (b"\xff" * 100, b"\x81\x7f" + b"\xff" * 8, b"\x81\x05hello", b"\x0b\x80"):
            raw(server, UPGRADE + b"\r\n" + rubbish)
        client.send("after")
        assert client.receive() == "after"


def test_a_full_server(store: Store, serve: Callable[..., Server]) -> None:
    server = serve(store, "--max-connections", "2")
    clients = [Client(f"{server.url}/rooms") for _ in range(2)]
    assert Client(f"{server.url}/rooms").closed() == 1013
    # One that is refused and does not answer the close takes nobody's place.
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        sock.sendall(UPGRADE + b"\r\n")
        told = b""
        while b"this server is full" not in told:
            told += sock.recv(1000)
        clients.pop().socket.close()
        with Client(f"{server.url}/rooms") as client:
            assert client.ask(type="ping")["type"] == "pong"
    clients[0].socket.close()


def test_plain_and_node_clients_share_a_room(server: Server) -> None:
    node = NodeClient(f"{server.url}/rooms/live", "streamcast.v1")
    assert json.loads(node.text())["type"] == "joined"
    with Client(f"{server.url}/rooms/live", None) as plain:
        plain.send(b"\x00\x01")
        assert plain.receive() == b"\x00\x01"
    told = json.loads(node.text())
    assert (told["encoding"], told["data"]) == ("base64", "AAE=")
    node.close()


def test_one_who_sends_no_more_is_a_member_no_more(server: Server, store: Store) -> None:
    """Also where much waits for it that it does not read."""
    with (
        Raw.joined(server, "half", receive_buffer=4096) as raw,
        Client(f"{server.url}/rooms") as other,
    ):
        for _ in range(400):
            store.client.xadd("streamcast:half", {"message": "x" * 10_000})
        raw.socket.shutdown(socket.SHUT_WR)
        eventually(lambda: server.statistics()["members"] == 0)
        assert other.ask(type="ping")["type"] == "pong"


def test_accepted_sockets_inherit_the_limit_of_unsent_bytes() -> None:
    sockets = asyncio.run(listen("127.0.0.1", 0))
    with socket.create_connection(sockets[0].getsockname()[:2]):
        sockets[0].setblocking(True)
        accepted, _ = sockets[0].accept()
        limit = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        accepted.close()
    close_all(sockets)
    assert limit == UNSENT
