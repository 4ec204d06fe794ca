"""The same load against streamcast and others, turn by turn, on one Redis.

Each server runs alone, on a core of its own where the system lets us choose; Redis and the load
share another. What is printed is the median of the rounds, as a table of Markdown.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from streamcast import __version__
from streamcast.bench.dialects import DIALECTS, Said
from streamcast.bench.frames import TEXT, client_frame
from streamcast.bench.load import Progress
from streamcast.bench.plan import Plan, broadcast
from streamcast.bench.reception import Shapes
from streamcast.bench.report import Report, make
from streamcast.bench.run import measure
from streamcast.bench.target import address_of
from tests.conftest import ENGINES
from tests.restarts import free_port
from tests.stores import Store

PEERS = Path(__file__).parent / "peers"
SIZE = 100
WARMUP = 1.0


class SocketIo:
    """Engine.IO 4 and Socket.IO 5 over a WebSocket, as far as a load needs them."""

    subprotocol: str | None = None
    joins: bool = True
    all_join: bool = True
    shapes: Shapes | None = None

    def path(self, room: str, *, listens: bool) -> str:
        return "/socket.io/?EIO=4&transport=websocket"

    def join(self, room: str) -> bytes:
        return b""

    def rejoin(self, room: str, after: str) -> bytes:
        raise ValueError("Socket.IO has no IDs here")

    def id_of(self, data: bytes) -> str | None:
        return None

    def answer(self, room: str, opcode: int, data: bytes, *, listens: bool) -> bytes:
        if data == b"2":
            return client_frame(TEXT, b"3")
        if data.startswith(b"0{"):
            return client_frame(TEXT, b"40")
        if data.startswith(b"40{"):
            return _event("join", room) if listens else _event("hello")
        return b""

    def publish(self, room: str, payload: bytes, key: str | None = None) -> bytes:
        return _event("publish", room, payload.decode())

    def payload(self, opcode: int, data: bytes) -> bytes | None:
        start = b'42["message","'
        return data[len(start) : -2] if data.startswith(start) else None

    def said(self, opcode: int, data: bytes) -> Said:
        return Said.JOINED if data.startswith(b'42["joined"') else Said.NOTHING


def _event(*words: str) -> bytes:
    return client_frame(TEXT, b"42" + json.dumps(words, separators=(",", ":")).encode())


# Known in the processes of the load as well: they import this file.
DIALECTS["socketio"] = SocketIo()


@dataclass(frozen=True)
class Peer:
    """A server: how it is started, but for port and Redis, and spoken to."""

    name: str
    dialect: str
    command: Sequence[str]
    more: Sequence[str] = ()


SERVE = [sys.executable, "-m", "streamcast", "serve", "--port", "{port}", "--redis", "{redis}"]
NODE_ARTICLE = ["node", str(PEERS / "article.mjs"), "{port}", "{redis}"]
COMPARED = [
    Peer("streamcast, JSON", "json", SERVE),
    Peer("streamcast, plain", "plain", SERVE),
    Peer("the article's server", "plain", [*NODE_ARTICLE, "one"]),
    Peer("the same, a connection a room", "plain", [*NODE_ARTICLE, "rooms"]),
    Peer(
        "Socket.IO, redis-streams-adapter",
        "socketio",
        ["node", str(PEERS / "socketio.mjs"), "{port}", "{redis}"],
    ),
]


@dataclass(frozen=True)
class Shape:
    """A broadcast: so many listen, `rate` messages a second in all."""

    subscribers: int
    rate: int

    def __str__(self) -> str:
        return f"{self.subscribers} × {self.rate}/s"


class Watch:
    """Notes what a server uses."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.cpu = 0.0

    def _used(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def begin(self) -> None:
        self.cpu = -self._used()

    def progress(self, seconds: float, progress: Sequence[Progress]) -> None:
        pass

    def end(self) -> None:
        self.cpu += self._used()


@contextmanager
def running(peer: Peer, redis: str, core: int | None) -> Iterator[tuple[str, psutil.Process]]:
    command = [word.format(port="0", redis=redis) for word in peer.command]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Listening on "), f"{peer.name} did not start: {line}"
        yield line.split()[-1], psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def run(
    peer: Peer, shape: Shape, redis: str, duration: float, core: int | None
) -> tuple[Report, float]:
    """Return the report, and the server's CPU in µs a delivery."""
    room = f"compare-{os.urandom(4).hex()}"
    members = broadcast(
        room,
        subscribers=shape.subscribers,
        publishers=1,
        rate=shape.rate,
        duration=WARMUP + duration,
    )
    with running(peer, redis, core) as (url, process):
        plan = Plan(address_of(url), peer.dialect, SIZE, WARMUP, WARMUP + duration, members)
        watch = Watch(process)
        measured = measure(plan, 1, watch)
    settings = {"size": SIZE, "listeners_per_message": shape.subscribers}
    report = make(measured, settings, {}, None)
    return report, watch.cpu * 1e6 / max(measured.received, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds measured")
    parser.add_argument("--shapes", default="200x500,1000x100", help="subscribers x messages/s")
    given = parser.parse_args()
    shapes = [Shape(*map(int, each.split("x"))) for each in given.shapes.split(",")]
    core = _pin()
    store = Store(ENGINES.get("redis") or ENGINES["valkey"], port=free_port())
    store.start()
    found: dict[tuple[Shape, str], list[tuple[Report, float]]] = {}
    try:
        redis = f"redis://127.0.0.1:{store.port}"
        for round_ in range(given.rounds):
            for shape in shapes:
                for peer in COMPARED:
                    report, cpu = run(peer, shape, redis, given.duration, core)
                    found.setdefault((shape, peer.name), []).append((report, cpu))
                    p50, lost = report.latency.percentiles["p50"], report.faults.lost
                    print(
                        f"round {round_ + 1}, {shape}, {peer.name}: {cpu:.2f} µs, "
                        f"p50 {p50:.2f} ms, {lost} lost",
                        file=sys.stderr,
                    )
                    store.empty()
        engine = _engine(store.client.info("server"))
    finally:
        store.close()
    _print(shapes, found, engine, given, core)


def _engine(told: Mapping[str, object]) -> str:
    """Return its name and version. Valkey tells of a Redis that it is compatible with, too."""
    if "valkey_version" in told:
        return f"Valkey {told['valkey_version']}"
    return f"Redis {told['redis_version']}"


def _pin() -> int | None:
    """Keep what we start on one core, and return another for the servers; None: there is no way."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        return None
    first, second, *_ = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {second})
    return first


def _print(
    shapes: Sequence[Shape],
    found: dict[tuple[Shape, str], list[tuple[Report, float]]],
    engine: str,
    given: argparse.Namespace,
    core: int | None,
) -> None:
    for shape in shapes:
        print(f"\n{shape.subscribers} subscribers, {shape.rate} messages/s of {SIZE} bytes\n")
        print("| | CPU, µs a delivery | × | p50, ms | p99, ms | lost |")
        print("|---|---|---|---|---|---|")
        ours = statistics.median(cpu for _, cpu in found[shape, COMPARED[0].name])
        for peer in COMPARED:
            runs = found[shape, peer.name]
            cpu = statistics.median(each for _, each in runs)
            p50 = statistics.median(report.latency.percentiles["p50"] for report, _ in runs)
            p99 = statistics.median(report.latency.percentiles["p99"] for report, _ in runs)
            lost = max(report.faults.lost for report, _ in runs)
            wrong = "" if all(report.is_whole for report, _ in runs) else ", not whole"
            busy = ", the load was busy" if any(report.busy for report, _ in runs) else ""
            cells = f"{cpu:.1f} | {cpu / ours:.1f} | {p50:.1f} | {p99:.1f} | {lost}{wrong}{busy}"
            print(f"| {peer.name} | {cells} |")
    pinned = "the server on a core of its own" if core is not None else "not pinned"
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    print(
        f"\nMedian of {given.rounds} rounds of {given.duration:g} s, turn by turn; {pinned}. "
        f"{datetime.now(UTC):%Y-%m-%d}, streamcast {__version__}, Python "
        f"{platform.python_version()}, node {node.stdout.strip()}, {engine}, {_machine()}."
    )


def _machine() -> str:
    try:
        cpu = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition("\n")[0]
        name = cpu.strip(" \t:")
    except OSError:
        name = platform.machine()
    return f"{os.cpu_count()} cores of {name}, {platform.system()}"


if __name__ == "__main__":
    main()
