"""deploy/: the configurations as they stand there, but for addresses, in programs of Debian's."""

import asyncio
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from streamcast.client import Client, Gap, Message, connect
from tests.clients import Client as Plain
from tests.restarts import free_port
from tests.stores import Server, Store, eventually

pytestmark = pytest.mark.one_cell

DEPLOY = Path(__file__).parent.parent / "deploy"
ROOMS = [f"room-{number}" for number in range(5)]
CLIENTS = 10


@dataclass
class Balancer:
    """How a load balancer is started with a configuration; `file`: where that stands."""

    program: str
    file: str
    options: Callable[[Path], list[str]]


BALANCERS = [
    Balancer(
        "nginx",
        "nginx.conf",
        lambda file: [
            *("-c", str(file), "-p", str(file.parent), "-e", "stderr"),
            *("-g", "daemon off; pid nginx.pid; user root;"),
        ],
    ),
    Balancer("haproxy", "haproxy.cfg", lambda file: ["-db", "-f", str(file)]),
]


@pytest.fixture(params=BALANCERS, ids=lambda each: each.program)
def balancer(request: pytest.FixtureRequest) -> Balancer:
    chosen: Balancer = request.param
    if path_of(chosen.program) is None and "CI" not in os.environ:
        pytest.skip(f"{chosen.program} is not installed")
    return chosen


def path_of(program: str) -> str | None:
    """Where a program is that Debian does not have everybody look for."""
    return shutil.which(program, path=os.environ["PATH"] + os.pathsep + "/usr/sbin")


@pytest.fixture
def balance(balancer: Balancer, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts the load balancer in front of two servers; returns its URL."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*servers: Server, **changes: str) -> str:
        port = free_port()
        text = (DEPLOY / balancer.file).read_text()
        replaced = {
            ":8081": f":{servers[0].port}",
            ":8082": f":{servers[1].port}",
            "8080": str(port),
        }
        for old, new in (replaced | changes).items():
            assert old in text, f"{old} is not in {balancer.file}"
            text = text.replace(old, new)
        file = tmp_path / balancer.file
        file.write_text(text)
        program = path_of(balancer.program)
        assert program is not None
        command = [program, *balancer.options(file)]
        running.append(subprocess.Popen(command, cwd=tmp_path))
        eventually(lambda: answers(port))
        return f"ws://127.0.0.1:{port}"

    yield start
    for process in running:
        process.terminate()
        process.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as said:
            return bool(said.read() == b"ready\n")
    except OSError:
        return False


async def test_a_server_is_taken_out_without_loss(
    run: Callable[..., Server], any_store: Store, balance: Callable[..., str]
) -> None:
    """Its clients go to the other one; each gets every message once, in order, without a gap."""
    any_store.empty()
    one, other = (run("--redis", any_store.url, "--drain", "300ms") for _ in range(2))
    url = await asyncio.to_thread(balance, one, other)
    clients = [connect(url) for _ in range(CLIENTS)]
    listening = [asyncio.create_task(listen(each, ROOMS[n % 5])) for n, each in enumerate(clients)]
    await asyncio.to_thread(eventually, lambda: connections(one) and connections(other))
    await asyncio.to_thread(eventually, lambda: members(one) + members(other) == CLIENTS)
    stopped = asyncio.Event()
    async with connect(url) as publisher:
        publishing = asyncio.create_task(publish(publisher, stopped))
        code, _ = await asyncio.to_thread(one.stop)
        assert code == 0
        await asyncio.to_thread(eventually, lambda: members(other) == CLIENTS)
        stopped.set()
        published = await publishing
    for heard in await asyncio.gather(*listening):
        assert heard == [str(number) for number in range(published)]


async def listen(client: Client, room: str) -> list[str | bytes]:
    """Return what comes, until the end."""
    heard: list[str | bytes] = []
    async with client, client.subscribe(room) as items:
        async for item in items:
            assert not isinstance(item, Gap)
            if isinstance(item, Message):
                if item.data == "end":
                    break
                heard.append(item.data)
    return heard


async def publish(client: Client, stopped: asyncio.Event) -> int:
    """Publish numbers to all rooms until told to stop; return how many."""
    number = 0
    while not stopped.is_set():
        await asyncio.gather(*[client.publish(room, str(number)) for room in ROOMS])
        number += 1
    await asyncio.gather(*[client.publish(room, "end") for room in ROOMS])
    return number


def connections(server: Server) -> int:
    held: int = server.statistics()["connections"]
    return held


def members(server: Server) -> int:
    held: int = server.statistics()["members"]
    return held


async def test_a_server_that_is_killed(
    run: Callable[..., Server], any_store: Store, balance: Callable[..., str]
) -> None:
    """A new client gets the other one, also before the balancer knows."""
    one, other = (run("--redis", any_store.url) for _ in range(2))
    url = await asyncio.to_thread(balance, one, other)
    one.process.kill()
    one.process.wait()
    for _ in range(4):
        with Plain(f"{url}/rooms/live", None) as client:
            client.send("here")
            assert client.receive() == "here"


def test_an_idle_client_stays_because_it_is_pinged(
    run: Callable[..., Server], any_store: Store, balance: Callable[..., str]
) -> None:
    """The time-outs, made shorter, are above the ping, and cut off who is not pinged."""
    pinging = [run("--redis", any_store.url, "--ping", "300ms") for _ in range(2)]
    silent = [run("--redis", any_store.url) for _ in range(2)]
    urls = balance(*pinging, **{"75s": "1s"}), balance(*silent, **{"75s": "1s"})
    clients = [Plain(f"{url}/rooms/idle", None) for url in urls]
    with pytest.raises(ConnectionClosed):
        clients[1].receive()
    clients[0].send("still here")
    assert clients[0].receive() == "still here"
