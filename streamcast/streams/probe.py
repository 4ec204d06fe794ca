"""Making sure that changes are really told: proxies say OK to CLIENT TRACKING and drop pushes."""

import asyncio
import secrets
from collections.abc import Iterator
from itertools import count

from streamcast.errors import CodedError
from streamcast.message import ZERO
from streamcast.proof import RESOLVE, Read, Reply
from streamcast.streams.lane import Lane, pack

TIMEOUT = 3.0
"""Seconds within which a change must have been told of."""
LIVES_MS = 10_000
"""How long the probe's key is kept if it can't be deleted."""


class Probe:
    """A follower of a key that nobody else knows.

    `follows`: it was read, so changes are told. `heard`: one was, since this was last cleared.
    `is_dead`: it is not followed.
    """

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.follows = asyncio.Event()
        self.heard = asyncio.Event()
        self.is_dead = False

    def next_read(self, announced: bool) -> Read | None:
        """Read it as one does who opens a room, so that the next change is told as well."""
        if announced:
            self.heard.set()
        return Read(RESOLVE, ZERO, 1)

    def received(self, read: Read, reply: Reply) -> bool:
        """Take in that it is being followed."""
        self.follows.set()
        if read.announced:
            # Told of while it was being read; it never is asked for so.
            self.heard.set()
        return False

    def failed(self, error: CodedError) -> None:
        """Take in that it is not followed: nothing will be heard."""
        self.is_dead = True

    async def hears(self, lane: Lane) -> bool:
        """Add to the key over a lane, and tell whether that was heard of; then it is deleted.

        Raises StoreError, hiredis.ReplyError.
        """
        try:
            async with asyncio.timeout(TIMEOUT):
                await self.follows.wait()
                lives = pack(("PEXPIRE", self.key, LIVES_MS))
                await lane.ask("XADD", self.key, "*", "probe", "1", then=lives)
                await self.heard.wait()
        except TimeoutError:
            return False
        await lane.ask("DEL", self.key)
        return True


def probe_keys(prefix: str) -> Iterator[bytes]:
    """Return keys that are no rooms', which have no braces, and that nobody else has."""
    token = secrets.token_hex(8)
    for number in count():
        yield f"{{{prefix}probe:{token}-{number}}}".encode()
