"""`serve --workers`: several processes on one port, and a parent that answers for all."""

import asyncio
import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import psutil
import pytest
import uvloop
from websockets.exceptions import ConnectionClosed

from streamcast.config import (
    LogLevel,
    LogSettings,
    RelaySettings,
    ServerSettings,
    StreamSettings,
)
from streamcast.errors import StartError
from streamcast.server import workers as leading
from streamcast.server.listening import listen
from streamcast.server.others import Rows, shared_memory
from streamcast.server.worker import Task
from streamcast.server.workers import Worker
from tests.clients import Client
from tests.raw import Raw, request
from tests.stores import Server, Store, eventually
from tests.test_draining import said_at
from tests.test_serve import can_not_start, run_serve

pytestmark = pytest.mark.one_cell

MODULE = "streamcast.cli.worker"


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended may wait for somebody to take note of it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def suspend(process: psutil.Process) -> None:
    """Have a process hang."""
    process.suspend()
    eventually(lambda: process.status() == psutil.STATUS_STOPPED)


def workers(server: Server) -> list[psutil.Process]:
    """Its workers that live, the oldest first."""
    return workers_of(server.process.pid)


def workers_of(pid: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):
            if MODULE in child.cmdline() and is_alive(child):
                found.append(child)
    return sorted(found, key=lambda child: (child.create_time(), child.pid))


def told(server: Server, event: str) -> list[dict[str, object]]:
    """What was logged of an event."""
    return told_in(server.logged(), event)


def told_in(logged: str, event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in logged.splitlines() if line.endswith("}")]
    return [line for line in lines if line["event"] == event]


def clients(server: Server) -> list[int]:
    """How many clients each of the two workers has, by SIGUSR1."""
    before = len(told(server, "statistics"))
    server.signal(signal.SIGUSR1)
    lines = eventually(
        lambda: len(lines := told(server, "statistics")[before:]) == 2 and lines, within=30
    )
    assert {line["worker"] for line in lines} == {1, 2}
    return [line["connections"] for line in sorted(lines, key=lambda line: line["worker"])]


def join(server: Server) -> Client:
    client = Client(f"{server.url}/rooms/live")
    assert client.told()["type"] == "joined"
    return client


def connect_at_once(server: Server, count: int) -> list[socket.socket]:
    """Clients of a room, all of whom come in one instant."""
    storm = [socket.socket() for _ in range(count)]
    for sock in storm:
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", server.port))
    for sock in storm:
        sock.setblocking(True)
        sock.sendall(request("/rooms/live"))
        assert sock.recv(12) == b"HTTP/1.1 101"
    return storm


@pytest.fixture(scope="module")
def _server(any_store: Store) -> Iterator[Server]:
    server = Server("--redis", any_store.url, "--workers", "2", "--drain", "0.2s")
    yield server
    code, logged = server.stop()
    assert code == 0, logged
    assert '"fault"' not in logged


@pytest.fixture
def server(_server: Server) -> Server:
    """Two workers, both at work, without clients."""
    eventually(lambda: clients(_server) == [0, 0])
    return _server


# Clients


def test_clients_are_spread_evenly(server: Server) -> None:
    """Many at a time; what is said at one worker is heard at the other."""
    storm = connect_at_once(server, 300)
    assert max(clients(server)) <= 200
    members = [join(server) for _ in range(10)]
    members[0].ask(type="publish", room="live", data="heard")
    for member in members[1:]:
        assert member.data(1) == ["heard"]
    for sock in storm:
        sock.close()
    for member in members:
        member.socket.close()


def test_a_worker_that_hangs_is_not_waited_for(server: Server) -> None:
    """When it is back, those who come go to it until it has as many as the other."""
    hanging = workers(server)[0]
    suspend(hanging)
    began = time.monotonic()
    served = connect_at_once(server, 200)
    assert time.monotonic() - began < 2
    hanging.resume()
    assert sorted(clients(server)) == [0, 200]
    more = connect_at_once(server, 150)
    assert min(clients(server)) > 110
    for sock in [*served, *more]:
        sock.close()


def test_the_limit_is_for_all_together(any_store: Store, run: Callable[..., Server]) -> None:
    options = ("--workers", "2", "--max-connections", "10", "--drain", "0.2s")
    server = run("--redis", any_store.url, *options)
    served = [join(server) for _ in range(10)]
    for _ in range(3):
        assert Client(f"{server.url}/rooms/live").closed() == 1013
    served.pop().socket.close()
    served.append(eventually(lambda: _served(server)))
    assert Client(f"{server.url}/rooms/live").closed() == 1013
    # The place of those whose worker was killed is free again.
    workers(server)[0].kill()
    eventually(lambda: told(server, "worker ended"))
    left = [client for client in served if _is_open(client)]
    assert 3 <= len(left) <= 7
    again = [eventually(lambda: _served(server)) for _ in range(10 - len(left))]
    assert _served(server) is None
    for client in [*served, *again]:
        client.socket.close()


def _served(server: Server) -> Client | None:
    client = Client(f"{server.url}/rooms/live")
    try:
        client.told()
    except ConnectionClosed:
        return None
    return client


def _is_open(client: Client) -> bool:
    with suppress(ConnectionClosed):
        return bool(client.ask(type="ping"))
    return False


# Workers that end


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_is_replaced(server: Server, number: signal.Signals) -> None:
    """Its clients find another, the other's notice nothing; one that is told to, drains."""
    ended, back = (len(told(server, f"worker {event}")) for event in ("ended", "back"))
    before = workers(server)
    members = [join(server) for _ in range(10)]
    while 0 in (had := clients(server)):
        # One that gets no processor for a moment leaves what comes to the other.
        members.append(join(server))
    before[0].send_signal(number)
    eventually(lambda: len(told(server, "worker back")) > back)
    [line] = told(server, "worker ended")[ended:]
    gone = line["worker"]
    assert line["level"] == "warning"
    reason = "was ended by SIGKILL" if number == signal.SIGKILL else "ended with exit code 0"
    assert line["reason"] == reason
    left = clients(server)
    had[int(str(gone)) - 1] = 0
    assert left == had
    assert len(workers(server)) == 2
    assert before[0] not in workers(server)
    newcomers = [join(server) for _ in range(sum(left))]
    assert max(clients(server)) <= sum(left) + 1
    newcomers[0].ask(type="publish", room="live", data="still there")
    closed = []
    for member in members:
        try:
            assert member.told()["data"] == "still there"
        except ConnectionClosed:
            closed.append(member.socket.close_code)
    assert len(closed) == len(members) - sum(left)
    assert set(closed) == {1012 if number == signal.SIGTERM else 1006}
    for client in [*members, *newcomers]:
        client.socket.close()


def test_one_that_ends_over_and_over_is_not_replaced_in_haste(
    any_store: Store, run: Callable[..., Server]
) -> None:
    """0.1 s, then twice as long each time, half of it by chance."""
    server = run("--redis", any_store.url, "--workers", "2")
    keeps = workers(server)[0]
    pauses = []
    for _ in range(3):
        victim = eventually(lambda: next((w for w in workers(server) if w != keeps), None))
        victim.kill()
        killed = time.monotonic()
        eventually(lambda: set(workers(server)) - {keeps, victim})  # noqa: B023 - ends here
        pauses.append(time.monotonic() - killed)
    assert pauses[0] < 0.18
    assert pauses[2] > 0.2
    eventually(lambda: told(server, "worker back"))
    with join(server):
        pass


def test_one_that_can_not_start_again_is_tried_until_it_can(
    own_store: Callable[..., Store], run: Callable[..., Server]
) -> None:
    store = own_store()
    server = run("--redis", store.url, "--workers", "2")
    store.kill()
    workers(server)[0].kill()
    line = eventually(lambda: told(server, "worker can't start"))[0]
    assert "can't be reached" in str(line["reason"])
    store.start()
    eventually(lambda: told(server, "worker back"))
    assert len(workers(server)) == 2


# Starting


def test_what_keeps_workers_from_starting_is_told_once(any_store: Store) -> None:
    can_not_start(run_serve("--workers", "3", "--redis", "redis://127.0.0.1:1"), "refused")


def test_a_port_has_one_server(server: Server, any_store: Store) -> None:
    port = str(server.port)
    for count in ("1", "2"):
        options = ("--port", port, "--workers", count, "--redis", any_store.url)
        can_not_start(run_serve(*options), port, "taken")


def test_stopped_while_it_starts(own_store: Callable[..., Store]) -> None:
    """Here the store does not answer, so no worker is ever ready."""
    store = own_store()
    store.signal(signal.SIGSTOP)
    command = [sys.executable, "-m", "streamcast", "serve", "--port", "0", "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--redis", store.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    leader = psutil.Process(process.pid)
    children = eventually(lambda: len(found := leader.children()) == 2 and found)
    process.terminate()
    printed, logged = process.communicate(timeout=10)
    assert (process.returncode, printed) == (0, ""), logged
    assert not any(is_alive(child) for child in children)
    store.signal(signal.SIGCONT)


# Stopping


def test_all_drain(any_store: Store) -> None:
    """What is published until the end is acknowledged, clients get 1012, the exit code is 0."""
    server = Server("--redis", any_store.url, "--workers", "2")
    members = [join(server) for _ in range(10)]
    left = workers(server)
    server.signal(signal.SIGTERM)
    for member in members:
        assert member.closed() == 1012
    code, logged = server.ended()
    assert code == 0
    assert logged.count('"event": "stopped"') == 3
    assert not any(is_alive(worker) for worker in left)
    assert '"worker ended"' not in logged
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port))


def _take_terminal() -> None:
    """Make standard input the terminal whose Ctrl-C comes to this session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_ctrl_c_at_a_terminal(any_store: Store) -> None:
    """It reaches all processes of the terminal; each client is still sent away in order."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "streamcast", "serve", "--port", "0", "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--redis", any_store.url],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509 - it takes no lock
    )
    os.close(follower)
    assert process.stdout is not None
    url = process.stdout.readline().rpartition(" ")[2].strip()
    members = [Client(f"{url}/rooms/live") for _ in range(4)]
    os.write(leader, b"\x03")
    for member in members:
        assert member.closed() == 1012
    said = b""
    with suppress(OSError):
        # Its end, once nobody has the terminal open.
        while more := os.read(leader, 65536):
            said += more
    assert process.wait(timeout=10) == 0, said
    assert b"Traceback" not in said
    assert b"worker=2" in said
    process.stdout.close()
    os.close(leader)


def test_a_second_signal_ends_all_at_once(own_store: Callable[..., Store]) -> None:
    store = own_store()
    server = Server("--redis", store.url, "--workers", "2")
    client = join(server)
    client.ask(type="publish", room="live", data="first")
    store.signal(signal.SIGSTOP)
    client.request({"type": "publish", "room": "live", "data": "late", "ref": 1})
    left = workers(server)
    server.signal(signal.SIGINT)
    eventually(lambda: len(told(server, "stopping")) >= 2)
    server.signal(signal.SIGINT)
    assert server.process.wait(timeout=1) == 130
    eventually(lambda: not any(is_alive(worker) for worker in left))
    store.signal(signal.SIGCONT)
    client.socket.close()
    server.stop()


def test_an_end_in_disorder_is_told(any_store: Store) -> None:
    """The exit code says it as well; the other worker ends in order."""
    server = Server("--redis", any_store.url, "--workers", "2")
    # They don't answer the close, which is waited for.
    members = [Raw.joined(server, "live") for _ in range(4)]
    server.signal(signal.SIGTERM)
    eventually(lambda: len(told(server, "stopping")) == 3)
    eventually(lambda: said_at(server, "/readyz") == (503, "stopping\n"), within=1)
    workers(server)[0].kill()
    for member in members:
        with suppress(ConnectionError, EOFError):
            assert member.closed() == 1012
        member.socket.close()
    code, logged = server.ended()
    assert code == 1
    assert "Not all workers ended in order" in logged
    [line] = told_in(logged, "worker ended")
    assert (line["level"], line["reason"]) == ("error", "was ended by SIGKILL")
    assert len(told_in(logged, "stopped")) == 1


async def test_a_worker_that_does_not_end_is_killed(
    any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "END_TIMEOUT", 0.2)
    async with a_worker(any_store.url) as worker:
        await worker.start()
        [process] = workers_of(os.getpid())
        await asyncio.to_thread(suspend, process)
        assert not await worker.end()
        assert not is_alive(process)


def test_a_worker_that_ends_before_it_is_told_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop, which `serve` runs on, has closed its pipes by then."""

    async def start() -> None:
        async with a_worker("redis://127.0.0.1:1") as worker:
            spawn = worker._spawn

            async def spawn_and_kill() -> Process:
                process = await spawn()
                process.kill()
                await process.wait()
                await asyncio.sleep(0)
                return process

            monkeypatch.setattr(worker, "_spawn", spawn_and_kill)
            await worker.start()

    with pytest.raises(StartError, match="was ended by SIGKILL while it started"):
        uvloop.run(start())


@asynccontextmanager
async def a_worker(redis: str) -> AsyncIterator[Worker]:
    """One that is not started yet, in this process' charge."""
    memory = shared_memory(1)
    [sock] = await listen("127.0.0.1", 0)
    settings = StreamSettings(redis=redis), RelaySettings(), ServerSettings(drain=0.1)
    task = Task(0, (sock.fileno(),), memory, *settings, LogSettings(LogLevel.ERROR))
    try:
        yield Worker(MODULE, task, Rows(1, memory))
    finally:
        sock.close()
        os.close(memory)


def test_a_killed_parent_takes_all_with_it() -> None:
    """Also a worker that hangs, and the embedded store."""
    server = Server("--workers", "2", "--log-level", "warning")
    assert server.process.stdout is not None
    store = server.process.stdout.readline().rpartition(" ")[2].strip()
    client = join(server)
    left = psutil.Process(server.process.pid).children(recursive=True)
    assert len(left) == 4
    hanging = workers(server)[0]
    suspend(hanging)
    server.process.kill()
    with pytest.raises(ConnectionClosed):
        client.told()
    eventually(lambda: not any(is_alive(process) for process in left))
    assert not os.path.exists(store)  # noqa: PTH110 - a socket's path
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port))
    server.stop()
