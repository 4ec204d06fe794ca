"""Message IDs, room names, entries; sizes and durations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcast.cli import units
from streamcast.errors import BadId, BadRoom
from streamcast.message import MAX_ID_PART, MessageId, as_message, room_name

PART = st.integers(0, MAX_ID_PART)


@given(PART, PART)
def test_ids_are_read_as_they_are_written(ms: int, seq: int) -> None:
    id_ = MessageId.of(ms, seq)
    assert MessageId.parse(str(id_)) == id_ == MessageId.parse(str(id_).encode())


def test_ids_are_ordered_as_entries_are() -> None:
    assert MessageId.of(9, 9) < MessageId.of(10, 0) < MessageId.of(10, 1)
    assert MessageId.parse("7") == MessageId.of(7, 0)


@pytest.mark.parametrize(
    "text", ["", "-", "1-", "-1", "1-1-1", "a", "$", "+", " 1-1", "1-٣", "1" * 21]
)
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(BadId):
        MessageId.parse(text)


@pytest.mark.parametrize(
    "name", ["a", "x" * 128, "é" * 64, "a:b.c-d_e", "部屋", "a&b=c", "*", "..."]
)
def test_room_names(name: str) -> None:
    assert room_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 129, "é" * 65, *"/{}?#% \t\n\x00\x7f\x85\u2003", "\ud800"]
)
def test_what_is_no_room_name(name: str) -> None:
    with pytest.raises(BadRoom):
        room_name(name)


def test_own_entries() -> None:
    own = as_message(MessageId.of(1, 0), [b"message", b"x", b"meta", b"m"], 10)
    assert (own.data, own.text, own.meta, own.fields) == (b"x", True, "m", None)
    own = as_message(MessageId.of(1, 0), [b"binary", b"x"], 10)
    assert (own.data, own.text, own.meta, own.fields) == (b"x", False, None, None)


def test_an_entry_over_the_limit_has_no_data() -> None:
    for fields in ((b"message", b"x" * 11), (b"binary", b"x" * 11), (b"aaa", b"x" * 8)):
        over = as_message(MessageId.of(1, 0), fields, 10)
        assert (over.data, over.fields, over.size) == (None, None, 11)


def test_a_large_meta_is_not_handed_on() -> None:
    for size, kept in ((1024, True), (1025, False)):
        own = as_message(MessageId.of(1, 0), (b"message", b"x", b"meta", b"m" * size), 10)
        assert (own.meta is not None) == kept


def test_fingerprints_tell_contents_apart() -> None:
    same = [as_message(MessageId.of(1, 0), (b"message", b"x"), 10) for _ in range(2)]
    other = as_message(MessageId.of(1, 0), (b"binary", b"x"), 10)
    assert same[0].fingerprint == same[1].fingerprint != other.fingerprint


def test_sizes() -> None:
    assert [units.size(text) for text in ("100", "100B", "64KiB", "1.5mb", "2 GiB")] == [
        100, 100, 65536, 1_500_000, 2 * 1024**3
    ]  # fmt: skip
    for text in ("", "x", "-1", "1XB", "1e3"):
        with pytest.raises(ValueError, match="is not"):
            units.size(text)
    for size in (1, 100, 65536, 1000, 1_500_000):
        assert units.size(units.show_size(size)) == size


def test_durations() -> None:
    assert [units.duration(text) for text in ("500ms", "20s", "5m", "1h", "2d", "3")] == [
        0.5, 20, 300, 3600, 172_800, 3
    ]  # fmt: skip
    for text in ("", "x", "-1s", "1 year", "1M"):
        with pytest.raises(ValueError, match="is not"):
            units.duration(text)
    for duration in (0.5, 20, 300, 3600, 5400):
        assert units.duration(units.show_duration(duration)) == duration
