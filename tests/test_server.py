"""The server at its edges: heads, handshakes, bad input, limits, start and stop."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamcast.config import LogSettings, RelaySettings, ServerSettings, StreamSettings
from streamcast.server import target
from streamcast.server.keepalive import visit
from streamcast.wire import Start
from tests.clients import JSON, Client, NodeClient
from tests.conftest import ENGINES
from tests.stores import Server, Store, eventually


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
        (UPGRADE.replace(b"13", b"12") + b"\r\n", 400),
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
    """Reads and writes go over two connections to the store; the join comes first all the same."""
    for number in range(60):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
            head = UPGRADE.replace(b"live", b"new%d" % number)
            sock.sendall(head + b"\r\n" + b"\x81\x85\0\0\0\0hello")
            answer = b""
            while not answer.endswith(b"\x81\x05hello"):
                more = sock.recv(1000)
                assert more, "closed"
                answer += more


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
    for _ in range(9):
        client.send("x")
        assert client.told()["code"] == "bad_request"
    assert client.ask(type="ping")["type"] == "pong"
    for _ in range(10):
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
        assert b"this server is full" in sock.recv(1000) + sock.recv(1000)
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


# Keepalive


class Peer:
    """What keepalive sees of a connection."""

    def __init__(self) -> None:
        self.is_closing = False
        self.writable = True
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


# Start and stop


def run_serve(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamcast", "serve", "--port", "0", *options]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=20,
        env=os.environ | environment,
        check=False,
    )


def can_not_start(ended: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit 3 and one sentence."""
    assert ended.returncode == 3, ended
    assert ended.stdout == ""
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
    for word in words:
        assert word in ended.stderr


def test_nobody_there() -> None:
    can_not_start(run_serve("--redis", "redis://127.0.0.1:1"), "127.0.0.1:1", "refused")
    can_not_start(run_serve("--redis", "unix:///nowhere"), "/nowhere")
    can_not_start(run_serve("--redis", "http://x"), "--redis")
    can_not_start(run_serve("--redis", "redis://127.0.0.1:notaport"), "--redis")


def test_port_taken(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        can_not_start(run_serve("--redis", store.url, "--port", port), port, "taken")
    can_not_start(run_serve("--redis", store.url, "--host", "256.0.0.1"), "256.0.0.1")


def test_password(own_store: Callable[..., Store], serve: Callable[..., Server]) -> None:
    store = own_store()
    store.client.acl_setuser("game", enabled=True, passwords="+pw", keys="*", commands=["+@all"])
    store.client.config_set("requirepass", "secret")
    can_not_start(run_serve("--redis", store.url), "password")
    wrong = run_serve("--redis", store.url.replace("unix://", "unix://:wrong@"))
    can_not_start(wrong, "password")
    assert "wrong" not in wrong.stderr
    for login in (":secret", "game:pw"):
        path = store.url.removeprefix("unix://")
        server = Server("--redis", f"unix://{login}@{path}")
        with Client(f"{server.url}/rooms") as client:
            assert client.ask(type="join", room="live")["type"] == "joined"
        code, logged = server.stop()
        assert code == 0
        assert login.partition(":")[2] not in logged


def test_database(store: Store, serve: Callable[..., Server]) -> None:
    server = Server("--redis", store.url + "?db=3")
    with Client(f"{server.url}/rooms") as client:
        client.ask(type="publish", room="live", data="a")
    assert server.stop()[0] == 0
    assert not store.client.exists("streamcast:live")
    assert store.client.info("keyspace")["db3"]["keys"] == 1


def test_tcp(own_store: Callable[..., Store]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own_store(port=port)
    server = Server("--redis", f"redis://127.0.0.1:{port}")
    with Client(f"{server.url}/rooms") as client:
        assert client.ask(type="publish", room="live", data="a")["type"] == "ack"
    assert server.stop()[0] == 0


@pytest.mark.skipif("redis" not in ENGINES, reason="the wheel's Valkey has no TLS")
def test_tls(tmp_path: Path) -> None:
    """`rediss://`, with the options that redis-py knows; a certificate is checked."""
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    tls = ["--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key]
    store = Store(ENGINES["redis"], *tls, "--tls-auth-clients", "no")
    store.start()
    try:
        url = f"rediss://127.0.0.1:{port}"
        can_not_start(run_serve("--redis", url), "certificate")
        server = Server("--redis", f"{url}?ssl_ca_certs={certificate}")
        with Client(f"{server.url}/rooms") as client:
            assert client.ask(type="publish", room="live", data="a")["type"] == "ack"
        code, logged = server.stop()
        assert code == 0
        assert "ssl_ca_certs" not in logged
    finally:
        store.close()


@pytest.fixture
def impostor() -> Iterator[Callable[[bytes], str]]:
    """Something that answers every command with the same bytes; returns its URL."""
    listeners: list[socket.socket] = []

    def answer(reply: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def work() -> None:
            with listener.accept()[0] as sock, suppress(ConnectionError):
                while sock.recv(65536):
                    sock.sendall(reply)

        # One for each lane.
        for _ in range(2):
            threading.Thread(target=work, daemon=True).start()
        return f"redis://127.0.0.1:{listener.getsockname()[1]}"

    yield answer
    for listener in listeners:
        listener.close()


def hello(version: str, role: str = "master") -> bytes:
    members = {"server": "redis", "version": version, "role": role}
    pairs = "".join(f"${len(w)}\r\n{w}\r\n" for pair in members.items() for w in pair)
    return f"%{len(members)}\r\n{pairs}".encode()


def test_what_is_too_old_or_no_redis(impostor: Callable[[bytes], str]) -> None:
    can_not_start(run_serve("--redis", impostor(hello("6.2.14"))), "6.2.14", "7.0")
    can_not_start(run_serve("--redis", impostor(hello("7.2.0", "replica"))), "replica")
    unknown = b"-ERR unknown command `HELLO`\r\n"
    can_not_start(run_serve("--redis", impostor(unknown)), "too old")
    can_not_start(run_serve("--redis", impostor(b"HTTP/1.1 400 Bad Request\r\n\r\n")))


def test_pushes_that_do_not_come(impostor: Callable[[bytes], str]) -> None:
    """As behind a proxy that says OK and drops them: `auto` does not believe it."""
    ended = run_serve("--redis", impostor(hello("7.2.0")))
    can_not_start(ended, "CLIENT TRACKING")


def test_usage() -> None:
    for options in (
        ["--port", "x"],
        ["--port", "70000"],
        ["--ping", "0"],
        ["--max-message", "big"],
        ["--dance"],
    ):
        ended = run_serve(*options)
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr
    can_not_start(run_serve("--default-room", "a b"), "--default-room")
    can_not_start(run_serve("--prefix", "{x}"), "--prefix")


def test_variables(store: Store) -> None:
    """Every option has one; the flag goes before it."""
    help_ = run_serve("--help", COLUMNS="200").stdout
    options = "HOST PORT REDIS PREFIX HISTORY RETAIN DEFAULT_ROOM FOLLOW MAX_MESSAGE"
    for name in (options + " MAX_CONNECTIONS PING STALL LOG_LEVEL LOG_FORMAT").split():
        assert f"STREAMCAST_{name}]" in help_, name
    assert "redis://127.0.0.1:1" not in run_serve(STREAMCAST_REDIS="redis://127.0.0.1:1").stdout
    can_not_start(run_serve(STREAMCAST_REDIS="redis://127.0.0.1:1"), "127.0.0.1:1")
    ended = run_serve("--redis", "redis://127.0.0.1:2", STREAMCAST_REDIS="redis://127.0.0.1:1")
    can_not_start(ended, "127.0.0.1:2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_in_order(
    store: Store, serve: Callable[..., Server], number: signal.Signals
) -> None:
    """Clients are closed with 1012, what was published is acknowledged, exit code 0."""
    server = serve(store, "--log-level", "debug")
    client = Client(f"{server.url}/rooms")
    for ref in range(50):
        client.send(json.dumps({"type": "publish", "room": "live", "data": "x", "ref": ref}))
    client.until(lambda told: told.get("ref") == 10)
    server.signal(number)
    assert client.closed() == 1012
    code, logged = server.ended()
    assert code == 0
    events = [json.loads(line) for line in logged.splitlines()]
    assert {"time", "level", "event"} <= set(events[0])
    names = [event["event"] for event in events]
    assert names[0] == "listening"
    assert events[0]["url"] == server.url
    assert {"connection opened", "connection closed", "stopping", "stopped"} <= set(names)
    closed = next(event for event in events if event["event"] == "connection closed")
    assert closed["sent"] == 1012


def test_acks_under_way_are_waited_for(own_store: Callable[..., Store], serve) -> None:
    store = own_store()
    server = serve(store)
    client = Client(f"{server.url}/rooms")
    client.ask(type="publish", room="live", data="first")
    store.signal(signal.SIGSTOP)
    client.send('{"type":"publish","room":"live","data":"late","ref":1}')
    time.sleep(0.3)  # for the server to have read it: nothing tells when
    server.signal(signal.SIGTERM)
    time.sleep(0.3)
    assert server.process.poll() is None
    store.signal(signal.SIGCONT)
    assert client.until(lambda told: told.get("ref") == 1)["type"] == "ack"
    assert client.closed() == 1012
    assert server.ended()[0] == 0


def test_a_second_signal_ends_at_once(own_store: Callable[..., Store]) -> None:
    store = own_store()
    server = Server("--redis", store.url)
    client = Client(f"{server.url}/rooms")
    client.ask(type="publish", room="live", data="first")
    store.signal(signal.SIGSTOP)
    client.send('{"type":"publish","room":"live","data":"late","ref":1}')
    time.sleep(0.3)
    server.signal(signal.SIGINT)
    eventually(lambda: "stopping" in server.logged())
    assert server.process.poll() is None
    server.signal(signal.SIGINT)
    assert server.process.wait(timeout=1) == 130
    store.signal(signal.SIGCONT)
    client.socket.close()
    server.stop()


def test_the_summary(store: Store, serve: Callable[..., Server]) -> None:
    """Every 10 s, where something happened."""
    server = serve(store)
    with Client(f"{server.url}/rooms/live", None) as client:
        client.send("a")
        client.receive()
        line = eventually(lambda: [w for w in server.logged().splitlines() if "summary" in w], 15)
    summary = json.loads(line[0])
    assert summary["opened"] == summary["connections"] == summary["rooms"] == 1
    assert summary["published"] == summary["delivered"] == 1


def test_logs_as_text(store: Store) -> None:
    server = Server("--redis", store.url, log_format="text")
    code, logged = server.stop()
    assert code == 0
    assert "listening url=ws://127.0.0.1:" in logged
    assert "{" not in logged


def test_start_up_of_help_is_light() -> None:
    """--help loads none of what only a running server needs."""
    code = "import sys, streamcast.cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"uvloop", "websockets", "redis", "asyncio"} & set(loaded.stdout.split())


def test_the_readme_names_every_option_and_its_default() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    for part in (ServerSettings, StreamSettings, RelaySettings, LogSettings):
        for setting in fields(part):
            if "help" in setting.metadata:
                assert f"`--{setting.name.replace('_', '-')}" in readme, setting.name
