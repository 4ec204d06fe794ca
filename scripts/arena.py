"""Servers under a load, one at a time: what `compare` and `bench-all` share.

Each server runs alone, on a core of its own where the system lets us choose; Redis and the load
share another.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from streamcast import __version__
from streamcast.bench.load import Progress
from streamcast.bench.plan import Member, Plan
from streamcast.bench.report import Report, make
from streamcast.bench.run import measure
from streamcast.bench.target import address_of
from tests.conftest import ENGINES
from tests.restarts import free_port
from tests.stores import Store

PEERS = Path(__file__).parent / "peers"
SIZE = 100
"""Bytes of a message."""
NODE_ARTICLE = ["node", str(PEERS / "article.mjs"), "{port}", "{redis}"]


@dataclass(frozen=True)
class Peer:
    """A server: how it is started, but for port and Redis, and spoken to."""

    name: str
    dialect: str
    command: Sequence[str]


def streamcast(name: str, dialect: str, command: str | None = None) -> Peer:
    """Return ours; `command`: instead of this checkout's `streamcast serve`."""
    begins = command.split() if command else [sys.executable, "-m", "streamcast", "serve"]
    options = ["--port", "{port}", "--redis", "{redis}", "--max-connections", "1000000"]
    return Peer(name, dialect, [*begins, *options])


class Used:
    """What a process uses of the CPU, in seconds, and when, in seconds since the load began."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self.before = self.all = 0.0
        self._at: list[tuple[float, float]] = []

    def now(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system

    def share(self, begin: float, end: float) -> float:
        """Return how much of a core it used between two moments."""
        inside = [each for each in self._at if begin <= each[0] <= end]
        (first, before), (last, after) = inside[0], inside[-1]
        return (after - before) / (last - first)

    def note(self, seconds: float) -> None:
        self._at.append((seconds, self.now()))


class Watch:
    """Notes what server and store use while a load runs; `memory`: the server's, all connected."""

    def __init__(self, server: psutil.Process, store: psutil.Process) -> None:
        self.server, self.store = Used(server), Used(store)
        self.memory = 0

    def begin(self) -> None:
        self.memory = self.server.process.memory_info().rss
        self.server.before = self.server.now()

    def progress(self, seconds: float, progress: Sequence[Progress]) -> None:
        self.server.note(seconds)
        self.store.note(seconds)

    def end(self) -> None:
        self.server.all = self.server.now() - self.server.before


@dataclass(frozen=True)
class Outcome:
    """What a run found out; `cpu`: the server's µs a delivery. Shares are of a core."""

    report: Report
    cpu: float
    server: float
    store: float
    memory: float
    """Bytes a connection that the server grew by while they were opened."""


class Arena:
    """Where servers run: a Redis, and which core is the servers'."""

    def __init__(self) -> None:
        self.core = _pin()
        self._store = Store(ENGINES.get("redis") or ENGINES["valkey"], port=free_port())
        self._store.start()
        self._redis = psutil.Process(self._store.pid)
        self.engine = _engine(self._store.client.info("server"))
        self._speeds: list[float] = []

    def close(self) -> None:
        self._store.close()

    def run(
        self,
        peer: Peer,
        members: tuple[Member, ...],
        *,
        warmup: float,
        duration: float,
        **more: object,
    ) -> Outcome:
        """Measure a server for `duration` seconds after `warmup`; `more`: see `Plan`."""
        self._speeds.append(_million_steps())
        self._store.empty()
        with self._running(peer) as (url, process):
            memory = process.memory_info().rss
            plan = Plan(
                address_of(url),
                peer.dialect,
                SIZE,
                warmup,
                warmup + duration,
                members,
                **more,  # type: ignore[arg-type]
            )
            watch = Watch(process, self._redis)
            measured = measure(plan, 1, watch)
        settings = {"size": SIZE, "listeners_per_message": max(plan.listeners.values())}
        report = make(measured, settings, {}, None)
        return Outcome(
            report,
            watch.server.all * 1e6 / max(measured.received, 1),
            watch.server.share(warmup, warmup + duration),
            watch.store.share(warmup, warmup + duration),
            (watch.memory - memory) / len(members),
        )

    @contextmanager
    def _running(self, peer: Peer) -> Iterator[tuple[str, psutil.Process]]:
        redis = f"redis://127.0.0.1:{self._store.port}"
        command = [word.format(port="0", redis=redis) for word in peer.command]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            if self.core is not None:
                os.sched_setaffinity(process.pid, {self.core})
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("Listening on "), f"{peer.name} did not start: {line}"
            yield line.split()[-1], psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait()

    @property
    def speeds(self) -> tuple[float, float]:
        """How many ms a million steps of Python took before the runs, at most and at least."""
        return max(self._speeds), min(self._speeds)

    def footer(self) -> str:
        """Say what it ran on, and when."""
        pinned = "the server on a core of its own" if self.core is not None else "not pinned"
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        return (
            f"{pinned}. {datetime.now(UTC):%Y-%m-%d}, streamcast {__version__}, Python "
            f"{platform.python_version()}, node {node.stdout.strip()}, {self.engine}, {_machine()}."
        )


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


def _million_steps() -> float:
    """Return how fast the machine is just now: virtual ones are not the same all the time."""
    began = time.perf_counter()
    for _ in range(1_000_000):
        pass
    return (time.perf_counter() - began) * 1000


def _machine() -> str:
    try:
        cpu = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition("\n")[0]
        name = cpu.strip(" \t:")
    except OSError:
        name = platform.machine()
    return f"{os.cpu_count()} cores of {name}, {platform.system()}"
