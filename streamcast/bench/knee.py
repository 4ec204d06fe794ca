"""The highest rate at which a bound holds.

The law of this file: it is pure; whoever asks for the next rate runs it.
"""

STEPS = 5
"""How often the interval is halved, once it is known."""
GROWTH = 2.0


class Knee:
    """Doubles a rate until the bound breaks, then halves the interval in between.

    `best`: the highest rate at which it held, 0 if at none.
    """

    def __init__(self, first: float) -> None:
        self.best = 0.0
        self._broken: float | None = None
        self._next: float | None = first
        self._left = STEPS

    @property
    def next(self) -> float | None:
        """The rate to try; None: it is found."""
        return self._next

    def tried(self, *, held: bool) -> None:
        """Take in whether the bound held at the rate that was to be tried."""
        rate = self._next
        assert rate is not None
        if held:
            self.best = max(self.best, rate)
        else:
            self._broken = rate
        if self._broken is None:
            self._next = rate * GROWTH
        elif self._left == 0:
            self._next = None
        else:
            self._left -= 1
            self._next = (self.best + self._broken) / 2
