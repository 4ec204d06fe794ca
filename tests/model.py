"""A store that is no more than a list of entries, and members that remember what they were told.

`check` is the promise of the design: between one gap and the next a member sees IDs in order and
never one twice, and what it did not see a gap covers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streamcast.cursor import Cursor
from streamcast.errors import CodedError
from streamcast.message import ZERO, Gap, Item, Message, MessageId, as_message
from streamcast.proof import Kind, Read, Reply, StreamInfo
from streamcast.wire import Batch, Close, Plain


@dataclass
class Stream:
    """One stream: its entries, and what Redis remembers beside them.

    `histories` has, for each reset, the entries that history ever held. An entry's content tells
    which one it is, since no two are equal.
    """

    entries: list[Message] = field(default_factory=list)
    exists: bool = False
    last: MessageId = ZERO
    added: int = 0
    deleted: set[bytes] = field(default_factory=set)
    histories: list[list[Message]] = field(default_factory=lambda: [[]])
    contents: int = 0
    grown: int = 0
    padding: int = 0

    @classmethod
    def of(cls, count: int) -> "Stream":
        """Return one with so many entries, whose IDs are 1-0 and so on."""
        made = cls()
        for _ in range(count):
            made.add()
        return made

    def add(self, id: MessageId | None = None) -> None:
        self.exists = True
        self.contents += 1
        id = id or MessageId.of(self.last.ms + 1, 0)
        assert id > self.last
        data = b"%d" % self.contents
        entry = as_message(id, (b"message", data.rjust(self.padding)), 100_000)
        self.entries.append(entry)
        self.histories[-1].append(entry)
        self.last, self.added = id, self.added + 1

    def grow_old(self) -> None:
        """As thousands of entries do that came and were trimmed; never the same number twice."""
        self.add()
        self.trim(0)
        self.grown += 1
        self.added += 1000 * 3**self.grown

    def trim(self, length: int) -> None:
        del self.entries[: max(0, len(self.entries) - length)]

    def delete_entry(self, index: int) -> None:
        gone = self.entries.pop(index)
        assert gone.data is not None
        self.deleted.add(gone.data)

    def delete(self) -> None:
        self.entries, self.exists = [], False
        self.last, self.added = ZERO, 0
        self.histories.append([])

    def roll_back(self, count: int) -> None:
        """As a failover to a replica that lacks the newest entries does."""
        kept = self.histories[-1][: len(self.histories[-1]) - count]
        lost = {entry.id for entry in self.histories[-1][len(kept) :]}
        self.entries = [entry for entry in self.entries if entry.id not in lost]
        self.histories.append(kept)
        self.last = kept[-1].id if kept else ZERO
        self.added -= len(lost)

    # As the store answers

    def info(self) -> StreamInfo:
        newest = self.entries[-1] if self.entries else None
        return StreamInfo(
            length=len(self.entries),
            last=self.last,
            added=self.added,
            first=self.entries[0].id if self.entries else ZERO,
            last_fingerprint=newest.fingerprint if newest and newest.id == self.last else None,
        )

    def answer(self, read: Read) -> Reply:
        if read.kind is Kind.RESOLVE:
            return Reply((), complete=True, info=self.info(), exists=self.exists)
        entries = [entry for entry in self.entries if entry.id >= read.start][: read.limit]
        complete = len(entries) < read.limit
        info = self.info() if read.kind is Kind.EXAMINE else None
        head = entries[0] if entries else None
        continues = head is not None and (head.id, head.fingerprint) == (
            read.start,
            read.fingerprint,
        )
        return Reply(entries[continues:], complete, info, self.exists, continues)

    def before(self, end: MessageId, count: int) -> list[Message]:
        return [entry for entry in reversed(self.entries) if entry.id <= end][:count]


class Remembers(Plain):
    """A dialect whose frames are the items themselves."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Item]] = []

    def encode(self, room: str, items: Sequence[Item]) -> Batch:
        self.batches.append(list(items))
        return Batch(b"%d;" % (len(self.batches) - 1))


class Takes:
    """A member's outlet."""

    def __init__(self, member: "Member") -> None:
        self._member = member

    def write(self, data: bytes) -> int:
        self._member.write(data)
        return len(data)


class Member:
    """A sink that remembers. `pauses_after`: writes that it takes before it pauses.

    `pausing`: tells its room, or the relay.
    """

    def __init__(self, dialect: Remembers, pausing: Callable[[Cursor], None]) -> None:
        self.dialect = dialect
        self._pausing = pausing
        self.writable = True
        self.log: list[Item] = []
        self.head: MessageId | None = None
        self.resumed = False
        self.start_told = False
        self.pauses_after = 10**9
        self.writes = 0
        self.cursor = Cursor(self, "room")
        self.outlet = Takes(self)

    def pause(self) -> None:
        self.writable = False
        self._pausing(self.cursor)

    def write(self, data: bytes) -> None:
        assert self.writable
        self.writes += 1
        for index in data.split(b";")[:-1]:
            self.log += self.dialect.batches[int(index)]
        self.pauses_after -= 1
        if self.pauses_after <= 0:
            self.pause()

    def fell_short(self, data: bytes, taken: int) -> None:
        raise AssertionError(data)

    def broke(self, data: bytes, fault: Exception) -> None:
        raise fault

    def close(self, how: Close) -> None:
        raise AssertionError(how)

    def joined(self, cursor: Cursor, head: MessageId, *, resumed: bool) -> None:
        self.head, self.resumed = head, resumed

    def refused(self, cursor: Cursor, error: CodedError) -> None:
        raise AssertionError(error)


def check(stream: Stream, member: Member, *, finished: bool) -> None:
    """Raise AssertionError if a member was not told the truth."""
    assert member.head is not None
    seen: Message | MessageId = member.head
    gap: Gap | None = None
    start_is_known = not member.start_told
    for item in member.log:
        if isinstance(item, Gap):
            told = seen if isinstance(seen, MessageId) else seen.id
            if gap is None and start_is_known and (item is not member.log[0] or member.resumed):
                assert _says_where_it_was(stream, item, told), f"{item} after {seen}"
            gap = item
            continue
        if gap is not None:
            _check_after_gap(stream, gap, item)
        elif start_is_known or seen is not member.head:
            _check_follows(stream, seen, item)
        seen, gap = item, None
    if finished:
        if start_is_known or member.log:
            _check_end(stream, seen, gap)
        else:
            assert not stream.entries, f"{stream.entries} never came"


def _between(
    stream: Stream, history: list[Message], low: MessageId, high: MessageId | None
) -> list[Message]:
    """Return what lay strictly between two IDs and was not deleted by name."""
    return [
        entry
        for entry in history
        if low < entry.id and (high is None or entry.id < high) and entry.data not in stream.deleted
    ]


def _says_where_it_was(stream: Stream, gap: Gap, seen: MessageId) -> bool:
    """Whether a gap begins where its member was: nothing lay between what it saw and `after`."""
    behind = MessageId.of(gap.after.ms, gap.after.seq + 1)
    highest = max((entry.id for history in stream.histories for entry in history), default=ZERO)
    return seen <= gap.after <= max(seen, highest) and any(
        not _between(stream, history, seen, behind) for history in stream.histories
    )


def _check_follows(stream: Stream, seen: Message | MessageId, item: Message) -> None:
    low = seen if isinstance(seen, MessageId) else seen.id
    assert item.id > low, f"{item} after {seen}"
    for history in stream.histories:
        if item in history and (isinstance(seen, MessageId) or seen in history):
            missing = _between(stream, history, low, item.id)
            if not missing:
                return
    raise AssertionError(f"{item} after {seen}: what lies between was not told")


def _check_after_gap(stream: Stream, gap: Gap, item: Message) -> None:
    for history in stream.histories:
        if item in history:
            low = gap.latest if gap.earliest is None else MessageId.of(gap.earliest.ms, -1)
            assert item.id > low, f"{item} before {gap}"
            if not _between(stream, history, low, item.id):
                return
    raise AssertionError(f"{item} after {gap}: more is missing than was told")


def _check_end(stream: Stream, seen: Message | MessageId, gap: Gap | None) -> None:
    history = stream.histories[-1]
    if gap is not None:
        low = gap.latest if gap.earliest is None else MessageId.of(gap.earliest.ms, -1)
        missing = _between(stream, history, low, None)
        assert not missing, f"{missing} after {gap} never came"
        return
    if isinstance(seen, Message):
        assert seen in history, f"nobody told that {seen} is of the past"
    low = seen if isinstance(seen, MessageId) else seen.id
    missing = _between(stream, history, low, None)
    assert not missing, f"{missing} after {seen} never came"
