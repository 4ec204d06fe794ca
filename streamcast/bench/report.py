"""What a load found out, as figures: for people, for programs, for a page.

The law of this file: it is pure, and nothing is averaged that was merged from several processes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from streamcast.bench.histogram import Histogram
from streamcast.bench.reception import Faults
from streamcast.bench.run import Measured

SCHEMA = 1
"""Grows when a member of the JSON changes its meaning or goes away."""
PERCENTS = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)
BUSY = 0.8
"""A process of the load that used more of a core may itself have been what was slow."""


def _name(percent: float) -> str:
    return f"p{percent:g}"


@dataclass(frozen=True, slots=True)
class Times:
    """Percentiles of many times, in milliseconds; `max` is exact."""

    count: int
    percentiles: Mapping[str, float]
    max: float

    @classmethod
    def of(cls, histogram: Histogram) -> "Times":
        """Return those of a histogram."""
        found = histogram.percentiles(PERCENTS)
        named = {_name(p): _ms(time) for p, time in zip(PERCENTS, found, strict=True)}
        return cls(histogram.total, named, _ms(histogram.longest))


@dataclass(frozen=True, slots=True)
class ServerUse:
    """What a server that the bench started has used. `per_delivery`: microseconds of CPU."""

    cpu_seconds: float
    cpu_share: float
    per_delivery: float
    memory_bytes: int
    memory_per_connection: int


@dataclass(frozen=True, slots=True)
class Second:
    """What was due in one second of the load."""

    second: int
    deliveries: int
    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Report:
    """What one run found out. Times are milliseconds, from when a message was due.

    `last`: until the last listener of its room had a message. `worst`: the p99 of the listener
    whose p99 was the worst. `caught_up`: until those who lost their connections at one moment were
    back and had all that was due until they were; `behind`: how many never got in; `store_reads`:
    how many reads the store answered meanwhile. `load`: how much of a core each process of the load
    used.
    """

    settings: Mapping[str, Any]
    published: int
    deliveries: int
    seconds: float
    latency: Times
    last: Times
    worst: float
    faults: Faults
    connections_per_s: float
    caught_up: Times | None
    behind: int
    store_reads: int | None
    refused: int
    disconnected: int
    load: Sequence[float]
    load_per_delivery: float
    over_time: Sequence[Second]
    buckets: Sequence[tuple[float, int]]
    server: ServerUse | None = None
    interrupted: bool = False
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost, doubled, swapped, refused or cut."""
        faults = self.faults
        wrong = faults.lost + faults.duplicate + faults.out_of_order + faults.unknown
        return not (wrong or self.refused or self.disconnected or self.behind)

    @property
    def busy(self) -> bool:
        """Whether the load itself may have been what was slow."""
        return any(share > BUSY for share in self.load)

    @property
    def rates(self) -> dict[str, float]:
        """What was done in a second of the measured time."""
        size = self.settings["size"]
        per_second = self.deliveries / self.seconds if self.seconds else 0.0
        listeners = max(self.settings["listeners_per_message"], 1)
        return {
            "messages_per_s": per_second / listeners,
            "deliveries_per_s": per_second,
            "mb_per_s": per_second * size / 1e6,
        }

    def as_object(self) -> dict[str, Any]:
        """Return everything, as JSON has it; README says what it means."""
        return {
            "schema": SCHEMA,
            "about": dict(self.about),
            "settings": dict(self.settings),
            "interrupted": self.interrupted,
            "published": self.published,
            "deliveries": self.deliveries,
            "seconds": round(self.seconds, 3),
            "rates": {name: round(rate, 6) for name, rate in self.rates.items()},
            "latency_ms": _object(self.latency),
            "last_receiver_ms": _object(self.last),
            "worst_receiver_p99_ms": self.worst,
            "connections_per_s": self.connections_per_s,
            "caught_up_ms": None if self.caught_up is None else _object(self.caught_up),
            "behind": self.behind,
            "store_reads": self.store_reads,
            "faults": asdict(self.faults)
            | {"refused": self.refused, "disconnected": self.disconnected},
            "load": {
                "cpu_shares": list(self.load),
                "us_per_delivery": self.load_per_delivery,
                "busy": self.busy,
            },
            "server": None if self.server is None else asdict(self.server),
            "over_time": [asdict(each) for each in self.over_time],
            "histogram_ms": [[time, count] for time, count in self.buckets],
        }


def make(
    measured: Measured,
    settings: Mapping[str, Any],
    about: Mapping[str, str],
    server: ServerUse | None,
    store_reads: int | None = None,
) -> Report:
    """Add up what the processes of a load found out."""
    results = measured.results
    faults, latencies, over_time = Faults(), Histogram(), []
    for result in results:
        faults.add(result.faults)
    for second in sorted({each for result in results for each in result.latencies}):
        of_second = Histogram()
        for result in results:
            if second in result.latencies:
                of_second.merge(result.latencies[second])
        latencies.merge(of_second)
        p50, p99 = of_second.percentiles((50, 99))
        longest = _ms(of_second.longest)
        over_time.append(Second(second, of_second.total, _ms(p50), _ms(p99), longest))
    cpu = sum(result.cpu for result in results)
    # A server that is behind delivers on after the end: its rates are over that time too.
    latest = max((result.latest for result in results), default=0.0)
    return Report(
        settings=settings,
        published=measured.published,
        deliveries=latencies.total,
        seconds=round(max(measured.seconds, latest - measured.plan.warmup), 3),
        latency=Times.of(latencies),
        last=Times.of(_last(measured)),
        worst=_ms(max((result.worst for result in results), default=0.0)),
        faults=faults,
        connections_per_s=round(len(measured.plan.members) / measured.opened, 1),
        caught_up=_caught_up(measured),
        behind=sum(result.behind for result in results),
        store_reads=store_reads,
        refused=sum(result.refused for result in results),
        disconnected=sum(result.disconnected for result in results),
        load=[round(result.cpu / result.wall, 3) if result.wall else 0.0 for result in results],
        load_per_delivery=round(cpu * 1e6 / measured.received, 3) if measured.received else 0.0,
        over_time=over_time,
        buckets=[(_ms(time), count) for time, count in latencies.times()],
        server=server,
        interrupted=measured.interrupted,
        about=about,
    )


def _caught_up(measured: Measured) -> Times | None:
    """Return the times until those who had lost their connections had the newest again."""
    if measured.plan.cut_at is None:
        return None
    found = Histogram()
    for result in measured.results:
        for seconds in result.caught_up:
            found.add(seconds)
    return Times.of(found)


def _last(measured: Measured) -> Histogram:
    """Return the times until the last listener had a message, of those that all of them had."""
    listeners = measured.plan.listeners
    room_of = {
        publisher: room
        for room, publishers in measured.plan.publishers.items()
        for publisher in publishers
    }
    counts: dict[tuple[int, int], tuple[int, float]] = {}
    for result in measured.results:
        for key, (count, last) in result.last.items():
            before, longest = counts.get(key, (0, 0.0))
            counts[key] = (before + count, max(longest, last))
    found = Histogram()
    for (publisher, _), (count, last) in counts.items():
        if count == listeners[room_of[publisher]]:
            found.add(last)
    return found


def written(milliseconds: float) -> str:
    """Return a time as people read it: what is longer needs fewer digits behind the point."""
    digits = 2 if milliseconds < 10 else 1 if milliseconds < 100 else 0
    return f"{milliseconds:,.{digits}f}"


def _object(times: Times) -> dict[str, Any]:
    return {"count": times.count, **times.percentiles, "max": times.max}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
