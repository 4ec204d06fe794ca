"""The newest items of a room, kept in memory.

The law of this file: the items are everything that the stream held behind `floor`, in order, gaps
among them. An index counts the items of a room since it was opened and never goes down.
"""

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter

from streamcast.message import ZERO, Gap, Item, Message, MessageId

ITEM_OVERHEAD = 330
"""Bytes of memory that an item costs beside its payload."""
FIELD_OVERHEAD = 42
"""The same of each name and value of a foreign entry."""

BEFORE = -(1 << 62)
"""An index before every window."""


class Window:
    """A run of items from index `start` up to, but not including, `end`.

    `floor` is the position before the first item, and `floor_fingerprint` that of the entry there
    (None if it is not known); `whole` says that nothing is missing between the two, so that one who
    has seen `floor` may go on from here. Below `solid`, an index may have stood for another item
    before: what was evicted and read again need not be as many.
    """

    __slots__ = (
        "end",
        "floor",
        "floor_fingerprint",
        "gaps",
        "items",
        "size",
        "solid",
        "start",
        "whole",
    )

    def __init__(self, floor: MessageId, fingerprint: int | None) -> None:
        self.items: list[Item] = []
        self.start = self.end = 0
        self.solid = BEFORE
        self.floor, self.floor_fingerprint = floor, fingerprint
        self.whole = True
        self.size = 0
        self.gaps = 0

    def append(self, items: Sequence[Item]) -> None:
        """Add newer items."""
        self.items += items
        self.end += len(items)
        size = self.size
        for item in items:
            if isinstance(item, Gap):
                self.gaps += 1
                size += ITEM_OVERHEAD
            elif item.fields is not None or item.data is None:
                size += _weight(item)
            else:
                # As _weight says, in place: each message comes by here.
                size += ITEM_OVERHEAD + item.size
        self.size = size

    def prepend(
        self,
        entries: Sequence[Message],
        floor: MessageId,
        fingerprint: int | None,
        *,
        whole: bool,
    ) -> None:
        """Add older entries, in order, and move the floor down to before them."""
        self.items[:0] = entries
        self.start -= len(entries)
        self.size += sum(map(_weight, entries))
        self.floor, self.floor_fingerprint, self.whole = floor, fingerprint, whole

    def evict(self, limit: int, keep_from: int) -> None:
        """Forget the oldest items until `limit` bytes are left, none from index `keep_from` on."""
        count = 0
        most = keep_from - self.start
        while self.size > limit and count < most:
            self.size -= _weight(self.items[count])
            self.gaps -= isinstance(self.items[count], Gap)
            count += 1
        if count:
            last = self.items[count - 1]
            self.floor, self.whole = last.id, isinstance(last, Message)
            self.floor_fingerprint = last.fingerprint if isinstance(last, Message) else None
            del self.items[:count]
            self.start += count
            self.solid = max(self.solid, self.start)

    def reset(self, floor: MessageId, fingerprint: int | None, *, whole: bool) -> None:
        """Forget everything; the history is another one."""
        self.start = self.solid = self.end
        self.items = []
        self.size = self.gaps = 0
        self.floor, self.floor_fingerprint, self.whole = floor, fingerprint, whole

    def find(self, id: MessageId, fingerprint: int | None = None) -> int | None:
        """Return the index behind the entry `id`, None if it isn't there to go on from.

        It is another one, too, if it has not that fingerprint.
        """
        if id == self.floor:
            if not self.whole:
                return None
            behind, known = self.start, self.floor_fingerprint
        else:
            index = bisect_left(self.items, id, key=_id)
            item = self.items[index] if index < len(self.items) else None
            if not isinstance(item, Message) or item.id != id:
                return None
            behind, known = self.start + index + 1, item.fingerprint
        return behind if fingerprint is None or known in {None, fingerprint} else None

    def first_after(self, id: MessageId) -> int:
        """Return the index of the first item that is not behind `id`."""
        return self.start + bisect_left(self.items, id, key=_id)

    def page(self, start: int, end: int, limit: int) -> tuple[Sequence[Item], int]:
        """Return items from `start` to at most `end`, up to `limit` bytes, and where they end."""
        items = self.items[start - self.start : end - self.start]
        count = fitting(items, 0, limit)
        return items[:count], start + count

    def before(self, index: int) -> tuple[MessageId, int | None]:
        """Return ID and fingerprint of the entry that a place at `index` stands behind."""
        if index == self.start:
            return self.floor, self.floor_fingerprint
        item = self.items[index - 1 - self.start]
        if isinstance(item, Gap):
            return item.latest if item.earliest is None else item.resume, None
        return item.id, item.fingerprint

    def has_gap_from(self, index: int) -> bool:
        """Whether a gap is among the items from `index` on."""
        if not self.gaps:
            return False
        return any(isinstance(item, Gap) for item in self.items[index - self.start :])

    def earliest(self, index: int) -> MessageId | None:
        """Return the ID of the first message from `index` on."""
        for item in self.items[index - self.start :]:
            if isinstance(item, Message):
                return item.id
        return None

    def fingerprints(self, end: int) -> dict[MessageId, int]:
        """Return the fingerprints of the messages before index `end`, by their ID.

        That of the entry at the floor is among them: right behind a reset, or in a room just
        opened, it is the only one that an older history can be known by.
        """
        items = self.items[: max(0, end - self.start)]
        found = {item.id: item.fingerprint for item in items if isinstance(item, Message)}
        if self.floor_fingerprint is not None:
            found[self.floor] = self.floor_fingerprint
        return found

    def back(self, count: int) -> int | None:
        """Return the index before the newest `count` messages, None if not so many are here."""
        for index in range(len(self.items) - 1, -1, -1):
            if count == 0:
                return self.start + index + 1
            if isinstance(self.items[index], Message):
                count -= 1
        return self.start if count == 0 else None

    @property
    def reaches_beginning(self) -> bool:
        """Whether nothing older can be read."""
        return self.floor == ZERO


_id = attrgetter("id")


def fitting(items: Sequence[Item], start: int, limit: int) -> int:
    """Return where items from `start` on end that have `limit` bytes at most, or are only one.

    They don't end between a gap and the message that it says comes next.
    """
    size, stop = 0, start
    for item in items[start:]:
        size += _weight(item)
        if stop > start and size > limit and not isinstance(items[stop - 1], Gap):
            break
        stop += 1
    return stop


def _weight(item: Item) -> int:
    if isinstance(item, Gap) or item.data is None:
        return ITEM_OVERHEAD
    size = ITEM_OVERHEAD + item.size
    return size if item.fields is None else size + FIELD_OVERHEAD * len(item.fields)
