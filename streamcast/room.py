"""A room: what was read of its stream, who is in it, and who has seen how much.

The law of this file: a member is live if it holds the room's `tip`, and then it gets every round;
otherwise it is behind and gets nothing until it has caught up, and the last step of catching up
and being live are one. A round is the span that the tip moves by at once, and goes to those who
were live then; one who is so no more before the round has come to it stays where the tip was.
Everything here is synchronous.
"""

import sys
from collections.abc import Mapping, Sequence

from streamcast.cursor import Cursor, Mark, encoded
from streamcast.message import ZERO, Gap, Item, Message, MessageId
from streamcast.proof import (
    EXAMINE,
    Position,
    Progress,
    Read,
    Reply,
    StreamInfo,
    advance,
    next_read,
    page,
    progress,
)
from streamcast.row import Row
from streamcast.window import BEFORE, Window, fitting

PAGE_BYTES = 64 * 1024
"""How much a round writes to a member at once."""
PIECE_BYTES = 16 * 1024
"""How much is written to one that catches up before it is looked whether its socket takes more.
What that does not take, the server holds for each alone."""
READ_BYTES = 4 * PAGE_BYTES
"""How much a read asks for. One for a member that catches up asks for a page: what the member's
socket does not take of it was read for nothing."""
FIRST_ENTRY_SIZE = 16 * 1024
"""How large entries are taken to be before any was seen."""
MAX_COUNT = 500
"""How many entries a read asks for at most."""


class Room:
    """One stream and its members on this server.

    `window_limit`: how many bytes of newest messages are kept.
    """

    __slots__ = (
        "_again",
        "_entry_size",
        "_round",
        "_round_start",
        "_rows",
        "count",
        "delivered",
        "history",
        "members",
        "name",
        "position",
        "tip",
        "window",
        "window_limit",
    )

    def __init__(self, name: str, info: StreamInfo, window_limit: int) -> None:
        self.name = name
        self.position = Position.at_end(info)
        self.window = Window(self.position.id, self.position.fingerprint)
        self.window_limit = window_limit
        self.history = 0
        self.tip = Mark(0, self.position.id, self.position.fingerprint, 0)
        self.members: dict[Cursor, None] = {}
        self.delivered = 0
        self._rows: list[Row] = []
        # What the round under way brings, if one is, and where the tip was before it.
        self._round: Sequence[Item] = ()
        self._round_start = self.tip.copy()
        self._again: Read | None = None
        self._entry_size: int | None = None
        # How many entries to ask for at once.
        self.count = _count(FIRST_ENTRY_SIZE)

    # Reading the stream

    @property
    def is_proving(self) -> bool:
        """Whether what was read last proves nothing yet, and it is read again."""
        return self._again is not None

    @property
    def has_room(self) -> bool:
        """Whether more may be read: what waits to be handed out is bounded."""
        return self.window.end - self.tip.index < MAX_COUNT

    def next_read(self, announced: bool) -> Read | None:
        """Return what to ask the store next; nothing while it has no room for more."""
        if self.window.end - self.tip.index >= MAX_COUNT:
            # As has_room says, in place.
            return None
        if self._again is not None:
            return self._again
        return next_read(self.position, self.count, announced)

    def received(self, read: Read, reply: Reply) -> bool:
        """Take in an answer. Returns whether there is more to read at once."""
        self.measure(reply.entries)
        if reply.continues:
            # As in `progress`, in place: nearly all do, and each message comes by here.
            self._again = None
            items: Sequence[Item] = reply.entries
            position, more = advance(self.position, reply), not reply.complete
        else:
            went = progress(self.position, read, reply, self._seen)
            self._again = went.again
            if went.again is not None:
                return True
            if went.reset:
                self._reset(went, read.known or {})
                return went.more
            items, position, more = went.items, went.position, went.more
        if items:
            window = self.window
            window.append(items)
            if window.size > self.window_limit:
                window.evict(self.window_limit, self.tip.index)
        self.position = position
        return more

    def _reset(self, went: Progress, known: Mapping[MessageId, int]) -> None:
        """Go over to another history: the round under way ends, and one that tells of it begins.

        So the tip never is of the old one. What was read but not handed out, the gap covers.
        """
        if self._round:
            self.hand_out(sys.maxsize)
        gap, *messages = went.items
        assert isinstance(gap, Gap)
        self.window.reset(gap.resume, known.get(gap.resume), whole=went.whole)
        self.window.append([gap._replace(after=self.tip.id), *messages])
        self.history += 1
        self.position = went.position
        self._begin_round()

    def _seen(self) -> Mapping[MessageId, int]:
        """Return the fingerprints of the messages that were handed out, by their ID."""
        return self.window.fingerprints(self.tip.index)

    def measure(self, entries: Sequence[Message]) -> None:
        """Follow the size of entries, so that a read of them has about READ_BYTES."""
        if not entries:
            return
        size = entries[0].size
        if len(entries) > 1:
            size = sum([entry.size for entry in entries]) // len(entries)
        before = self._entry_size
        if size != before:
            before = size if before is None else before
            self._entry_size = max(size, (3 * before + size) // 4)
            self.count = _count(self._entry_size)

    # Fan-out

    def _begin_round(self) -> Sequence[Item]:
        """Start handing out what was read since the last round; return it, empty if it is none."""
        tip, window = self.tip, self.window
        # Right behind a reset, everything from there on is news.
        index = tip.index if tip.history == self.history else window.start
        if index != window.end:
            self._round_start = tip.copy()
            tip.history = self.history
            if index + 1 == window.end:
                # What nearly all are; one item is never too much.
                self._round, tip.index = window.items[-1:], window.end
            else:
                self._round, tip.index = window.page(index, window.end, PAGE_BYTES)
            tip.id, tip.fingerprint = self._before(tip.index)
            for row in self._rows:
                row.begin()
        return self._round

    def hand_out(self, limit: int) -> bool:
        """Write what is new to at most `limit` more members. Returns whether there is more."""
        items = self._round or self._begin_round()
        for row in self._rows:
            before = row.next
            if before == row.stop:
                continue
            if row.batch is None:
                row.batch = encoded(self.name, row.dialect, items)
            self.delivered += row.hand_out(row.batch, limit) * len(items)
            if row.next != row.stop:
                return True
            limit -= row.next - before
        self._round = ()
        return self.tip.index != self.window.end

    def _before(self, index: int) -> tuple[MessageId, int | None]:
        """Return ID and fingerprint of the entry that a place at `index` stands behind."""
        if index == self.window.end:
            return self.position.id, self.position.fingerprint
        return self.window.before(index)

    # Members

    def mark_at(self, index: int, *, told: MessageId | None = None) -> Mark:
        """Return a place, given as an index; `told`: see `Mark`."""
        if index == self.tip.index:
            return self.tip
        return Mark(index, *self._before(index), self.history, told=told)

    def add(self, cursor: Cursor, mark: Mark) -> None:
        """Make a member, at its place."""
        self.members[cursor] = None
        self._put(cursor, mark)

    def remove(self, cursor: Cursor) -> None:
        """End a membership; the rest of a round passes it by."""
        if self.is_live(cursor):
            self._row_of(cursor).leave(cursor)
        cursor.mark = None
        self.members.pop(cursor, None)

    def is_live(self, cursor: Cursor) -> bool:
        """Whether a member has all that was handed out, or a round is about to reach it."""
        return cursor.mark is self.tip

    def pause(self, cursor: Cursor) -> None:
        """Leave a member where it is: its sink takes no more."""
        if self.is_live(cursor):
            row = self._row_of(cursor)
            if self._round and row.is_to_come(cursor):
                cursor.mark = self._round_start
            else:
                cursor.mark = self.tip.copy()
            row.leave(cursor)

    def _put(self, cursor: Cursor, mark: Mark) -> None:
        """Give a member its place; at the tip it is live, if its sink takes more."""
        if mark is not self.tip:
            cursor.mark = mark
        elif cursor.sink.writable:
            cursor.mark = mark
            self._row_of(cursor).sit(cursor)
        else:
            cursor.mark = mark.copy()

    def _row_of(self, cursor: Cursor) -> Row:
        """Return the row of those who speak as a member does."""
        dialect = cursor.sink.dialect
        for row in self._rows:
            if row.dialect is dialect:
                return row
        row = Row(dialect)
        self._rows.append(row)
        return row

    # Catching up

    def catch_up(self, cursor: Cursor) -> Read | None:
        """Write to a member what it has not seen, until it is live or takes no more.

        Returns what to ask the store where the window does not go back to the member's place.
        """
        while cursor.sink.writable and cursor.mark is not None and not self.is_live(cursor):
            index = self._index(cursor.mark)
            if index is None:
                count = self.count * PAGE_BYTES // READ_BYTES
                return Read(EXAMINE, cursor.mark.id, max(1, count) + 1)
            items, index = self.window.page(index, self.tip.index, PIECE_BYTES)
            self._put(cursor, self.mark_at(index))
            self._hand(cursor, items)
        return None

    def caught(self, cursor: Cursor, mark: Mark, history: int, reply: Reply) -> None:
        """Write a page that was read, in this `history`, for a member that stood at `mark`.

        What its sink does not take of it is dropped, and read again for it later. The room must
        have read on since. It is for nothing if the member takes no more or stands elsewhere by
        now, or the room.
        """
        if cursor.mark is not mark or history != self.history or not cursor.sink.writable:
            return
        gap, entries = page(mark.id, mark.fingerprint, reply)
        last = reply.info.last if reply.info is not None else mark.id
        if gap is not None and gap.resume != mark.id:
            # It is from a history that is gone. What there is now is read from the beginning.
            cursor.mark = Mark(BEFORE, ZERO, None, history, lost=mark.id)
            return
        if mark.id > self.tip.id or (entries and entries[0].id > self.position.id):
            # It is ahead of what the room has handed out; or the page is of what is gone by now.
            return
        entries, reaches_tip = self._up_to_tip(entries, last, complete=reply.complete)
        if mark.lost is not None or mark.history != history:
            # What it lost with the old history, none can tell.
            gap = Gap(mark.lost or mark.id, None, last, mark.id)
            gap = gap._replace(earliest=entries[0].id) if entries else gap
        elif mark.told == ZERO or (entries and mark.told == entries[0].id):
            gap = None
        if gap is not None and reaches_tip and not entries:
            # The next round goes on from the tip; the gap is what lies before.
            gap = gap._replace(earliest=None, latest=self.tip.id)
        if reaches_tip:
            mark = self.tip
        elif entries:
            mark = Mark(BEFORE, entries[-1].id, entries[-1].fingerprint, history)
        else:
            mark = Mark(BEFORE, last, None, history)
        self._hand_page(cursor, entries if gap is None else [gap, *entries], mark)

    def _hand_page(self, cursor: Cursor, items: Sequence[Item], end: Mark) -> None:
        """Write items, which end at `end`, to a member: piece by piece, while it takes more."""
        start = 0
        while True:
            stop = fitting(items, start, PIECE_BYTES)
            mark = end
            if stop < len(items):
                last = items[stop - 1]
                assert isinstance(last, Message), "no piece ends with a gap that a message follows"
                mark = Mark(BEFORE, last.id, last.fingerprint, self.history)
            self._put(cursor, mark)
            self._hand(cursor, items[start:stop])
            if mark is end or cursor.mark is not mark or not cursor.sink.writable:
                return
            start = stop

    def _up_to_tip(
        self, entries: Sequence[Message], last: MessageId, *, complete: bool
    ) -> tuple[Sequence[Message], bool]:
        """Cut off what later rounds will bring. Returns whether the page goes up to the tip."""
        tip = self.tip.id
        if entries and entries[-1].id > tip:
            return [entry for entry in entries if entry.id <= tip], True
        return entries, complete and last >= tip

    def _index(self, mark: Mark) -> int | None:
        """Return where a place is in the window, None if it is before it."""
        if mark.history != self.history:
            return None
        if mark.index >= max(self.window.start, self.window.solid):
            return mark.index
        if mark.told == ZERO or mark.lost is not None:
            return None
        index = self.window.find(mark.id, mark.fingerprint)
        # One that is ahead of what was handed out has to wait for that.
        return None if index is None or index > self.tip.index else index

    def _hand(self, cursor: Cursor, items: Sequence[Item]) -> None:
        if items:
            self.delivered += len(items)
            cursor.take(items)

    # The window

    @property
    def may_grow(self) -> bool:
        """Whether older entries may be read into the window."""
        return not self.window.reaches_beginning and self.window.size < self.window_limit // 2

    def older(self, floor: MessageId, history: int, entries: Sequence[Message], asked: int) -> None:
        """Put entries in front of the window: the `asked` newest (2 or more) from `floor` down.

        They come newest first, as XREVRANGE has them, and the room must have read on since. They
        are for nothing if the window's floor has moved meanwhile.
        """
        if self.history != history or self.window.floor != floor:
            return
        self.measure(entries)
        entries = entries[::-1]
        if len(entries) == asked:
            first, *others = entries
            self.window.prepend(others, first.id, first.fingerprint, whole=True)
            return
        kept = len(entries) + sum(isinstance(item, Message) for item in self.window.items)
        self.window.prepend(entries, ZERO, None, whole=self.position.added == kept)

    def shrink(self) -> None:
        """Forget all that was handed out."""
        self.window.evict(0, self.tip.index)


def _count(size: int) -> int:
    """Return how many entries of a size a read asks for."""
    return max(1, min(MAX_COUNT, READ_BYTES // (size + 1)))
