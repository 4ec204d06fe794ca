"""Making sure that changes are really told: proxies say OK to CLIENT TRACKING and drop pushes."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from itertools import count

from streamcast.errors import CodedError
from streamcast.message import ZERO
from streamcast.proof import Kind, Read, Reply
from streamcast.streams.lane import Callback, pack

TIMEOUT = 3.0
"""Seconds within which a change must have been told of."""
LIVES_MS = 10_000
"""How long the probe's key is kept if it can't be deleted."""


class Probe:
    """A follower of a stream that nobody else knows."""

    def __init__(self) -> None:
        self._followed = asyncio.Event()
        self._announced = asyncio.Event()

    def next_read(self, *, announced: bool) -> Read | None:
        """Look whether the stream exists, as one does who opens a room."""
        if announced:
            self._announced.set()
        return Read(Kind.RESOLVE, ZERO, 1)

    def received(self, read: Read, reply: Reply) -> bool:
        """Take in that the stream is being followed."""
        self._followed.set()
        return False

    def failed(self, error: CodedError) -> None:
        """Hear nothing, then."""

    async def hears(self, key: bytes, send: Callable[[bytes, Callback | None], None]) -> bool:
        """Add to the stream, and tell whether that was heard of."""
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._followed.wait()
                send(pack("XADD", key, "*", "probe", "1"), None)
                send(pack("PEXPIRE", key, LIVES_MS), None)
                await self._announced.wait()
        except TimeoutError:
            return False
        finally:
            send(pack("DEL", key), None)
        return True


def probe_keys(prefix: str) -> Iterator[bytes]:
    """Return keys that are no rooms', which have no braces, and that nobody else has."""
    token = secrets.token_hex(8)
    for number in count():
        yield f"{{{prefix}probe:{token}-{number}}}".encode()
