"""WebSocket, frame by frame: what groups 1 to 7 of the Autobahn suite check.

In the plain dialect, alone in a room, a client hears what it sends, as of an echo.
"""

from collections.abc import Iterator
from itertools import count

import pytest
from websockets.frames import Opcode

from tests.raw import NO_STATUS, Frame, Raw, close, frame, rest, text
from tests.stores import Server, Store

_rooms = count()


@pytest.fixture
def room() -> str:
    """A room that nobody else is in."""
    return f"alone-{next(_rooms)}"


@pytest.fixture
def echo(any_server: Server, room: str) -> Iterator[Raw]:
    with Raw.joined(any_server, room) as raw:
        yield raw


def heard(data: bytes | str) -> Frame:
    return Frame(Opcode.TEXT, data.encode() if isinstance(data, str) else data)


PING = frame(Opcode.PING, b"ping")
PONG = Frame(Opcode.PONG, b"ping")


# 1: framing


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("chop", [0, 997])
@pytest.mark.parametrize("size", [0, 125, 126, 127, 128, 65535, 65536])
def test_sizes(echo: Raw, size: int, chop: int, opcode: Opcode) -> None:
    data = (b"*" if opcode is Opcode.TEXT else b"\xfe") * size
    echo.send(frame(opcode, data), chop=chop)
    assert echo.frame() == Frame(opcode, data)


def test_a_frame_that_comes_byte_by_byte(echo: Raw) -> None:
    echo.send(text("x" * 200), PING, text("y"), chop=1)
    assert [echo.frame() for _ in range(3)] == [PONG, heard("x" * 200), heard("y")]


# 2: pings and pongs


@pytest.mark.parametrize(
    "data", [b"", b"Hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125]
)
@pytest.mark.parametrize("chop", [0, 1])
def test_a_ping_is_answered_with_its_payload(echo: Raw, data: bytes, chop: int) -> None:
    echo.send(frame(Opcode.PING, data), chop=chop)
    assert echo.frame() == Frame(Opcode.PONG, data)


def test_a_ping_that_is_too_long(echo: Raw) -> None:
    echo.send(frame(Opcode.PING, b"\xfe" * 126))
    assert echo.closed() == 1002


@pytest.mark.parametrize("data", [b"", b"unasked for"])
def test_a_pong_that_nobody_asked_for(echo: Raw, data: bytes) -> None:
    echo.send(frame(Opcode.PONG, data), PING)
    assert echo.frame() == PONG


@pytest.mark.parametrize("chop", [0, 1])
def test_pings_are_answered_in_order(echo: Raw, chop: int) -> None:
    echo.send(*(frame(Opcode.PING, b"%d" % number) for number in range(10)), chop=chop)
    assert [echo.frame().data for _ in range(10)] == [b"%d" % number for number in range(10)]


# 3: reserved bits


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.CLOSE])
@pytest.mark.parametrize("reserved", range(1, 8))
def test_reserved_bits(echo: Raw, reserved: int, opcode: Opcode) -> None:
    echo.send(text("good"))
    assert echo.frame() == heard("good")
    echo.send(frame(opcode, b"", reserved=reserved), PING)
    assert echo.closed() == 1002


# 4: opcodes


@pytest.mark.parametrize("data", [b"", b"payload"])
@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes(echo: Raw, opcode: int, data: bytes) -> None:
    echo.send(text("good"))
    assert echo.frame() == heard("good")
    echo.send(frame(opcode, data), PING)
    assert echo.closed() == 1002


# 5: fragments


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG, Opcode.CLOSE])
def test_control_frames_are_not_fragmented(echo: Raw, opcode: Opcode) -> None:
    echo.send(frame(opcode, b"", fin=False), rest(b"", fin=True))
    assert echo.closed() == 1002


@pytest.mark.parametrize("chop", [0, 1])
def test_two_fragments(echo: Raw, chop: int) -> None:
    echo.send(text("frag", fin=False), rest(b"ment", fin=True), chop=chop)
    assert echo.frame() == heard("fragment")


@pytest.mark.parametrize("chop", [0, 1])
def test_pings_between_fragments_are_answered_at_once(echo: Raw, chop: int) -> None:
    echo.send(text("one ", fin=False), PING, chop=chop)
    assert echo.frame() == PONG
    echo.send(rest(b"two "), PING, rest(b"three", fin=True), chop=chop)
    assert [echo.frame(), echo.frame()] == [PONG, heard("one two three")]


@pytest.mark.parametrize("fin", [False, True])
@pytest.mark.parametrize("before", [b"", text("whole")])
def test_a_fragment_of_nothing(echo: Raw, before: bytes, fin: bool) -> None:
    echo.send(before)
    if before:
        assert echo.frame() == heard("whole")
    echo.send(rest(b"of nothing", fin=fin), text("behind"))
    assert echo.closed() == 1002


@pytest.mark.parametrize("fin", [False, True])
def test_a_message_within_a_message(echo: Raw, fin: bool) -> None:
    echo.send(text("frag", fin=False), text("another", fin=fin), rest(b"ment", fin=True))
    assert echo.closed() == 1002


def test_empty_fragments(echo: Raw) -> None:
    echo.send(text("", fin=False), rest(b""), rest(b"middle"), rest(b"", fin=True))
    assert echo.frame() == heard("middle")
    echo.send(text("", fin=False), rest(b"", fin=True))
    assert echo.frame() == heard("")


def test_fragments_of_binary(echo: Raw) -> None:
    echo.send(frame(Opcode.BINARY, b"\xff", fin=False), rest(b"\xfe", fin=True))
    assert echo.frame() == Frame(Opcode.BINARY, b"\xff\xfe")


# 6: UTF-8

GOOD_TEXT = [
    "Hello-µ@ßöäüàá-UTF-8!!".encode(),
    "κόσμε".encode(),
    # The first and the last of each length, and those at the edges of what is left out.
    b"\x00",
    b"\x7f",
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xef\xbf\xbd",
    b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf",
    # No characters, and yet UTF-8.
    b"\xef\xbf\xbe",
    b"\xef\xbf\xbf",
    b"\xf0\x9f\xbf\xbe",
    b"\xf4\x8f\xbf\xbe",
]
BAD_TEXT = [
    # Continuations without a beginning, beginnings without a continuation, bytes of nothing.
    b"\x80",
    b"\xbf",
    b"\x80\xbf\x80\xbf",
    b"\xc0 ",
    b"\xe0 ",
    b"\xf0 ",
    b"\xdf",
    b"\xe0\xa0",
    b"\xef\xbf",
    b"\xf0\x90\x80",
    b"\xf4\x8f\xbf",
    b"\xfe",
    b"\xff",
    # Longer than they need be.
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    # Halves of surrogate pairs, and beyond the last character.
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    "κόσμε".encode() + b"\xed\xa0\x80edited",
]


def byte_by_byte(data: bytes) -> bytes:
    """A text in fragments of one byte."""
    middle = b"".join(rest(data[at : at + 1]) for at in range(1, len(data)))
    return text(data[:1], fin=False) + middle + rest(b"", fin=True)


@pytest.mark.parametrize("fragments", [text, byte_by_byte])
@pytest.mark.parametrize("data", GOOD_TEXT, ids=bytes.hex)
def test_text(echo: Raw, data: bytes, fragments) -> None:
    echo.send(fragments(data))
    assert echo.frame() == heard(data)


@pytest.mark.parametrize("fragments", [text, byte_by_byte])
@pytest.mark.parametrize("data", BAD_TEXT, ids=bytes.hex)
def test_text_that_is_not_utf8(
    echo: Raw, data: bytes, fragments, any_store: Store, room: str
) -> None:
    echo.send(fragments(data))
    assert echo.closed() == 1007
    assert not any_store.client.exists(f"streamcast:{room}")


# 7: close


def test_a_close_behind_a_message(echo: Raw) -> None:
    echo.send(text("x" * 65536))
    assert echo.frame() == heard("x" * 65536)
    echo.send(close(1000))
    assert echo.closed() == 1000


@pytest.mark.parametrize(
    "behind",
    [close(1000), close(4000, b"another"), PING, text("late"), b"rubbish", frame(3)],
    ids=["close", "another close", "ping", "text", "rubbish", "reserved"],
)
def test_nothing_behind_a_close_is_answered(
    echo: Raw, behind: bytes, any_store: Store, room: str
) -> None:
    echo.send(close(1000), behind)
    assert echo.closed() == 1000
    assert not any_store.client.exists(f"streamcast:{room}")


def test_a_close_between_fragments(echo: Raw, any_store: Store, room: str) -> None:
    """It is a control frame, which may come there (RFC 6455 section 5.4)."""
    echo.send(text("frag", fin=False), close(1000), rest(b"ment", fin=True))
    assert echo.closed() == 1000
    assert not any_store.client.exists(f"streamcast:{room}")


def test_a_close_without_a_code(echo: Raw) -> None:
    echo.send(frame(Opcode.CLOSE))
    assert echo.closed() == NO_STATUS


@pytest.mark.parametrize("reason", [b"", b"Hello", "µ".encode(), b"*" * 123])
def test_a_reason(echo: Raw, reason: bytes) -> None:
    """Code and reason come back."""
    echo.send(close(1000, reason))
    assert echo.frame() == Frame(Opcode.CLOSE, b"\x03\xe8" + reason)
    assert echo.everything() == b""


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(Opcode.CLOSE, b"\x03"), 1002),
        (close(1000, b"*" * 124), 1002),
        (close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"), 1007),
    ],
    ids=["one byte", "too long", "not UTF-8"],
)
def test_bad_payloads_of_a_close(echo: Raw, sent: bytes, code: int) -> None:
    echo.send(sent)
    assert echo.closed() == code


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_codes(echo: Raw, code: int) -> None:
    echo.send(close(code))
    assert echo.closed() == code


@pytest.mark.parametrize(
    "code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
)
def test_codes_that_may_not_be_sent(echo: Raw, code: int) -> None:
    echo.send(close(code))
    assert echo.closed() == 1002


def test_the_end_without_a_close(any_server: Server, room: str) -> None:
    """As of a client that was killed; its room goes on without it."""
    with Raw.joined(any_server, room) as other:
        with Raw.joined(any_server, room):
            pass
        other.send(text("still here"))
        assert other.frame() == heard("still here")
