"""Many measured times in little space.

The law of this file: a time is off by at most half a percent, wherever it came from and however
often histograms were merged; what is counted is never thinned out.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

PRECISION = 1.01
"""How much larger each bucket is than the one before."""
SHORTEST = 1e-6
"""Seconds; what is shorter counts as this."""

_BUCKETS_PER_E = 1 / math.log(PRECISION)


def bucket_of(seconds: float) -> int:
    """Return the bucket that a time belongs to."""
    if seconds <= SHORTEST:
        return 0
    return int(math.log(seconds / SHORTEST) * _BUCKETS_PER_E + 0.5)


def time_in(bucket: int) -> float:
    """Return the time that stands for a bucket, in seconds."""
    return SHORTEST * PRECISION**bucket


class Histogram:
    """Times by bucket; the longest one is kept as it was."""

    def __init__(self, counts: Mapping[int, int] | None = None, longest: float = 0.0) -> None:
        self.counts = Counter(counts)
        self.longest = longest

    @property
    def total(self) -> int:
        """How many times were measured."""
        return self.counts.total()

    def add(self, seconds: float, count: int = 1) -> None:
        """Count a time."""
        self.counts[bucket_of(seconds)] += count
        self.longest = max(self.longest, seconds)

    def merge(self, other: "Histogram") -> None:
        """Count what another one has counted."""
        self.counts.update(other.counts)
        self.longest = max(self.longest, other.longest)

    def times(self) -> list[tuple[float, int]]:
        """Return the times that were counted, in seconds and ascending, each with its count."""
        return [(time_in(bucket), count) for bucket, count in sorted(self.counts.items())]

    def percentile(self, percent: float) -> float:
        """Return the time that so many percent don't exceed, in seconds; 0 if there is none."""
        return self.percentiles([percent])[0]

    def percentiles(self, percents: Iterable[float]) -> list[float]:
        """Return several, in ascending order of what is asked for (the nearest-rank method)."""
        found = []
        buckets = iter(sorted(self.counts.items()))
        bucket, seen, total = 0, 0, self.total
        for percent in percents:
            rank = max(1, math.ceil(total * percent / 100 - 1e-9))
            while seen < rank <= total:
                bucket, count = next(buckets)
                seen += count
            found.append(min(time_in(bucket), self.longest) if total else 0.0)
        return found
