"""WebSocket frames as a load needs them: cheap, for a client, without extensions.

The law of this file: it is pure, and takes only what a server may send to a client that offered no
extensions (RFC 6455 section 5.2); anything else raises ValueError.
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_WHOLE_TEXT = 0x80 | TEXT
_MEDIUM = Struct("!H")
_LONG = Struct("!Q")
_ONE_MASK = bytes(4)


class Frame(NamedTuple):
    """A frame; `end` is where the next one begins."""

    opcode: int
    data: bytes
    end: int


def next_frame(data: bytes | bytearray, start: int) -> Frame | None:
    """Read the frame that begins at `start`; None if it has not come whole. Raises ValueError."""
    if len(data) < start + 2:
        return None
    head, length = data[start], data[start + 1]
    if head & 0xF0 != 0x80 or length & 0x80:
        raise ValueError("not a whole, plain, unmasked frame")
    at = start + 2
    if length == 126:
        if len(data) < at + 2:
            return None
        length = _MEDIUM.unpack_from(data, at)[0]
        at += 2
    elif length == 127:
        if len(data) < at + 8:
            return None
        length = _LONG.unpack_from(data, at)[0]
        at += 8
    end = at + length
    if len(data) < end:
        return None
    return Frame(head & 0x0F, bytes(data[at:end]), end)


def frames_of(buffer: bytearray) -> Iterator[tuple[Frame, bytes]]:
    """Take the whole frames off a buffer's front; each with its bytes. Raises ValueError."""
    at = 0
    while (frame := next_frame(buffer, at)) is not None:
        yield frame, bytes(buffer[at : frame.end])
        at = frame.end
    del buffer[:at]


def whole_text(data: bytes, at: int) -> tuple[int, int] | None:
    """Return where the payload of the text frame at `at` begins and ends.

    None if it is no text, has not come whole, or is larger than 65,535 bytes.
    """
    if len(data) < at + 4 or data[at] != _WHOLE_TEXT:
        return None
    size, start = data[at + 1], at + 2
    if size > 126:
        return None
    if size == 126:
        size, start = data[at + 2] << 8 | data[at + 3], at + 4
    stop = start + size
    return (start, stop) if stop <= len(data) else None


def behind(data: bytes, beginning: bytes) -> bytes:
    """Return what is behind the text frames at the front whose payload begins so."""
    at = 0
    while (found := whole_text(data, at)) and data.startswith(beginning, found[0]):
        at = found[1]
    return data[at:]


def client_frame(opcode: int, data: bytes) -> bytes:
    """Return a frame of a client.

    Its mask is zero: the load is not to be spent on masking, and no proxy is to be protected from
    itself here (RFC 6455 section 10.3).
    """
    length = len(data)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    elif length < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + _MEDIUM.pack(length)
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + _LONG.pack(length)
    return head + _ONE_MASK + data
