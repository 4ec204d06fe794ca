"""What `bench` does: a server, a load, a report."""

import json
import os
import platform
import secrets
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from streamcast import __version__
from streamcast.bench import plan as plans
from streamcast.bench.histogram import Histogram
from streamcast.bench.html import page
from streamcast.bench.knee import Knee
from streamcast.bench.limits import Limit
from streamcast.bench.load import Progress as HowFar
from streamcast.bench.plan import Member, Plan
from streamcast.bench.report import Report, ServerUse, make
from streamcast.bench.run import Measured, measure
from streamcast.bench.target import OwnServer, Use, address_of, own_server
from streamcast.bench.text import shown
from streamcast.config import LoadSettings, Profile, ReportSettings, TargetSettings
from streamcast.errors import StreamcastError

FAILED, BOUND_BROKEN, INTERRUPTED = 1, 99, 130
RATE_OVER = 8
"""Over how many looks, a few a second, the rate is told while a load runs."""


def run(load: LoadSettings, target: TargetSettings, wanted: ReportSettings) -> int:
    """Measure, report, and return the exit code. Raises StreamcastError."""
    for file in (wanted.html, wanted.json):
        if file is not None and file != "-":
            _write(file, "")  # better to know now that it can't be
    if load.find_max is None:
        report = _measure(load, target)
    else:
        report = _find_max(load, Limit.parse(load.find_max), target)
    _print(report, wanted)
    if report.interrupted:
        return INTERRUPTED
    broken = [limit for limit in map(Limit.parse, wanted.fail_if) if limit.holds_for(report)]
    for limit in broken:
        typer.echo(f"{limit.text}: it is {limit.figure(report):g}.", err=True)
    if broken:
        return BOUND_BROKEN
    return 0 if report.is_whole or wanted.allow_loss else FAILED


def _find_max(load: LoadSettings, bound: Limit, target: TargetSettings) -> Report:
    """Return the report of the highest rate at which a bound holds, or of the lowest tried."""
    knee, best = Knee(load.published), None
    while (rate := knee.next) is not None:
        try:
            report = _measure(replace(load, rate=rate), target)
        except KeyboardInterrupt:  # between two loads
            if best is None:
                raise
            return replace(best, interrupted=True)
        held = bound.holds_for(report) and report.is_whole
        figure = f"{bound.name} {bound.figure(report):g}"
        busy = " (the load was busy)" if report.busy else ""
        word = "holds" if held else "does not hold"
        typer.echo(f"{rate:,.0f}/s: {figure}, {bound.text} {word}{busy}", err=True)
        if report.interrupted:
            return report
        if held or knee.best == 0:
            best = report
        knee.tried(held=held)
    assert best is not None
    each = " of each player" if load.profile == Profile.LIVE else ""
    typer.echo(f"{bound.text} holds up to {knee.best:,.0f} messages a second{each}.", err=True)
    return best


@contextmanager
def _server(target: TargetSettings) -> Iterator[tuple[str, OwnServer | None]]:
    if target.url is not None:
        yield target.url, None
    else:
        with own_server(target.redis) as server:
            yield server.url, server


def _measure(load: LoadSettings, target: TargetSettings) -> Report:
    """Measure one load; a server of the bench's own is a new one each time."""
    with _server(target) as (url, server):
        plan = Plan(
            address_of(url),
            load.dialect,
            load.size,
            load.warmup,
            load.warmup + load.duration,
            tuple(_members(load)),
            load.warmup + load.duration / 2 if load.profile == Profile.STORM else None,
        )
        with Watch(plan, server) as watch:
            measured = measure(plan, load.load_processes, watch)
    used, reads = watch.used(measured), watch.store_reads(measured)
    return make(measured, _settings(load, plan), _about(url), used, reads)


def _members(load: LoadSettings) -> Sequence[Member]:
    """Return who takes part, in rooms that nobody used before."""
    name, whole = f"bench-{secrets.token_hex(4)}", load.warmup + load.duration
    if load.profile == Profile.IDLE:
        return plans.idle(name, connections=load.connections)
    if load.profile != Profile.LIVE:
        return plans.broadcast(
            name,
            subscribers=load.subscribers,
            publishers=load.publishers,
            rate=load.published,
            duration=whole,
        )
    return plans.live(
        name, rooms=load.rooms, players=load.players, rate=load.published, duration=whole
    )


class Watch:
    """Looks at what a server uses, and shows at a terminal how far the load is."""

    def __init__(self, plan: Plan, server: OwnServer | None) -> None:
        self._plan = plan
        self._server = server
        self._uses: list[tuple[float, Use]] = []
        self._reads: list[tuple[float, int]] = []
        # When it was looked at last, and how many had come.
        self._came: deque[tuple[float, int]] = deque(maxlen=RATE_OVER)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[far]}"),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty() or os.environ.get("TERM") == "dumb",
        )
        self._task = self._bar.add_task("connecting", total=plan.duration, far="")
        self._note_use()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _note_use(self) -> None:
        if self._server is not None:
            self._uses.append((time.monotonic(), self._server.use()))

    def begin(self) -> None:
        """Note what the server used before the load."""
        self._note_use()
        self._bar.update(self._task, description="loading")

    def progress(self, seconds: float, progress: Sequence[HowFar]) -> None:
        """Show how far it is."""
        recent = Histogram()
        for each in progress:
            recent.merge(each.recent)
        p50, p99 = (time * 1000 for time in recent.percentiles((50, 99)))
        received = sum(each.received for each in progress)
        if self._server is not None and self._plan.cut_at is not None:
            reads = self._server.store_reads()
            if reads is not None:
                self._reads.append((seconds, reads))
        self._came.append((seconds, received))
        since, before = self._came[0]
        rate = (received - before) / (seconds - since) if seconds > since else 0.0
        far = f"{received:,} deliveries, {rate:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        self._bar.update(self._task, completed=max(0.0, seconds), far=far)

    def end(self) -> None:
        """Note what the server used by the load."""
        self._note_use()

    def store_reads(self, measured: Measured) -> int | None:
        """Return how many reads the store answered in a storm, until all were caught up.

        It is asked a few times a second: the reads of up to half a second more are among them.
        """
        cut_at = self._plan.cut_at
        if cut_at is None:
            return None
        end = cut_at + max(chain(*(result.caught_up for result in measured.results)), default=0.0)
        before = [reads for seconds, reads in self._reads if seconds <= cut_at]
        after = [reads for seconds, reads in self._reads if seconds >= end]
        return after[0] - before[-1] if before and after else None

    def used(self, measured: Measured) -> ServerUse | None:
        """Return what the load had the server use."""
        if self._server is None:
            return None
        (_, alone), (begin, before), (end, after) = self._uses
        cpu = after.cpu - before.cpu
        members = len(self._plan.members)
        return ServerUse(
            cpu_seconds=round(cpu, 3),
            cpu_share=round(cpu / (end - begin), 3),
            per_delivery=round(cpu * 1e6 / measured.received, 3) if measured.received else 0.0,
            memory_bytes=after.memory,
            memory_per_connection=max(0, before.memory - alone.memory) // members,
        )


def _settings(load: LoadSettings, plan: Plan) -> dict[str, Any]:
    """Return what was asked for, as it is reported."""
    listeners = plan.listeners
    return {
        "profile": load.profile,
        "connections": len(plan.members),
        "rooms": len(listeners),
        "listeners_per_message": max(listeners.values()),
        "publishers": sum(map(len, plan.publishers.values())),
        "rate": load.published,
        "size": load.size,
        "duration": load.duration,
        "warmup": load.warmup,
        "dialect": load.dialect,
        "load_processes": load.load_processes,
    }


def _about(url: str) -> dict[str, str]:
    return {
        "streamcast": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "url": url,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": str(os.cpu_count()),
    }


def _print(report: Report, wanted: ReportSettings) -> None:
    whole = json.dumps(report.as_object(), indent=2) + "\n"
    if wanted.html is not None:
        _write(wanted.html, page(report))
    if wanted.json == "-":
        sys.stdout.write(whole)
        return
    Console().print(shown(report))
    if wanted.json is not None:
        _write(wanted.json, whole)


def _write(file: str, text: str) -> None:
    try:
        Path(file).write_text(text)
    except OSError as error:
        raise StreamcastError(f"{file} can't be written: {error.strerror}.") from error
