"""The table of docs/performance.md: what streamcast does on this machine, against the yardsticks.

Each figure is the median of the rounds. A ratio is taken in each round, between servers that ran
in it one after the other; the median of those is told.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.arena import NODE_ARTICLE, SIZE, Arena, Outcome, Peer, streamcast
from streamcast.bench.plan import Member, broadcast, idle, live
from streamcast.bench.schedule import Schedule

JSON, PLAIN = OURS = "streamcast, JSON", "streamcast, plain"
YARDSTICK, JOINING = "yardstick", "yardstick, joining"
ARTICLE = "the article's server"
CLIENTS = 10_000


@dataclass(frozen=True)
class Bound:
    """What a figure of a work is held against; lower is better, or higher."""

    figure: str
    least: float
    aim: float
    higher: bool = False

    def judged(self, value: float) -> str:
        """Return the value, and whether it is what it has to be (✓), or aims to be (✓✓)."""
        mark = (
            "✓✓" if self._holds(value, self.aim) else "✓" if self._holds(value, self.least) else "✗"
        )
        return f"{value:,.0f} {mark}" if value >= 100 else f"{value:.3g} {mark}"

    def _holds(self, value: float, bound: float) -> bool:
        return value >= bound if self.higher else value <= bound


@dataclass(frozen=True)
class Work:
    """What a server is to do, and what is measured of it.

    `measure` returns, for each dialect that can do it, a figure for each bound, in their order; and
    whatever is to be told beside.
    """

    name: str
    bounds: Sequence[Bound]
    measure: Callable[["Stage"], "Round"]


@dataclass(frozen=True)
class Round:
    """What one round found out; times in ms, shares in percent of a core."""

    ours: Mapping[str, Sequence[float]]
    beside: Mapping[str, float]


class Stage:
    """Runs the servers of the table."""

    def __init__(self, arena: Arena, yardstick: Path, duration: float, serve: str | None) -> None:
        self._arena = arena
        self._duration = duration
        self.peers = {
            JSON: streamcast(JSON, "json", serve),
            PLAIN: streamcast(PLAIN, "plain", serve),
            YARDSTICK: Peer(YARDSTICK, "plain", [str(yardstick), "{port}"]),
            JOINING: Peer(JOINING, "plain", [str(yardstick), "{port}", "join"]),
            ARTICLE: Peer(ARTICLE, "plain", [*NODE_ARTICLE, "one"]),
        }
        self.remarks: Counter[str] = Counter()

    def run(
        self,
        name: str,
        members: Callable[[float], tuple[Member, ...]],
        *,
        warmup: float = 1.0,
        duration: float | None = None,
        **more: object,
    ) -> Outcome:
        """Measure a server; `members` is given how long they publish. What went wrong is noted."""
        duration = duration or self._duration
        outcome = self._arena.run(
            self.peers[name], members(warmup + duration), warmup=warmup, duration=duration, **more
        )
        report = outcome.report
        told = (
            f"{name}: {report.latency.percentiles['p50']} / {report.latency.percentiles['p99']} ms"
        )
        print(f"  {told}, server {outcome.server:.0%} of a core", file=sys.stderr)
        if not report.is_whole:
            self.remarks[f"{name}: not whole, {report.faults}"] += 1
        if report.busy:
            self.remarks[f"{name}: the load itself was busy, which its times contain"] += 1
        return outcome


def _room() -> str:
    return f"room-{os.urandom(4).hex()}"


def _broadcast(
    subscribers: int, rate: float, publishers: int = 1
) -> Callable[[float], tuple[Member, ...]]:
    return lambda duration: broadcast(
        _room(), subscribers=subscribers, publishers=publishers, rate=rate, duration=duration
    )


def _p50(outcome: Outcome) -> float:
    return outcome.report.latency.percentiles["p50"]


def _p99(outcome: Outcome) -> float:
    return outcome.report.latency.percentiles["p99"]


def _against_yardstick(subscribers: int, rate: float) -> Callable[[Stage], Round]:
    def measure(stage: Stage) -> Round:
        members = _broadcast(subscribers, rate)
        cpu = {name: stage.run(name, members).cpu for name in stage.peers}
        ours = {name: [cpu[name] / cpu[YARDSTICK]] for name in OURS}
        return Round(ours, {f"{name}, µs": cpu[name] for name in stage.peers})

    return measure


def _a_million(stage: Stage) -> Round:
    found = {name: stage.run(name, _broadcast(1000, 1000)) for name in OURS}
    p50 = {f"{name}, p50": _p50(outcome) for name, outcome in found.items()}
    return Round({name: [_p99(outcome)] for name, outcome in found.items()}, p50)


def _live(stage: Stage) -> Round:
    def members(duration: float) -> tuple[Member, ...]:
        return live(_room(), rooms=2000, players=5, rate=1, duration=duration)

    found = {name: stage.run(name, members, warmup=3.0) for name in OURS}
    ours = {name: [100 * each.server, _p50(each), _p99(each)] for name, each in found.items()}
    beside = {f"{name}, Redis %": 100 * each.store for name, each in found.items()}
    least = stage.run(YARDSTICK, members, warmup=3.0)
    beside |= {f"{YARDSTICK}, %": 100 * least.server, f"{YARDSTICK}, p50": _p50(least)}
    return Round(ours, beside)


def _ring(rooms: int, rate: float, duration: float) -> tuple[Member, ...]:
    """Return so many rooms of two, and as many members, each in two rooms: a ring."""
    prefix, each = _room(), rate / rooms
    return tuple(
        Member(
            f"{prefix}-{number}",
            True,
            Schedule(number, each, number / rooms / each, duration),
            more=(f"{prefix}-{(number + 1) % rooms}",),
        )
        for number in range(rooms)
    )


def _many_rooms(stage: Stage) -> Round:
    # Once around takes 5 s: by then each room has been read.
    outcome = stage.run(JSON, lambda duration: _ring(CLIENTS, 2000, duration), warmup=6.0)
    return Round({JSON: [100 * outcome.store, _p99(outcome)]}, {"server %": 100 * outcome.server})


def _publishers(*, keyed: bool) -> Callable[[Stage], Round]:
    def measure(stage: Stage) -> Round:
        outcome = stage.run(JSON, _broadcast(2, 20_000, publishers=50), keyed=keyed)
        beside = {"p50": _p50(outcome), "server %": 100 * outcome.server}
        return Round({JSON: [_p99(outcome)]}, beside)

    return measure


def _idle(stage: Stage) -> Round:
    def members(_duration: float) -> tuple[Member, ...]:
        return idle(_room(), connections=CLIENTS)

    # A connection is pinged when nothing came from it between two visits, 20 s apart; so the third
    # visit is the first that pings, and from then on each one does.
    found = {name: stage.run(name, members, warmup=60.0, duration=40.0) for name in OURS}
    ours = {
        name: [each.memory / 1000, 100 * each.server, each.report.connections_per_s]
        for name, each in found.items()
    }
    return Round(ours, {})


def _storm(stage: Stage) -> Round:
    outcome = stage.run(JSON, _broadcast(CLIENTS, 10), duration=12.0, cut_at=4.0)
    caught_up = outcome.report.caught_up
    assert caught_up is not None
    return Round({JSON: [caught_up.max / 1000]}, {"p50, s": caught_up.percentiles["p50"] / 1000})


def _beside(subscribers: int, rate: float, duration: float) -> tuple[Member, ...]:
    """Return one huge room, which is not measured, and 100 of five players, which are."""
    huge = broadcast(_room(), subscribers=subscribers, publishers=1, rate=rate, duration=duration)
    small = live(_room(), rooms=100, players=5, rate=1, duration=duration)
    shifted = [
        replace(each, schedule=replace(each.schedule, publisher=each.schedule.publisher + 1))
        for each in small
        if each.schedule is not None
    ]
    return (*(replace(each, counts=False) for each in huge), *shifted)


def _small_beside_huge(stage: Stage) -> Round:
    found = {name: stage.run(name, lambda time: _beside(8000, 20, time)) for name in OURS}
    shares = {f"{name}, server %": 100 * each.server for name, each in found.items()}
    return Round({name: [_p99(each)] for name, each in found.items()}, shares)


def _quiet(stage: Stage) -> Round:
    p50 = {name: _p50(stage.run(name, _broadcast(10, 20))) for name in (*OURS, ARTICLE)}
    ours = {name: [p50[name] / p50[ARTICLE]] for name in OURS}
    return Round(ours, {f"{name}, ms": each for name, each in p50.items()})


def _stalled(stage: Stage) -> Round:
    def members(duration: float, stalled: int) -> tuple[Member, ...]:
        speaker, *others = broadcast(
            _room(), subscribers=1000, publishers=1, rate=200, duration=duration
        )
        return (speaker, *(replace(e, stalls=n < stalled) for n, e in enumerate(others)))

    ours, beside = {}, {}
    for name in OURS:
        # By the end of the warm-up they have had more than sockets and server take for them.
        none = _p99(stage.run(name, lambda time: members(time, 0), warmup=8.0))
        tenth = _p99(stage.run(name, lambda time: members(time, 100), warmup=8.0))
        ours[name] = [tenth / none]
        beside |= {f"{name}, none, ms": none, f"{name}, a tenth, ms": tenth}
    return Round(ours, beside)


OF_YARDSTICK = "CPU a delivery ÷ yardstick's"
WORKS = {
    "1000x100": Work(
        "1,000 subscribers, 100 msg/s",
        [Bound(OF_YARDSTICK, 1.3, 1.1)],
        _against_yardstick(1000, 100),
    ),
    "200x500": Work(
        "200 subscribers, 500 msg/s", [Bound(OF_YARDSTICK, 1.5, 1.2)], _against_yardstick(200, 500)
    ),
    "million": Work("1,000 subscribers, 1,000 msg/s", [Bound("p99, ms", 25, 10)], _a_million),
    "live": Work(
        "2,000 rooms of 5, 10,000 msg/s in",
        [
            Bound("CPU, % of a core", 85, 60),
            Bound("p50, ms", 1, 0.5),
            Bound("p99, ms", 25, 10),
        ],
        _live,
    ),
    "rooms": Work(
        "10,000 rooms of two, 2,000 msg/s over all",
        [Bound("Redis' CPU, % of a core", 12, 8), Bound("p99, ms", 10, 3)],
        _many_rooms,
    ),
    "publish": Work(
        "50 publishers, 20,000 msg/s", [Bound("p99, ms", 10, 5)], _publishers(keyed=False)
    ),
    "publish-key": Work(
        "the same, each message with a key", [Bound("p99, ms", 20, 10)], _publishers(keyed=True)
    ),
    "idle": Work(
        "10,000 idle connections",
        [
            Bound("memory a connection, KB", 6, 3.5),
            Bound("CPU with pings, % of a core", 2, 1),
            Bound("opened and joined a second", 6000, 9000, higher=True),
        ],
        _idle,
    ),
    "storm": Work(
        "10,000 clients back in a room of 10 msg/s", [Bound("caught up after, s", 4, 2)], _storm
    ),
    "beside": Work(
        "100 small rooms beside one of 8,000 at 20 msg/s",
        [Bound("p99 of the small, ms", 15, 5)],
        _small_beside_huge,
    ),
    "quiet": Work(
        "10 subscribers, 20 msg/s", [Bound("p50 ÷ the article's server's", 1.1, 0.7)], _quiet
    ),
    "stalled": Work(
        "1,000 subscribers, a tenth not reading",
        [Bound("p99 of the others ÷ with none stalled", 1.2, 1.05)],
        _stalled,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=6.0, help="seconds measured, mostly")
    parser.add_argument("--works", default=",".join(WORKS), help=", ".join(WORKS))
    parser.add_argument("--serve", help="another `streamcast serve` than this checkout's")
    given = parser.parse_args()
    arena = Arena()
    try:
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage(arena, _yardstick(Path(folder)), given.duration, given.serve)
            print("| work | figure | at least | aim | JSON | plain | beside |")
            print("|---|---|---|---|---|---|---|")
            for name in given.works.split(","):
                print(name, file=sys.stderr)
                work = WORKS[name]
                rounds = [work.measure(stage) for _ in range(given.rounds)]
                print("\n".join(_lines(work, rounds)), flush=True)
        for remark, times in stage.remarks.items():
            print(f"\n{remark}: {times} of all runs.")
        told = f"Median of {given.rounds} rounds of mostly {given.duration:g} s"
        slow, fast = arena.speeds
        python = f"a million steps of Python took {fast:.0f} to {slow:.0f} ms"
        print(f"\n{told}, messages of {SIZE} bytes; {python}; {arena.footer()}")
    finally:
        arena.close()


def _yardstick(folder: Path) -> Path:
    program = folder / "yardstick"
    source = Path(__file__).parent / "yardstick.c"
    subprocess.run(["cc", "-O2", "-o", str(program), str(source)], check=True)
    return program


def _lines(work: Work, rounds: Sequence[Round]) -> Iterator[str]:
    """Return a line of the table for each bound."""
    medians = {
        name: statistics.median(each.beside[name] for each in rounds) for name in rounds[0].beside
    }
    beside = "; ".join(f"{name} {value:.3g}" for name, value in medians.items())
    for number, bound in enumerate(work.bounds):
        cells = ["" if number else work.name, bound.figure, f"{bound.least:,g}", f"{bound.aim:,g}"]
        for name in OURS:
            values = [each.ours[name][number] for each in rounds if name in each.ours]
            cells.append(bound.judged(statistics.median(values)) if values else "")
        cells.append("" if number else beside)
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
