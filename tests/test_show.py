"""How `tail` shows what a room brings."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from streamcast.cli.show import (
    as_json,
    as_payload,
    as_safe_payload,
    clock,
    for_people,
    printable,
    stamp,
    told,
)
from streamcast.message import MAX_ID_PART, MessageId
from streamcast.wire.told import Gap, Item, Message, Skipped

pytestmark = pytest.mark.one_cell

ID = MessageId.of(1_700_000_000_123, 4)
AFTER_ALL_CALENDARS = MessageId.of(MAX_ID_PART, MAX_ID_PART)

C0 = [chr(code) for code in range(0x20)]
C1 = [chr(code) for code in range(0x7F, 0xA0)]
# What reorders a line (Unicode UAX #9), ends one, or is not seen.
BIDI = list("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
CONTROLS = [*C0, *C1, *BIDI, "\u2028", "\u2029", "\ufeff"]

GAP = Gap("live", MessageId.of(1, 0), MessageId.of(5, 0), MessageId.of(9, 0))
NOTHING_KEPT = Gap("live", MessageId.of(1, 0), None, MessageId.of(9, 0))
SKIPPED = Skipped("live", ID, 70_000)


def message(data: str | bytes, **more: Any) -> Message:
    return Message("live", ID, data, **more)


def shown(item: Item, *, colours: bool = False) -> str:
    return for_people(["live", "longer"], colours=colours)(item).decode()


def as_object(item: Item) -> dict[str, Any]:
    line = as_json(item)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    told: dict[str, Any] = json.loads(line)
    return told


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    monkeypatch.setenv("TZ", "XXX-05:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# Control characters


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_no_control_character_reaches_a_terminal(control: str) -> None:
    for line in (shown(message(f"a{control}b")), as_safe_payload(message(f"a{control}b")).decode()):
        assert line.endswith("\n")
        assert control not in line[:-1]
        assert re.search(r"a\\(x[0-9a-f]{2}|u[0-9a-f]{4}|[tnr])b\n$", line), line


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_json_has_none_either_and_means_the_same(control: str) -> None:
    line = as_json(message(f"a{control}b", meta=control, fields={control: control})).decode()
    assert control not in line[:-1]
    told = json.loads(line)
    assert told["data"] == f"a{control}b"
    assert told["meta"] == control
    assert told["fields"] == {control: control}


def test_what_people_write_stays_as_it_is() -> None:
    for text in ("hello", "grüße", "日本語", "👩‍👩‍👧", "שלום", "مرحبا", 'a\\x1b"b', ""):
        assert printable(text) == text
        assert shown(message(text)).endswith(f"  {text}\n")


def test_an_escape_sequence_is_seen() -> None:
    assert printable("\x1b[31mred\x9b0m\r\nline") == r"\x1b[31mred\x9b0m\r\nline"


# For people


def test_time_room_and_payload_stand_in_columns(far_from_utc: None) -> None:
    assert shown(message("hello")) == "03:43:20  live    hello\n"


def test_colours_are_none_that_a_ground_swallows() -> None:
    line = shown(message("hello"), colours=True)
    codes = set(re.findall(r"\x1b\[([0-9;]*)m", line))
    assert codes == {"0", "2", "35"}, "dim, magenta and their end"
    assert re.sub(r"\x1b\[[0-9;]*m", "", line) == shown(message("hello"))


def test_a_payload_can_not_end_colours_or_begin_some() -> None:
    line = shown(message("\x1b[0m\x1b[31m"), colours=True)
    assert line.endswith("  \\x1b[0m\\x1b[31m\n")


def test_binary_is_shown_by_its_size_and_its_first_bytes() -> None:
    assert printable(b"\x00\xff\x1b") == "(3 bytes) 00 ff 1b"
    assert printable(b"") == "(0 bytes) "
    whole, more = printable(bytes(32)), printable(bytes(33))
    assert whole == "(32 bytes) " + " ".join(["00"] * 32)
    assert more == "(33 bytes) " + " ".join(["00"] * 32) + " …"


@pytest.mark.parametrize("item", [GAP, NOTHING_KEPT, SKIPPED])
def test_what_is_missing_is_no_line_among_messages(item: Item) -> None:
    assert shown(item) == ""
    assert as_payload(item) == as_safe_payload(item) == b""


def test_what_is_missing_is_told_in_a_sentence() -> None:
    assert told(GAP) == "live: messages between 1-0 and 5-0 may be missing."
    assert told(NOTHING_KEPT).startswith("live: messages behind 1-0 may be missing")
    assert "live: message 1700000000123-4 has 70000 bytes" in told(SKIPPED)


# Payloads


@pytest.mark.parametrize("data", ["", "a", "a\r", "\x1b[31m", "grüße", b"\x00\xff\n", b""])
def test_a_payload_is_written_as_it_is(data: str | bytes) -> None:
    raw = data if isinstance(data, bytes) else data.encode()
    assert as_payload(message(data)) == raw + b"\n"


# JSON


def test_a_message_as_an_object() -> None:
    assert as_object(message("hello")) == {
        "type": "message",
        "room": "live",
        "id": "1700000000123-4",
        "time": "2023-11-14T22:13:20.123Z",
        "data": "hello",
    }


def test_its_members_come_in_the_order_that_people_read() -> None:
    assert list(as_object(message("hello"))) == ["type", "room", "id", "time", "data"]


def test_binary_as_an_object() -> None:
    told = as_object(message(b"\x00\xff"))
    assert (told["data"], told["encoding"]) == ("AP8=", "base64")
    assert "encoding" not in as_object(message("AP8="))


def test_meta_and_the_fields_of_other_programs() -> None:
    told = as_object(message("1", meta="m", fields={"a": "1", "b": b"\xff"}))
    assert told["meta"] == "m"
    assert told["fields"] == {"a": "1", "b": {"data": "/w==", "encoding": "base64"}}
    assert not {"meta", "fields"} & set(as_object(message("1")))


def test_gaps_as_objects() -> None:
    place = {"type": "gap", "room": "live", "after": "1-0", "latest": "9-0"}
    assert as_object(GAP) == place | {"earliest": "5-0"}
    assert as_object(NOTHING_KEPT) == place | {"earliest": None}


def test_what_was_left_out_as_an_object() -> None:
    assert as_object(SKIPPED) == {
        "type": "skipped",
        "room": "live",
        "id": "1700000000123-4",
        "time": "2023-11-14T22:13:20.123Z",
        "size": 70_000,
    }


# Times


def test_a_time_is_in_utc_and_to_the_millisecond(far_from_utc: None) -> None:
    assert stamp(MessageId.of(0, 1)) == "1970-01-01T00:00:00.000Z"
    assert stamp(MessageId.of(1_700_000_000_000, 0)) == "2023-11-14T22:13:20.000Z"


@pytest.mark.parametrize("ms", [1, 999, 1_700_000_000_001, 1_795_514_730_647, 4_102_444_799_999])
def test_no_millisecond_is_lost_to_rounding(ms: int) -> None:
    text = stamp(MessageId.of(ms, 0))
    assert text is not None
    assert round(datetime.fromisoformat(text).timestamp() * 1000) == ms


def test_the_clock_is_that_of_the_place(far_from_utc: None) -> None:
    assert clock(MessageId.of(0, 1)) == "05:30:00"


@pytest.mark.parametrize("ms", [MAX_ID_PART, 253_402_300_800_000, 10**17])
def test_an_id_that_no_calendar_has_is_shown_as_it_is(ms: int) -> None:
    id = MessageId.of(ms, 7)
    assert stamp(id) is None
    assert clock(id) == f"{ms}-7"
    item = Message("live", id, "x")
    assert as_object(item)["time"] is None
    assert shown(item).startswith(f"{ms}-7  ")


@pytest.mark.parametrize("zone", ["XXX-14:00", "XXX+12:00"])
def test_the_ends_of_the_calendar_are_no_trap(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for ms in (0, 1, 253_402_300_799_999):
            assert clock(MessageId.of(ms, 1))
    finally:
        monkeypatch.undo()
        time.tzset()
