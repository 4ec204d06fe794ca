"""Frames from a server: unfragmented, unmasked, without extensions (RFC 6455 section 5.2)."""

from struct import Struct

_TEXT = 0x81
_BINARY = 0x82
_PING = 0x89
_SHORT = Struct("!BB").pack
_MEDIUM = Struct("!BBH").pack
_LONG = Struct("!BBQ").pack
_SMALL = 1024
"""Payloads of fewer bytes have heads that are made once."""


def _head(first: int, length: int) -> bytes:
    if length < 126:
        return _SHORT(first, length)
    if length < 65536:
        return _MEDIUM(first, 126, length)
    return _LONG(first, 127, length)


_TEXT_HEADS = [_head(_TEXT, length) for length in range(_SMALL)]


def text(payload: bytes) -> bytes:
    """Return a text frame with this payload."""
    length = len(payload)
    return (_TEXT_HEADS[length] if length < _SMALL else _head(_TEXT, length)) + payload


def binary(payload: bytes) -> bytes:
    """Return a binary frame with this payload."""
    return _head(_BINARY, len(payload)) + payload


PING = _head(_PING, 0)
"""A ping without payload; the same bytes for every client."""
