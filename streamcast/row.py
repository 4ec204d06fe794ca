"""The live members of a room, in a row for each dialect.

The law of this file: a live member has no place of its own, the room's is its; so nothing of it is
read or changed for a message, and a round is no more than writing to one outlet after the other.
"""

from streamcast.cursor import Cursor
from streamcast.outlet import Failed, Writes, write_each
from streamcast.wire import Batch, Dialect

FEW = 8
"""How many empty seats are not worth doing away with."""


class Nobody:
    """Takes what is written to where a member left."""

    def write(self, data: bytes) -> int:
        """Take all of it."""
        return len(data)


NOBODY = Nobody()


class Row:
    """Live members who are spoken to alike, each in a seat.

    A round goes along the seats; those from `next` to before `stop` are what it has still to reach.
    Who sits down meanwhile sits behind `stop`, and who leaves moves nobody. `batch`: what the round
    writes here, from when it is encoded until it has reached all.
    """

    __slots__ = ("_empty", "batch", "cursors", "dialect", "next", "outlets", "stop")

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.batch: Batch | None = None
        self.cursors: list[Cursor | None] = []
        self.outlets: list[Writes] = []
        self.next = self.stop = 0
        self._empty = 0

    def sit(self, cursor: Cursor) -> None:
        """Give a member a seat."""
        if self.is_done and self._is_mostly_empty:
            self._close_up()
        cursor.seat = len(self.outlets)
        self.cursors.append(cursor)
        self.outlets.append(cursor.sink.outlet)

    def leave(self, cursor: Cursor) -> None:
        """Take a member's seat back."""
        self.cursors[cursor.seat] = None
        self.outlets[cursor.seat] = NOBODY
        self._empty += 1

    def begin(self) -> None:
        """Begin a round along those who sit here now."""
        if self._empty and self._is_mostly_empty:
            self._close_up()
        self.next, self.stop = 0, len(self.outlets)

    @property
    def is_done(self) -> bool:
        """Whether the round has reached all whom it was to reach."""
        return self.next == self.stop

    def is_to_come(self, cursor: Cursor) -> bool:
        """Whether the round has still to reach a member who sits here."""
        return self.next <= cursor.seat < self.stop

    def hand_out(self, batch: Batch, limit: int) -> int:
        """Write to the next `limit` seats; return how many members were written to."""
        start, stop, data = self.next, self.stop, batch.data
        if stop - start > limit:
            stop = start + limit
        else:
            self.batch = None
        self.next = stop
        count = stop - start
        if self._empty:
            count -= self.cursors[start:stop].count(None)
        failed = write_each(self.outlets, data, start, stop) if data else ()
        if failed or batch.close is not None:
            self._part(start, stop, failed, batch)
        return count if data else 0

    def _part(self, start: int, stop: int, failed: Failed, batch: Batch) -> None:
        """Tell those who did not take all; close all if the batch says so."""
        # Whoever is told may leave its seat for that.
        reached = self.cursors[start:stop]
        for index, how in failed:
            cursor = reached[index - start]
            assert cursor is not None, "an empty seat takes all"
            if isinstance(how, int):
                cursor.sink.fell_short(batch.data, how)
            else:
                cursor.sink.broke(batch.data, how)
        if batch.close is not None:
            for cursor in reached:
                if cursor is not None:
                    cursor.sink.close(batch.close)

    @property
    def _is_mostly_empty(self) -> bool:
        # Where all are, not even the encoding is for anybody.
        seats = len(self.outlets)
        return self._empty > FEW + seats // 2 or self._empty == seats > 0

    def _close_up(self) -> None:
        """Do away with the empty seats."""
        cursors = [cursor for cursor in self.cursors if cursor is not None]
        self.outlets = [cursor.sink.outlet for cursor in cursors]
        for seat, cursor in enumerate(cursors):
            cursor.seat = seat
        self.cursors = [*cursors]
        self.next = self.stop = self._empty = 0
