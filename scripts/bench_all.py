"""The table of docs/performance.md: what streamcast does on this machine, against the yardsticks.

Each figure is the median of the rounds. A ratio is taken in each round, between two servers that
ran right after another; the median of those is told.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.arena import NODE_ARTICLE, SIZE, Arena, Outcome, Peer, streamcast
from streamcast.bench.plan import Member, broadcast, idle, live
from streamcast.bench.schedule import Schedule

JSON, PLAIN = "streamcast, JSON", "streamcast, plain"
YARDSTICK, JOINING = "yardstick", "yardstick, joining"
ARTICLE = "the article's server"
CLIENTS = 10_000

Figures = Mapping[str, float]
"""What a round found, by what it is of and whose; times in ms, shares in percent of a core."""


@dataclass(frozen=True)
class Row:
    """A line of the table: `figure` is held against `least` and `aim`; lower is better, or higher.

    `measure` returns it for each dialect that can do the work, and whatever is to be told beside.
    """

    work: str
    figure: str
    least: float
    aim: float
    measure: Callable[["Stage"], Figures]
    higher: bool = False


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
        self.faults: list[str] = []

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
        if not report.is_whole and name in {JSON, PLAIN}:
            self.faults.append(f"{name}: {report.faults}, {report.disconnected} disconnected")
        if report.busy and name in {JSON, PLAIN}:
            self.faults.append(f"{name}: the load itself was busy ({max(report.load):.0%})")
        return outcome


def _room() -> str:
    return f"room-{os.urandom(4).hex()}"


def _broadcast(subscribers: int, rate: float, **more: int) -> Callable[[float], tuple[Member, ...]]:
    publishers = more.get("publishers", 1)
    return lambda duration: broadcast(
        _room(), subscribers=subscribers, publishers=publishers, rate=rate, duration=duration
    )


def _p50(outcome: Outcome) -> float:
    return outcome.report.latency.percentiles["p50"]


def _p99(outcome: Outcome) -> float:
    return outcome.report.latency.percentiles["p99"]


def _against_yardstick(subscribers: int, rate: float) -> Callable[[Stage], Figures]:
    def measure(stage: Stage) -> Figures:
        members = _broadcast(subscribers, rate)
        cpu = {name: stage.run(name, members).cpu for name in stage.peers}
        told = {f"{name}, µs": cpu[name] for name in stage.peers}
        return told | {name: cpu[name] / cpu[YARDSTICK] for name in (JSON, PLAIN)}

    return measure


def _a_million(stage: Stage) -> Figures:
    found = {name: stage.run(name, _broadcast(1000, 1000)) for name in (JSON, PLAIN)}
    p50 = {f"{name}, p50": _p50(outcome) for name, outcome in found.items()}
    return p50 | {name: _p99(outcome) for name, outcome in found.items()}


def _live(of: str) -> Callable[[Stage], Figures]:
    """2,000 rooms of 5. `of`: which of its figures is the row's."""

    def measure(stage: Stage) -> Figures:
        def members(duration: float) -> tuple[Member, ...]:
            return live(_room(), rooms=2000, players=5, rate=1, duration=duration)

        figures: dict[str, float] = {}
        for name in (JSON, PLAIN):
            outcome = stage.run(name, members, warmup=3.0)
            report = outcome.report
            found = {"cpu": 100 * outcome.server, "p50": _p50(outcome), "p99": _p99(outcome)}
            figures[name] = found[of]
            figures[f"{name}, redis %"] = 100 * outcome.store
            figures[f"{name}, msg/s"] = report.published / (report.seconds + 3.0)
        return figures

    return measure


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


def _many_rooms(of: str) -> Callable[[Stage], Figures]:
    def measure(stage: Stage) -> Figures:
        outcome = stage.run(JSON, lambda duration: _ring(CLIENTS, 2000, duration), warmup=6.0)
        found = {"redis": 100 * outcome.store, "p99": _p99(outcome)}
        return {JSON: found[of], "server %": 100 * outcome.server}

    return measure


def _publishers(*, keyed: bool) -> Callable[[Stage], Figures]:
    def measure(stage: Stage) -> Figures:
        outcome = stage.run(JSON, _broadcast(2, 20_000, publishers=50), keyed=keyed)
        return {JSON: _p99(outcome), "p50": _p50(outcome), "server %": 100 * outcome.server}

    return measure


def _idle(of: str) -> Callable[[Stage], Figures]:
    def measure(stage: Stage) -> Figures:
        figures = {}
        for name in (JSON, PLAIN):
            room = _room()
            # Longer than from one ping to the next.
            outcome = stage.run(
                name, lambda _, room=room: idle(room, connections=CLIENTS), warmup=5, duration=25
            )
            rate = outcome.report.connections_per_s
            found = {"memory": outcome.memory / 1000, "cpu": 100 * outcome.server, "opened": rate}
            figures[name] = found[of]
        return figures

    return measure


def _storm(stage: Stage) -> Figures:
    outcome = stage.run(JSON, _broadcast(CLIENTS, 10), duration=12.0, cut_at=4.0)
    assert outcome.report.caught_up is not None
    return {JSON: outcome.report.caught_up.max / 1000}


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


def _small_beside_huge(stage: Stage) -> Figures:
    return {
        name: _p99(stage.run(name, lambda duration: _beside(8000, 20, duration)))
        for name in (JSON, PLAIN)
    }


def _quiet(stage: Stage) -> Figures:
    p50 = {name: _p50(stage.run(name, _broadcast(10, 20))) for name in (JSON, PLAIN, ARTICLE)}
    return {f"{name}, ms": p50[name] for name in p50} | {
        name: p50[name] / p50[ARTICLE] for name in (JSON, PLAIN)
    }


def _stalled(stage: Stage) -> Figures:
    def members(duration: float, stalled: int) -> tuple[Member, ...]:
        speaker, *others = broadcast(
            _room(), subscribers=1000, publishers=1, rate=200, duration=duration
        )
        return (speaker, *(replace(e, stalls=n < stalled) for n, e in enumerate(others)))

    figures = {}
    for name in (JSON, PLAIN):
        # By the end of the warm-up they have had more than sockets and server take for them.
        none = stage.run(name, lambda duration: members(duration, 0), warmup=8.0)
        tenth = stage.run(name, lambda duration: members(duration, 100), warmup=8.0)
        figures |= {f"{name}, none, ms": _p99(none), f"{name}, a tenth, ms": _p99(tenth)}
        figures[name] = _p99(tenth) / _p99(none)
    return figures


LIVE = "2,000 rooms of 5, 10,000 msg/s in"
ROOMS = "10,000 rooms of two, 2,000 msg/s over all"
IDLE = "10,000 idle connections"
ROWS = {
    "1000x100": Row(
        "1,000 subscribers, 100 msg/s",
        "CPU a delivery ÷ yardstick's",
        1.3,
        1.1,
        _against_yardstick(1000, 100),
    ),
    "200x500": Row(
        "200 subscribers, 500 msg/s",
        "CPU a delivery ÷ yardstick's",
        1.5,
        1.2,
        _against_yardstick(200, 500),
    ),
    "million": Row("1,000 subscribers, 1,000 msg/s", "p99, ms", 25, 10, _a_million),
    "live-cpu": Row(LIVE, "CPU, % of a core", 85, 60, _live("cpu")),
    "live-p50": Row(LIVE, "p50, ms", 1, 0.5, _live("p50")),
    "live-p99": Row(LIVE, "p99, ms", 25, 10, _live("p99")),
    "rooms-cpu": Row(ROOMS, "Redis' CPU, % of a core", 12, 8, _many_rooms("redis")),
    "rooms-p99": Row(ROOMS, "p99, ms", 10, 3, _many_rooms("p99")),
    "publish": Row("50 publishers, 20,000 msg/s", "p99, ms", 10, 5, _publishers(keyed=False)),
    "publish-key": Row("the same, with keys", "p99, ms", 20, 10, _publishers(keyed=True)),
    "idle-memory": Row(IDLE, "memory a connection, KB", 6, 3.5, _idle("memory")),
    "idle-cpu": Row(IDLE, "CPU with pings, % of a core", 2, 1, _idle("cpu")),
    "opened": Row(IDLE, "opened and joined a second", 6000, 9000, _idle("opened"), higher=True),
    "storm": Row("10,000 clients back in a room of 10 msg/s", "caught up after, s", 4, 2, _storm),
    "beside": Row(
        "100 small rooms beside one of 8,000 at 20 msg/s",
        "p99 of the small, ms",
        15,
        5,
        _small_beside_huge,
    ),
    "quiet": Row("10 subscribers, 20 msg/s", "p50 ÷ the article's server's", 1.1, 0.7, _quiet),
    "stalled": Row(
        "1,000 subscribers, a tenth not reading",
        "p99 of the others ÷ with none stalled",
        1.2,
        1.05,
        _stalled,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=6.0, help="seconds measured, mostly")
    parser.add_argument("--rows", default=",".join(ROWS), help=", ".join(ROWS))
    parser.add_argument("--serve", help="another `streamcast serve` than this checkout's")
    given = parser.parse_args()
    arena = Arena()
    try:
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage(arena, _yardstick(Path(folder)), given.duration, given.serve)
            lines = []
            for name in given.rows.split(","):
                print(name, file=sys.stderr)
                lines.append(
                    _line(ROWS[name], [ROWS[name].measure(stage) for _ in range(given.rounds)])
                )
        print(_table(lines))
        for fault in stage.faults:
            print(f"Not whole: {fault}.")
        rounds = f"Median of {given.rounds} rounds of mostly {given.duration:g} s"
        print(f"\n{rounds}, messages of {SIZE} bytes; {arena.footer()}")
    finally:
        arena.close()


def _yardstick(folder: Path) -> Path:
    program = folder / "yardstick"
    source = Path(__file__).parent / "yardstick.c"
    subprocess.run(["cc", "-O2", "-o", str(program), str(source)], check=True)
    return program


def _line(row: Row, rounds: Sequence[Figures]) -> str:
    figures = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    ours = {name: figures.pop(name) for name in (JSON, PLAIN) if name in figures}
    cells = [row.work, row.figure, f"{row.least:g}", f"{row.aim:g}"]
    cells += [_judged(row, ours[name]) if name in ours else "" for name in (JSON, PLAIN)]
    cells.append("; ".join(f"{name} {value:.3g}" for name, value in figures.items()))
    return f"| {' | '.join(cells)} |"


def _judged(row: Row, value: float) -> str:
    def holds(bound: float) -> bool:
        return value >= bound if row.higher else value <= bound

    mark = " ✓✓" if holds(row.aim) else " ✓" if holds(row.least) else " ✗"
    return f"{value:,.3g}{mark}" if value < 1000 else f"{value:,.0f}{mark}"


def _table(lines: Sequence[str]) -> str:
    head = "| work | figure | at least | aim | JSON | plain | beside |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *lines])


if __name__ == "__main__":
    main()
