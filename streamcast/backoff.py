"""How long to wait before something that failed is tried again.

The law of this file: pauses grow while attempts come one upon the other, also where each succeeds
for a moment; and those who lost the same thing together don't all come back at one instant.
"""

import random
import time
from collections.abc import Callable

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
"""Seconds, before the jitter, which takes up to half of them."""
CALM = 10.0
"""Seconds without an attempt, after which pauses begin small again. More than an attempt takes."""


class Backoff:
    """The pauses before attempts at one thing: `first` and `longest`, in seconds.

    `clock`: monotonic seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        first: float = FIRST_PAUSE,
        longest: float = LONGEST_PAUSE,
    ) -> None:
        self._clock = clock
        self._first = first
        self._longest = longest
        self._asked = float("-inf")
        self._pause = first

    def pause(self) -> float:
        """Return how many seconds to wait before the next attempt."""
        now = self._clock()
        calm = now - self._asked > CALM
        self._asked = now
        self._pause = self._first if calm else min(2 * self._pause, self._longest)
        return self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
