"""Where a member starts in a room.

The law of this file: nobody is placed where something may be missing behind its place without a
gap that says so; what can't be known from the window is asked for.
"""

from enum import Enum, auto
from typing import NamedTuple

from streamcast.cursor import Mark
from streamcast.message import ZERO, Gap, MessageId
from streamcast.room import Room
from streamcast.window import BEFORE
from streamcast.wire import Start


class Need(Enum):
    """What has to happen before a join can be placed."""

    FRESH = auto()
    """The stream has to be read up to now, and what was read has to be handed out."""
    OLDER = auto()
    """Older entries have to be read into the window."""
    STORE = auto()
    """It starts before what the window can hold: the store has to be asked."""


class Placed(NamedTuple):
    """Where a member starts; `gap` is told before its first message."""

    mark: Mark
    resumed: bool = False
    gap: Gap | None = None


def locate(room: Room, start: Start, *, fresh: bool) -> Placed | Need:
    """Find where a member starts, or what is needed to find it.

    `fresh`: the stream was read, and all of it handed out, since the join was asked for.
    """
    if start.after is not None:
        return _after(room, start.after, fresh=fresh)
    if start.everything:
        return _everything(room)
    return _last(room, start.last or 0)


def _after(room: Room, after: MessageId, *, fresh: bool) -> Placed | Need:
    window = room.window
    if after > room.position.id:
        # Another server may have read further; only a fresh read tells the future.
        return Need.STORE if fresh else Need.FRESH
    if after < window.floor:
        return Need.OLDER if room.may_grow else Need.STORE
    found = window.find(after)
    index = window.first_after(after) if found is None else found
    if index > room.tip.index:
        return Need.FRESH
    if found is None:
        gap = Gap(after, window.earliest(index), room.position.id, after)
        return Placed(room.mark_at(index, told=gap.earliest), gap=gap)
    return Placed(room.mark_at(index), resumed=not window.has_gap_from(index))


def _everything(room: Room) -> Placed | Need:
    if room.window.reaches_beginning:
        index = room.window.start
        while index < room.tip.index and isinstance(
            room.window.items[index - room.window.start], Gap
        ):
            index += 1
        return Placed(room.mark_at(index, told=ZERO))
    if room.may_grow:
        return Need.OLDER
    return Placed(Mark(BEFORE, ZERO, None, room.history, told=ZERO))


def _last(room: Room, count: int) -> Placed | Need:
    if count == 0:
        return Placed(room.tip)
    index = room.window.back(count)
    if index is None:
        if not room.window.reaches_beginning:
            return Need.OLDER if room.may_grow else Need.STORE
        # Fewer are kept: it starts with the first, as one does who asks for everything.
        return Placed(room.mark_at(min(room.window.start, room.tip.index), told=ZERO))
    return Placed(room.mark_at(min(index, room.tip.index)))
