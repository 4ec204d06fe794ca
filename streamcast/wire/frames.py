"""Frames from a server: unfragmented, unmasked, without extensions (RFC 6455 section 5.2)."""

from functools import partial
from struct import Struct

_TEXT = 0x81
_BINARY = 0x82
_PING = 0x89
_SHORT = Struct("!BB").pack
_MEDIUM = Struct("!BBH").pack
_LONG = Struct("!BBQ").pack


def _frame(head: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return _SHORT(head, length) + payload
    if length < 65536:
        return _MEDIUM(head, 126, length) + payload
    return _LONG(head, 127, length) + payload


text = partial(_frame, _TEXT)
"""Returns a text frame with this payload."""
binary = partial(_frame, _BINARY)
"""Returns a binary frame with this payload."""
PING = _frame(_PING, b"")
"""A ping without payload; the same bytes for every client."""
