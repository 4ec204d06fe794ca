"""Commands that are put together in place are those that the library packs."""

from collections.abc import Sequence

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcast.message import MessageId, fingerprint_of
from streamcast.proof import Kind, Read
from streamcast.streams.commands import (
    ADD_ONCE,
    KEY_LIVES_MS,
    adding,
    adding_once,
    plainly,
    understood,
)
from streamcast.streams.lane import pack

KEY = "streamcast:räume %d %b".encode()


@pytest.mark.parametrize(
    "fields",
    [
        (b"message", b""),
        (b"binary", bytes(range(256))),
        (b"message", b"x" * 1023),
        (b"message", b"x" * 1024),
        (b"message", b"x" * 70_000),
        (b"message", b"%b", b"meta", b"%"),
    ],
)
@pytest.mark.parametrize("key", [KEY, b"long" * 500])
def test_an_entry_to_add(key: bytes, fields: Sequence[bytes]) -> None:
    assert adding(key, fields) == pack(("XADD", key, "*", *fields))
    mark = b"{%b}:sent:%b" % (key, b"once")
    packed = pack(("EVAL", ADD_ONCE, 2, key, mark, KEY_LIVES_MS, *fields))
    assert adding_once(key, b"once", fields) == packed


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(1, 10**5))
def test_a_plain_read(ms: int, seq: int, limit: int) -> None:
    read = Read(Kind.RANGE, MessageId.of(ms, seq), limit)
    assert plainly(KEY, read) == pack(("XRANGE", KEY, f"{ms}-{seq}", "+", "COUNT", limit))


KNOWN = (b"5-0", [b"message", b"known"])
NEWER = (b"6-1", [b"message", b"newer"])
INFO = {b"length": 2, b"last-generated-id": b"6-1", b"entries-added": 2, b"last-entry": NEWER}
INFO |= {b"recorded-first-entry-id": b"5-0"}


@pytest.mark.parametrize("kind", [Kind.RANGE, Kind.EXAMINE])
@pytest.mark.parametrize(
    ("entries", "continues"),
    [
        ([KNOWN], True),
        ([KNOWN, NEWER], True),
        ([NEWER], False),
        ([(b"5-1", KNOWN[1]), NEWER], False),
        ([(KNOWN[0], NEWER[1]), NEWER], False),
        ([], False),
    ],
)
def test_what_an_answer_begins_with(
    kind: Kind, entries: list[tuple[bytes, list[bytes]]], *, continues: bool
) -> None:
    """What was read before is told from another entry with its ID, and is none of the entries."""
    read = Read(kind, MessageId.of(5, 0), 2, fingerprint=fingerprint_of(KNOWN[1]))
    raw = list(entries) if kind is Kind.RANGE else [INFO, list(entries)]
    reply = understood(read, raw, 1000)
    assert reply.continues == continues
    assert [str(entry.id).encode() for entry in reply.entries] == [
        id for id, _ in entries[continues:]
    ]
    assert reply.complete == (len(entries) < 2)
    assert (reply.info is not None) == (kind is Kind.EXAMINE)


def test_where_nothing_was_read_before_an_answer_is_all_entries() -> None:
    reply = understood(Read(Kind.RANGE, MessageId.of(5, 0), 2), [KNOWN, NEWER], 1000)
    assert not reply.continues
    assert len(reply.entries) == 2


def test_a_refusal_is_raised_whatever_was_asked() -> None:
    refused = hiredis.ReplyError("BUSY")
    for kind, raw in (
        (Kind.RESOLVE, refused),
        (Kind.RANGE, refused),
        (Kind.EXAMINE, [refused, []]),
        (Kind.EXAMINE, [INFO, refused]),
    ):
        with pytest.raises(hiredis.ReplyError):
            understood(Read(kind, MessageId.of(5, 0), 2), raw, 1000)
