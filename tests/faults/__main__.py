"""The cases of the fault suite, again and again, on each engine, with a table at the end."""

import argparse
import asyncio
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from tests.conftest import ENGINES
from tests.faults.cases import CASES, Case, Outcome
from tests.faults.stage import Stage


@dataclass
class Row:
    """What came of one case on one engine."""

    rounds: int = 0
    acknowledged: int = 0
    lost: int = 0
    gaps: int = 0
    slowest: float = 0.0
    broken: list[str] = field(default_factory=list)

    def play(self, case: Case, program: str) -> None:
        """Play it once."""
        self.rounds += 1
        try:
            with Stage(program) as stage:
                outcome = asyncio.run(self._run(case, stage))
                case.check(outcome)
        except AssertionError:
            self.broken.append(traceback.format_exc())
            return
        verdict = outcome.verdict
        self.acknowledged += verdict.acknowledged
        self.lost += verdict.lost.total()
        self.gaps += verdict.gaps.total()
        self.slowest = max(self.slowest, *outcome.recovered)

    @staticmethod
    async def _run(case: Case, stage: Stage) -> Outcome:
        return await case.run(stage)


def main() -> None:
    """Play for a while; exit code 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--case", default="", help="only those whose names have this in them")
    given = parser.parse_args()
    cases = [case for case in CASES if given.case in case.name]
    rows = {(engine, case.name): Row() for engine in sorted(ENGINES) for case in cases}
    end = time.monotonic() + given.minutes * 60
    with suppress(KeyboardInterrupt):
        play(cases, rows, end)
    Console(width=None if sys.stdout.isatty() else 120).print(table(rows))
    broken = [
        f"{name} on {engine}: {each}" for (engine, name), row in rows.items() for each in row.broken
    ]
    for each in broken:
        sys.stderr.write(f"{each}\n")
    sys.exit(bool(broken))


def play(cases: Sequence[Case], rows: dict[tuple[str, str], Row], end: float) -> None:
    """Play all cases in turn until the time is over; each at least once."""
    while True:
        for engine, program in sorted(ENGINES.items()):
            for case in cases:
                row = rows[engine, case.name]
                if time.monotonic() > end and row.rounds:
                    return
                row.play(case, program)
                said = "BROKEN" if row.broken else "held"
                sys.stderr.write(f"{engine}, {case.name}: {said}\n")


def table(rows: dict[tuple[str, str], Row]) -> Table:
    """Return what came of all."""
    made = Table(box=None, pad_edge=False)
    made.add_column("engine")
    made.add_column("case", no_wrap=True)
    for name in ("rounds", "acknowledged", "lost", "gaps told", "slowest, s", "broken"):
        made.add_column(name, justify="right")
    for (engine, name), row in rows.items():
        numbers = (row.rounds, row.acknowledged, row.lost, row.gaps)
        made.add_row(
            engine,
            name,
            *(f"{number:,}" for number in numbers),
            f"{row.slowest:.1f}",
            str(len(row.broken)),
        )
    return made


if __name__ == "__main__":
    main()
