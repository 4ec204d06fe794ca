"""When each message is due, and how it is known again when it comes.

The law of this file: it is pure. A message is due at a time that does not depend on how those
before it fared; it carries that time, from which its latency counts, so that a stall is not hidden
by a sender that waited for it (coordinated omission).
"""

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

FILLING = b"x"
SMALLEST = 48
"""Bytes that a payload needs for what is written in it."""


class Mark(NamedTuple):
    """What a payload says: who published it, as which of its messages, due at which time.

    `due`: microseconds since the load began.
    """

    publisher: int
    number: int
    due: int


def payload(mark: Mark, size: int) -> bytes:
    """Return a payload of so many bytes. The mark is its end: what is cut off has none."""
    end = b"~%d %d %d~" % (mark.publisher, mark.number, mark.due)
    return end.rjust(size, FILLING)


def mark_of(data: bytes, size: int) -> Mark | None:
    """Return the mark in a payload; None if it is none that was published."""
    try:
        filling, written, rest = data.split(b"~")
        publisher, number, due = written.split(b" ")
        mark = Mark(int(publisher), int(number), int(due))
    except ValueError:
        return None
    return mark if len(data) == size and not rest and not filling.strip(FILLING) else None


@dataclass(frozen=True, slots=True)
class Schedule:
    """One publisher's messages: `rate` a second, the first one `offset` seconds after the begin."""

    publisher: int
    rate: float
    offset: float
    duration: float

    @property
    def count(self) -> int:
        """How many are due before the end."""
        return max(0, ceil((self.duration - self.offset) * self.rate - 1e-9))

    def due(self, number: int) -> float:
        """Return when a message is due, in seconds since the load began."""
        return self.offset + number / self.rate

    def mark(self, number: int) -> Mark:
        """Return what is written in a message."""
        return Mark(self.publisher, number, round(self.due(number) * 1e6))
