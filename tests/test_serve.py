"""`streamcast serve`: options, what keeps it from starting, stopping, logs."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest

from streamcast.config import LogSettings, RelaySettings, ServerSettings, StreamSettings
from tests.clients import Client
from tests.conftest import ENGINES
from tests.stores import Server, Store, eventually

pytestmark = pytest.mark.one_cell


def run_serve(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamcast", "serve", "--port", "0", *options]
    return run(command, **environment)


def run(command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
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
    assert set(store.client.info("keyspace")) == {"db3"}


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


def test_usage() -> None:
    for options in (
        ["--port", "x"],
        ["--port", "70000"],
        ["--ping", "0"],
        ["--max-message", "big"],
        ["--allow-origin", "https://example.com/"],
        ["--dance"],
        ["--allow-origin", "example.com"],
        ["--allow-origin", "https://example.com:443"],
        ["--allow-origin", "https://münchen.example"],
    ):
        ended = run_serve(*options)
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr
    can_not_start(run_serve("--default-room", "a b"), "--default-room")
    can_not_start(run_serve("--prefix", "{x}"), "--prefix")


def test_variables(store: Store) -> None:
    """Every option has one; the flag goes before it."""
    help_ = run_serve("--help", COLUMNS="200").stdout
    options = (
        "HOST PORT WORKERS REDIS DATA PREFIX HISTORY RETAIN DEFAULT_ROOM FOLLOW AUDIT MAX_MESSAGE"
    )
    for name in (
        options + " ALLOW_ORIGIN MAX_CONNECTIONS PING STALL DRAIN LOG_LEVEL LOG_FORMAT"
    ).split():
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
    eventually(lambda: server.statistics()["unacknowledged"] > 0)
    server.signal(signal.SIGTERM)
    eventually(lambda: "stopping" in server.logged())
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
    eventually(lambda: server.statistics()["unacknowledged"] > 0)
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
