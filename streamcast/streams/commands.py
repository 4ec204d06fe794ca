"""How a read is said to the store and its answer understood (XRANGE, XINFO STREAM, MULTI)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import hiredis

from streamcast.message import ZERO, Message, MessageId, as_message
from streamcast.proof import Kind, Read, Reply, StreamInfo
from streamcast.streams.lane import Callback, Lane, pack
from streamcast.streams.redirect import ASKING

_MULTI = pack(("MULTI",))
_EXEC = pack(("EXEC",))


class Command(NamedTuple):
    """A command, packed, with what it needs in front; `before`: so many replies come first."""

    packed: bytes
    before: int

    def send(self, lane: Lane, answered: Callback) -> None:
        """Send it. A refusal of what is in front (EXEC says only that there was one) counts."""
        if not self.before:
            lane.call(self.packed, answered)
            return
        refused: list[hiredis.ReplyError] = []

        def note(raw: Any) -> None:
            if isinstance(raw, hiredis.ReplyError):
                refused.append(raw)

        def last(raw: Any) -> None:
            answered(refused[0] if refused else raw)

        lane.calls(self.packed, (*(note,) * self.before, last))


def forwards(key: bytes, read: Read, *, asking: bool) -> Command:
    """Return the command of a read. `asking`: the key's slot is still on its way to the node."""
    if read.kind is Kind.RANGE:
        command = Command(plainly(key, read), 0)
    elif read.kind is Kind.RESOLVE:
        command = Command(_info_of(key), 0)
    else:
        command = Command(_MULTI + _info_of(key) + plainly(key, read) + _EXEC, 3)
    return _asked(command) if asking else command


def backwards(key: bytes, end: MessageId, count: int, *, asking: bool) -> Command:
    """Return the command that reads `count` entries from `end` down."""
    command = Command(pack(("XREVRANGE", key, str(end), "-", "COUNT", count)), 0)
    return _asked(command) if asking else command


def plainly(key: bytes, read: Read) -> bytes:
    """Return a plain read, packed: what nearly every read is."""
    ms, seq = read.start
    return pack(("XRANGE", key, f"{ms}-{seq}", "+", "COUNT", read.limit))


def _info_of(key: bytes) -> bytes:
    return pack(("XINFO", "STREAM", key))


def _asked(command: Command) -> Command:
    return Command(ASKING + command.packed, command.before + 1)


def understood(read: Read, raw: Any, max_message: int) -> Reply:
    """Return what the store answered. Raises hiredis.ReplyError where it refused."""
    if read.kind is Kind.RESOLVE:
        info, exists = _info(raw)
        return Reply((), complete=True, info=info, exists=exists)
    if isinstance(raw, hiredis.ReplyError):
        raise raw
    if read.kind is Kind.RANGE:
        return Reply(messages(raw, max_message), len(raw) < read.limit)
    info, exists = _info(raw[0])
    if isinstance(raw[1], hiredis.ReplyError):
        raise raw[1]
    entries = messages(raw[1], max_message)
    return Reply(entries, complete=len(entries) < read.limit, info=info, exists=exists)


def messages(raw: Sequence[tuple[bytes, list[bytes]]], max_message: int) -> list[Message]:
    """Return entries as messages."""
    read = MessageId.trusted
    return [as_message(read(id_), fields, max_message) for id_, fields in raw]


def is_wrong_type(error: hiredis.ReplyError) -> bool:
    """Whether the key holds something that is not a stream."""
    return str(error).startswith("WRONGTYPE")


def is_away(error: hiredis.ReplyError) -> bool:
    """Whether a node serves nobody just now, whatever the key."""
    return str(error).partition(" ")[0] in _AWAY


_AWAY = {"LOADING", "CLUSTERDOWN", "MASTERDOWN", "BUSY"}
NO_STREAM = Reply((), complete=True, info=StreamInfo(), exists=False)
"""What a key without a stream has to say."""


def _info(raw: Any) -> tuple[StreamInfo, bool]:
    if isinstance(raw, hiredis.ReplyError):
        if str(raw).startswith("ERR no such key"):
            return StreamInfo(), False
        raise raw
    last = MessageId.trusted(raw[b"last-generated-id"])
    newest = raw[b"last-entry"]
    kept = newest is not None and MessageId.trusted(newest[0]) == last
    info = StreamInfo(
        length=raw[b"length"],
        last=last,
        added=raw[b"entries-added"],
        first=MessageId.trusted(raw[b"recorded-first-entry-id"]) if raw[b"length"] else ZERO,
        last_fingerprint=hash(tuple(newest[1])) if kept else None,
    )
    return info, True
