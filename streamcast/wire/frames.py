"""Frames from a server: unfragmented, unmasked, without extensions (RFC 6455 section 5.2)."""

from functools import partial
from struct import Struct

_TEXT = 0x81
_BINARY = 0x82
_PING = 0x89
_SHORT = Struct("!BB").pack
_MEDIUM = Struct("!BBH").pack
_LONG = Struct("!BBQ").pack


def _header(head: int, length: int) -> bytes:
    if length < 126:
        return _SHORT(head, length)
    if length < 65536:
        return _MEDIUM(head, 126, length)
    return _LONG(head, 127, length)


text_header = partial(_header, _TEXT)
"""Returns the header of a text frame with so many payload bytes."""
binary_header = partial(_header, _BINARY)
"""Returns the header of a binary frame with so many payload bytes."""


def text(payload: bytes) -> bytes:
    """Return a text frame."""
    return _header(_TEXT, len(payload)) + payload


PING = _header(_PING, 0)
"""A ping without payload; the same bytes for every client."""
