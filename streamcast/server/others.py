"""What the workers of a server know of each other: a row each, in memory that they share.

The law of this file: each writes its own row and reads all. Nothing is asked and nothing waits, so
it can be looked at for every client that comes, and a worker that hangs holds nobody up. The parent
clears the row of a worker that has ended.
"""

import mmap
import os
import sys
import tempfile
import time
from collections.abc import Sequence

ROW = 64
"""Bytes: a line of the processor's cache."""
WORDS = ROW // 8
CLIENTS, ADMITTED, TOLD = range(3)
"""The numbers of a row, 8 bytes each, which are written at once; the state is behind them."""
STATE = 8 * 3
NOBODY = -1
"""The clients of one that accepts none."""
STATE_LASTS = 5.0
"""Seconds after which a state that was not told again says nothing any more."""
SILENT = "silent"
DOWN = "down"


class Rows:
    """The rows of so many workers. `descriptor`: of the memory; None: it is not shared."""

    def __init__(self, count: int, descriptor: int | None = None) -> None:
        self.count = count
        memory = mmap.mmap(-1 if descriptor is None else descriptor, count * ROW)
        self._bytes = memoryview(memory)
        self.numbers = self._bytes.cast("q")

    def clear(self, row: int) -> None:
        """Say that there is no such worker just now."""
        self.numbers[row * WORDS + CLIENTS] = NOBODY
        self.numbers[row * WORDS + ADMITTED] = 0
        self.tell(row, "")

    def tell(self, row: int, state: str) -> None:
        """Write a state, a short word."""
        start, end = row * ROW + STATE, (row + 1) * ROW
        self._bytes[start:end] = state.encode().ljust(end - start, b"\0")
        self.numbers[row * WORDS + TOLD] = time.monotonic_ns()

    def state(self, row: int) -> str:
        """Return what a worker told last; or that it has not, or not for a while."""
        told = bytes(self._bytes[row * ROW + STATE : (row + 1) * ROW]).rstrip(b"\0").decode()
        age = time.monotonic_ns() - self.numbers[row * WORDS + TOLD]
        if not told:
            return DOWN
        return SILENT if age > STATE_LASTS * 1e9 else told


def shared_memory(rows: int) -> int:
    """Return a descriptor of memory for cleared rows, which other processes may have too.

    Raises OSError.
    """
    if sys.platform == "linux":
        # Where a server may write no file, this works too.
        descriptor = os.memfd_create("streamcast")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, rows * ROW)
    cleared = Rows(rows, descriptor)
    for row in range(rows):
        cleared.clear(row)
    return descriptor


class Others:
    """What one worker says and hears; by itself, it is the only one.

    `admitted`: how many clients it serves.
    """

    def __init__(self, row: int = 0, rows: Rows | None = None) -> None:
        self._rows = rows or Rows(1)
        self._numbers = self._rows.numbers
        self._at = row * WORDS
        self._row = row

    def tell(self, state: str) -> None:
        """Say how this worker is, in a short word; again at least each second, or it is silent."""
        self._rows.tell(self._row, state)

    @property
    def count(self) -> int:
        """How many workers there are, this one included."""
        return self._rows.count

    @property
    def states(self) -> Sequence[str]:
        """How all are: the words they told, `silent` if not lately, `down` if not at all."""
        return [self._rows.state(row) for row in range(self._rows.count)]

    @property
    def admitted(self) -> int:
        """How many clients this worker serves."""
        return self._numbers[self._at + ADMITTED]

    @admitted.setter
    def admitted(self, count: int) -> None:
        self._numbers[self._at + ADMITTED] = count

    @property
    def admitted_by_all(self) -> int:
        """How many clients all workers serve."""
        return sum(self._numbers[ADMITTED::WORDS])

    @property
    def clients(self) -> int:
        """How many clients are connected to this worker."""
        return self._numbers[self._at + CLIENTS]

    @clients.setter
    def clients(self, count: int) -> None:
        self._numbers[self._at + CLIENTS] = count

    @property
    def fewest(self) -> int:
        """How many clients are connected to the worker that has the fewest, this one included."""
        found = [count for count in self._numbers[CLIENTS::WORDS] if count != NOBODY]
        return min(found, default=0)

    def accept_none(self) -> None:
        """Say that this worker accepts no more clients."""
        self._numbers[self._at + CLIENTS] = NOBODY
