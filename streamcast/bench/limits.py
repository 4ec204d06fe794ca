"""Bounds that a run has to keep, as people write them, such as `p99>50ms` or `lost>0`.

The law of this file: it is pure. A bound names a figure of the report, and says when the run fails.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from streamcast.bench.report import PERCENTS, Report

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LIMIT = re.compile(r"\s*([a-z][a-z0-9_.]*)\s*(<=|>=|<|>)\s*([0-9][0-9.e+]*)\s*(us|µs|ms|s)?\s*")
_MILLISECONDS = {"us": 0.001, "µs": 0.001, "ms": 1.0, "s": 1000.0}
_TIMES = {f"p{percent:g}" for percent in PERCENTS} | {"max"}
_COUNTS: Mapping[str, Callable[[Report], float]] = {
    "lost": lambda report: report.faults.lost,
    "duplicate": lambda report: report.faults.duplicate,
    "out_of_order": lambda report: report.faults.out_of_order,
    "unknown": lambda report: report.faults.unknown,
    "refused": lambda report: report.refused,
    "disconnected": lambda report: report.disconnected,
    "messages_per_s": lambda report: report.rates["messages_per_s"],
    "deliveries_per_s": lambda report: report.rates["deliveries_per_s"],
    "mb_per_s": lambda report: report.rates["mb_per_s"],
}


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure and a value in its unit: milliseconds for times. `text`: as it was written."""

    text: str
    name: str
    compare: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "Limit":
        """Read one. Raises ValueError."""
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no bound; write one like p99>50ms or lost>0.")
        name, compare, value, unit = match.groups()
        is_time = name.removeprefix("last_") in _TIMES or name == "worst"
        if not is_time and name not in _COUNTS:
            times = ", ".join(sorted(_TIMES))
            counts = ", ".join(_COUNTS)
            raise ValueError(
                f"There is no figure {name!r}; there are {times}, each with last_ in front too, "
                f"worst, {counts}."
            )
        if is_time and unit is None:
            raise ValueError(f"{text!r} needs a unit, as in {name}{compare}50ms.")
        if not is_time and unit is not None:
            raise ValueError(f"{name} is no time; write {text!r} without the {unit}.")
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"{value!r} in {text!r} is not a number.") from None
        return cls(text, name, compare, number * _MILLISECONDS.get(unit or "", 1.0))

    def holds_for(self, report: Report) -> bool:
        """Whether what is written is so."""
        return _COMPARE[self.compare](self.figure(report), self.value)

    def figure(self, report: Report) -> float:
        """Return the figure that it is about."""
        if self.name in _COUNTS:
            return _COUNTS[self.name](report)
        if self.name == "worst":
            return report.worst
        times = report.last if self.name.startswith("last_") else report.latency
        name = self.name.removeprefix("last_")
        return times.max if name == "max" else times.percentiles[name]
