"""Frames from a server: unfragmented, unmasked, without extensions (RFC 6455 section 5.2)."""

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


def text_header(length: int) -> bytes:
    """Return the header of a text frame of `length` payload bytes."""
    return _header(_TEXT, length)


def binary_header(length: int) -> bytes:
    """Return the header of a binary frame of `length` payload bytes."""
    return _header(_BINARY, length)


def text(payload: bytes) -> bytes:
    """Return a text frame."""
    return _header(_TEXT, len(payload)) + payload


PING = _header(_PING, 0)
"""A ping without payload; the same bytes for every client."""
