"""A client's usual frame, in Python.

The law of this file: what it does is told here, and `native.c` does the same.
"""

try:
    from websockets.speedups import apply_mask as unmasked
except ImportError:  # no compiler where it was installed
    from websockets.utils import apply_mask as unmasked

_HEAD = 0x81
_MASKED = 0x80
_IN_TWO_BYTES = 126
_SHORTEST = 6

__all__ = ["unmasked", "usual_text"]


def usual_text(buffer: memoryview, size: int, limit: int) -> bytes | None:
    """Return the payload of what came, the first `size` bytes of a buffer, if it is a usual frame.

    That is one whole frame of text, masked, not fragmented, without extensions (RFC 6455 section
    5.2), with at most `limit` bytes, all of them ASCII. All else is for others to read.
    Raises ValueError where the buffer has not so many bytes.
    """
    if size > len(buffer):
        raise ValueError("the buffer has not so many bytes")
    if size < _SHORTEST or buffer[0] != _HEAD:
        return None
    length, start = buffer[1] ^ _MASKED, _SHORTEST
    if length == _IN_TWO_BYTES and size >= _SHORTEST + 2:
        length, start = buffer[2] << 8 | buffer[3], _SHORTEST + 2
    elif length >= _IN_TWO_BYTES:
        return None
    if length > limit or start + length != size:
        return None
    payload = unmasked(bytes(buffer[start:size]), bytes(buffer[start - 4 : start]))
    return payload if payload.isascii() else None
