"""How the store is told to add and to read, and its answer understood.

XADD; XRANGE, XINFO STREAM, MULTI.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import hiredis

from streamcast.message import (
    BINARY_FIELD,
    TEXT_FIELD,
    ZERO,
    Message,
    MessageId,
    as_message,
    fingerprint_of,
)
from streamcast.proof import EXAMINE, RANGE, RESOLVE, Read, Reply, StreamInfo
from streamcast.streams.lane import Callback, Lane, pack
from streamcast.streams.redirect import ASKING

KEY_LIVES_MS = 120_000
"""How long a publish with a `key` is remembered."""

# KEYS: stream, mark of the key. ARGV: time to live of the mark in ms, fields of the entry.
# EVAL, not EVALSHA: the store caches the script all the same, and can't have forgotten it.
# It writes in any case: WAIT waits for what this connection wrote, and what was written before.
# Nothing that writes comes before XADD: behind that, Redis would let it add though memory is full.
ADD_ONCE = """
local id = redis.call('GET', KEYS[2])
if not id then
  id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
  redis.call('SET', KEYS[2], id, 'PX', ARGV[1])
else
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
end
return id
"""


def _words(*words: str | int | bytes) -> bytes:
    """Return words as they stand in a command."""
    return pack(words).partition(b"\r\n")[2]


class _Lengths(dict[int, bytes]):
    """What stands in front of a word, by its length; the usual ones are made once."""

    def __missing__(self, length: int) -> bytes:
        return b"$%d\r\n" % length


# What nearly all commands are is put together of these, in a fifth of the time that `pack` takes.
_LENGTHS = _Lengths((length, b"$%d\r\n" % length) for length in range(1024))
_END = b"\r\n"
_XADD = b"*5\r\n" + _words("XADD")
# By the name of the entry's only field.
_NAMED = {name: _END + _words("*", name) for name in (TEXT_FIELD, BINARY_FIELD)}
_ADD_ONCE = b"*8\r\n" + _words("EVAL", ADD_ONCE, 2)
_KEY_LIVES = _END + _words(KEY_LIVES_MS)
_XRANGE = b"*6\r\n" + _words("XRANGE")
_MULTI = pack(("MULTI",))
_EXEC = pack(("EXEC",))


@lru_cache(1024)  # pages have few sizes
def _to_end(limit: int) -> bytes:
    return _END + _words("+", "COUNT", limit)


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
    if read.kind is RANGE:
        command = Command(plainly(key, read), 0)
    elif read.kind is RESOLVE:
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
    start = read.start.text.encode()
    return b"".join(
        (_XRANGE, _LENGTHS[len(key)], key, _END, _LENGTHS[len(start)], start, _to_end(read.limit))
    )


def adding(key: bytes, fields: Sequence[bytes]) -> bytes:
    """Return the command that adds an entry, packed."""
    named = _NAMED.get(fields[0])
    if named is not None and len(fields) == 2:
        # What nearly all have.
        value = fields[1]
        return b"".join((_XADD, _LENGTHS[len(key)], key, named, _LENGTHS[len(value)], value, _END))
    return pack(("XADD", key, "*", *fields))


def adding_once(key: bytes, once: bytes, fields: Sequence[bytes]) -> bytes:
    """Return the command that adds an entry unless one was added with the same `once`, packed."""
    mark = b"{%b}:sent:%b" % (key, once)
    if len(fields) == 2:
        name, value = fields
        keys = _LENGTHS[len(key)], key, _END, _LENGTHS[len(mark)], mark
        field = _LENGTHS[len(name)], name, _END, _LENGTHS[len(value)], value
        return b"".join((_ADD_ONCE, *keys, _KEY_LIVES, *field, _END))
    return pack(("EVAL", ADD_ONCE, 2, key, mark, KEY_LIVES_MS, *fields))


def _info_of(key: bytes) -> bytes:
    return pack(("XINFO", "STREAM", key))


def _asked(command: Command) -> Command:
    return Command(ASKING + command.packed, command.before + 1)


def understood(read: Read, raw: Any, max_message: int) -> Reply:
    """Return what the store answered. Raises hiredis.ReplyError where it refused."""
    info: StreamInfo | None
    if read.kind is RESOLVE:
        info, exists = _info(raw)
        return Reply((), complete=True, info=info, exists=exists)
    if isinstance(raw, hiredis.ReplyError):
        raise raw
    info, exists = None, True
    if read.kind is EXAMINE:
        (info, exists), raw = _info(raw[0]), raw[1]
        if isinstance(raw, hiredis.ReplyError):
            raise raw
    complete, continues = len(raw) < read.limit, False
    if raw and read.fingerprint is not None:
        id, fields = raw[0]
        continues = fingerprint_of(fields) == read.fingerprint and id == read.start.text.encode()
        if continues:
            # Most reads bring one entry more than this one, which has been a message before.
            del raw[0]
    return Reply(messages(raw, max_message), complete, info, exists, continues)


def messages(raw: Sequence[tuple[bytes, list[bytes]]], max_message: int) -> list[Message]:
    """Return entries as messages."""
    read = MessageId.trusted
    found: list[Message] = []
    for id_, fields in raw:
        found.append(as_message(read(id_), fields, max_message))
    return found


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
        last_fingerprint=fingerprint_of(newest[1]) if kept else None,
    )
    return info, True
