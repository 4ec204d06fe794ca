"""Commands that are put together in place are those that the library packs."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcast.message import MessageId
from streamcast.proof import Kind, Read
from streamcast.streams.commands import ADD_ONCE, KEY_LIVES_MS, adding, adding_once, plainly
from streamcast.streams.lane import pack

KEY = "streamcast:räume %d %b".encode()


@pytest.mark.parametrize(
    "fields",
    [(b"message", b""), (b"binary", bytes(range(256))), (b"message", b"%b", b"meta", b"%")],
)
def test_an_entry_to_add(fields: Sequence[bytes]) -> None:
    assert adding(KEY, fields) == pack(("XADD", KEY, "*", *fields))
    mark = b"{%b}:sent:%b" % (KEY, b"once")
    packed = pack(("EVAL", ADD_ONCE, 2, KEY, mark, KEY_LIVES_MS, *fields))
    assert adding_once(KEY, b"once", fields) == packed


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(1, 10**5))
def test_a_plain_read(ms: int, seq: int, limit: int) -> None:
    read = Read(Kind.RANGE, MessageId(ms, seq), limit)
    assert plainly(KEY, read) == pack(("XRANGE", KEY, f"{ms}-{seq}", "+", "COUNT", limit))
