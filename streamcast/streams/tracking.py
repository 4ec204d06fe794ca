"""The notifier `tracking`: the store itself says which keys changed (CLIENT TRACKING).

Redis remembers each key that the lane reads and pushes one `invalidate` when it changes; the next
read registers the key again. A push with nil stands for every key (FLUSHALL).
"""

import asyncio
import secrets
from typing import Any

from streamcast.errors import StartError
from streamcast.streams.lane import Lane, pack
from streamcast.streams.reader import Reader

PROBE_TIMEOUT = 3.0
"""Seconds within which a push must have come back."""


class Tracking:
    """Marks what the store says has changed."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._probe: tuple[bytes, asyncio.Event] | None = None

    async def turn_on(self, lane: Lane) -> None:
        """Ask a new lane for pushes. Raises hiredis.ReplyError, StoreError."""
        await lane.ask("CLIENT", "TRACKING", "ON")

    def pushed(self, push: list[Any]) -> None:
        """Take in what the store pushed."""
        if push[0] != b"invalidate":
            return
        keys: list[bytes] | None = push[1]
        if keys is None:
            # Nobody said that an absent stream was added to, so this announces none.
            self._reader.mark_all()
            return
        for key in keys:
            if self._probe is not None and key == self._probe[0]:
                self._probe[1].set()
            else:
                self._reader.mark(key, announced=True)

    async def probe(self, read_lane: Lane, write_lane: Lane, prefix: str) -> None:
        """Make sure that pushes really come: proxies say OK and drop them. Raises StartError."""
        key = f"{{{prefix}probe:{secrets.token_hex(8)}}}".encode()
        came = asyncio.Event()
        self._probe = key, came
        try:
            await read_lane.ask("XLEN", key)
            write_lane.calls(
                pack("XADD", key, "*", "probe", "1") + pack("PEXPIRE", key, 10_000), (None, None)
            )
            async with asyncio.timeout(PROBE_TIMEOUT):
                await came.wait()
            write_lane.call(pack("DEL", key), None)
        except TimeoutError:
            raise StartError(
                "Redis does not tell of changed keys (CLIENT TRACKING over RESP3): connect to it "
                "directly, not through a proxy."
            ) from None
        finally:
            self._probe = None
