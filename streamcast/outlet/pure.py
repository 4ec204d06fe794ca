"""The outlet of a socket, and writing the same to many, in Python.

The law of this file: what it does is told here, and `native.c` does the same.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Protocol

Failed = Sequence[tuple[int, int | Exception]]
"""Indices of those who did not take all, and how many bytes each took or what it raised."""


class Writes(Protocol):
    """What `write_each` writes to."""

    @property
    def write(self) -> Callable[[bytes], int]:
        """Writes frames, and returns how many of their bytes were taken."""


class Outlet:
    """A socket's, which is not to block; it writes until it is closed.

    `held` goes in front of what is written next, in one write.
    """

    __slots__ = ("_send", "held", "write")

    write: Callable[[bytes], int]
    """Writes behind what is held; returns how many bytes of the frames were taken, 0 also where
    something is held still. Once closed, it takes all and writes nothing.

    Raises OSError as send(2) does; BlockingIOError means that nothing was taken."""

    def __init__(self, sock: socket.socket) -> None:
        self._send: Callable[[bytes], int] = sock.send
        self.held = b""
        self.write = self._send

    def hold(self, data: bytes) -> None:
        """Hold frames, behind those that are held."""
        self.held += data
        self.write = self._write_behind_held

    def release(self) -> bytes:
        """Return what is held, and hold nothing."""
        held, self.held = self.held, b""
        self.write = self._send
        return held

    def close(self) -> None:
        """Let go of the socket, before its number may be another's."""
        self._send = len
        self.release()

    def _write_behind_held(self, data: bytes) -> int:
        behind = self._send(self.held + data) - len(self.held)
        if behind >= 0:
            self.release()
            return behind
        self.held = self.held[behind:]
        return 0


def write_each(outlets: Sequence[Writes], data: bytes, start: int, stop: int) -> Failed:
    """Write the same to all from `start` to before `stop`; return who did not take all."""
    failed: list[tuple[int, int | Exception]] = []
    size = len(data)
    for index in range(start, stop):
        try:
            taken = outlets[index].write(data)
        except Exception as fault:  # noqa: BLE001 - the boundary between one and all others
            # Its traceback would hold this frame, and so the list that holds it.
            failed.append((index, fault.with_traceback(None)))
        else:
            if taken != size:
                failed.append((index, taken))
    return failed or ()
