"""Proof that nothing was missed, as a function of what was read.

The law of this file: positions go forward only over entries that provably followed one another in
one history of the stream; where that can't be proved there is a gap. Nothing here waits or does
I/O: a `Read` says what to ask the store, `progress` says what its answer means.

A position is the last entry read, that entry's fingerprint, and the stream's `entries-added` at it
(XINFO STREAM). A plain read is inclusive: it starts at the position's own entry, and finding it
again, equal, at the head proves that nothing in between was trimmed and that it is still the same
history. If it is not there, one MULTI/EXEC of XINFO STREAM and the read is examined: nothing was
missed if the entries after the position number exactly what was added since.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from streamcast.message import ZERO, Gap, Item, Message, MessageId

MAX_RECOUNT = 2_000
"""How many entries an examination reads at most to prove that none is missing."""


class Kind(Enum):
    """How the store is asked."""

    RESOLVE = "XINFO STREAM"
    RANGE = "XRANGE"
    EXAMINE = "MULTI, XINFO STREAM, XRANGE, EXEC"


# As names of their own: an enum looks for its member each time (before Python 3.12).
RESOLVE, RANGE, EXAMINE = Kind


class Read(Struct, gc=False):
    """What to ask the store: up to `limit` entries from `start` on, `start` included.

    `announced`: the stream is known to have changed, perhaps only since it was asked. `known`: on
    the way back after a reset, the fingerprints of the messages that were read before, by their ID.
    `fingerprint`: that which the entry `start` had; None: no entry of the answer is compared.
    """

    kind: Kind
    start: MessageId
    limit: int
    announced: bool = False
    known: Mapping[MessageId, int] | None = None
    fingerprint: int | None = None


class StreamInfo(Struct, frozen=True, gc=False):
    """XINFO STREAM; a stream that does not exist is all zeros.

    `last` is last-generated-id, `added` entries-added, `first` the ID of the first entry kept (0-0
    if none is), `last_fingerprint` that of the entry `last` if it is still kept.
    """

    length: int = 0
    last: MessageId = ZERO
    added: int = 0
    first: MessageId = ZERO
    last_fingerprint: int | None = None


class Reply(Struct, frozen=True, gc=False):
    """The store's answer to a `Read`; `info` only where it was examined.

    `complete`: the entries reach the end of the stream. `continues`: in front of them was the entry
    that the read started at, equal to what was read before, which is not among them.
    """

    entries: Sequence[Message]
    complete: bool
    info: StreamInfo | None = None
    exists: bool = True
    continues: bool = False


class Position(Struct, frozen=True, gc=False):
    """How far a stream was read.

    `fingerprint` is None if the entry `id` was not there to be read. `added` is None where
    entries-added is not known at this entry.
    """

    id: MessageId
    added: int | None
    fingerprint: int | None

    @classmethod
    def at_end(cls, info: StreamInfo) -> "Position":
        """Return the position at the end of the stream."""
        return cls(info.last, info.added, info.last_fingerprint)


class Progress(Struct, frozen=True, gc=False):
    """What a reply means: items to hand on, the position after them, and what to read next.

    `again` is set where the reply proves nothing yet; then there are no items. `more`: the stream
    goes on behind this reply. `reset`: the history is another one; what was kept of the old one
    must be forgotten. `whole`: of all that the new one held behind the gap's `resume`, nothing is
    missing.
    """

    items: Sequence[Item]
    position: Position
    more: bool = False
    again: Read | None = None
    reset: bool = False
    whole: bool = False


Known = Callable[[], Mapping[MessageId, int]]


def next_read(at: Position, count: int, announced: bool) -> Read:
    """Return the read that goes on from `at` with at most `count` new entries."""
    provable = at.fingerprint is not None and at.added is not None
    kind = RANGE if provable else EXAMINE
    return Read(kind, at.id, count + 1, announced, None, at.fingerprint)


def progress(at: Position, read: Read, reply: Reply, known: Known) -> Progress:
    """Tell what `reply` to `read` means for a reader who is at `at`, and was when he asked.

    `known` returns the fingerprints of the messages read so far that are still remembered.
    """
    if reply.continues:
        return Progress(reply.entries, advance(at, reply), more=not reply.complete)
    if read.known is not None:
        return _back_after_reset(at, read, reply)
    if reply.info is None:
        return Progress((), at, again=replace(read, kind=EXAMINE))
    return _examine(at, read, reply, reply.info, known)


def page(
    at: MessageId, fingerprint: int | None, reply: Reply
) -> tuple[Gap | None, Sequence[Message]]:
    """Tell what an examined `reply` read from `at` means for one who only knows an entry.

    Such a reader has no count: his entry must be there, or be the newest ID, or be 0-0 with every
    entry that was ever added still kept. Returns a gap, or None, and the messages after it. Where
    the gap says to resume from 0-0, those have to be read again from there.
    """
    info = reply.info or StreamInfo()
    entries = reply.entries
    if entries and entries[0].id == at:
        if fingerprint in {None, entries[0].fingerprint}:
            return None, entries[1:]
    elif at == info.last or (at == ZERO and info.added == info.length):
        return None, entries
    if at > info.last:
        return Gap(at, None, info.last, ZERO), ()
    return _gap(at, at, entries, info), entries


def advance(at: Position, reply: Reply) -> Position:
    """Go on over the entries of a reply, which provably follow `at`."""
    entries = reply.entries
    if reply.info is not None and reply.complete:
        added: int | None = reply.info.added
    else:
        added = None if at.added is None else at.added + len(entries)
    if not entries:
        return replace(at, added=added)
    return Position(entries[-1].id, added, entries[-1].fingerprint)


def _examine(at: Position, read: Read, reply: Reply, info: StreamInfo, known: Known) -> Progress:
    entries = reply.entries
    another_content = bool(entries) and entries[0].id == at.id
    if another_content or _is_another_history(at, info):
        return Progress((), at, again=_way_back(read, known()))
    if info.last == at.id and at.added in {None, info.added}:
        if read.announced and not reply.exists:
            # It was added to and deleted between the announcement and this read.
            return Progress([_gap(at.id, at.id, (), info)], Position.at_end(info))
        return Progress((), replace(at, added=info.added))
    expected = None if at.added is None else info.added - at.added
    if info.first > at.id or info.length == 0:
        stored: int | None = info.length
    else:
        stored = len(entries) if reply.complete else None
    if expected is not None and stored == expected:
        return Progress(entries, advance(at, reply), more=not reply.complete)
    if stored is None and expected is not None and read.limit <= expected <= MAX_RECOUNT:
        # Twice as many, since more may come meanwhile.
        return Progress((), at, again=replace(read, limit=2 * expected + 1))
    return _go_on(_gap(at.id, at.id, entries, info), entries, reply, info)


def _is_another_history(at: Position, info: StreamInfo) -> bool:
    """Whether the stream was reset or rolled back.

    In one history IDs and counts never go down, and go up together.
    """
    if info.last < at.id:
        return True
    if at.added is None:
        return False
    return info.added < at.added or (info.added == at.added and info.last != at.id)


def _way_back(read: Read, known: Mapping[MessageId, int]) -> Read:
    """Return the read that looks for the newest message of before the reset that is still kept."""
    start = min(known, default=ZERO)
    return Read(EXAMINE, start, len(known) + read.limit, known=known)


def _back_after_reset(at: Position, read: Read, reply: Reply) -> Progress:
    info, entries = reply.info or StreamInfo(), reply.entries
    kept = read.known or {}
    for index in range(len(entries) - 1, -1, -1):
        if kept.get(entries[index].id) == entries[index].fingerprint:
            resume, entries = entries[index].id, entries[index + 1 :]
            break
    else:
        if ZERO < info.first < read.start:
            return Progress((), at, again=Read(EXAMINE, ZERO, read.limit, known={}))
        resume = ZERO
    gap = _gap(at.id, resume, entries, info)
    whole = resume != ZERO or info.added == info.length
    return replace(_go_on(gap, entries, reply, info), reset=True, whole=whole)


def _go_on(gap: Gap, entries: Sequence[Message], reply: Reply, info: StreamInfo) -> Progress:
    """Go on behind a gap; the count is known again once the end was reached."""
    added = info.added if reply.complete else None
    if entries:
        position = Position(entries[-1].id, added, entries[-1].fingerprint)
    else:
        position = replace(Position.at_end(info), added=added)
    return Progress([gap, *entries], position, more=not reply.complete)


def _gap(after: MessageId, resume: MessageId, entries: Sequence[Message], info: StreamInfo) -> Gap:
    return Gap(after, entries[0].id if entries else None, info.last, resume)
