"""The notifier `tracking`: the store itself says which keys changed (CLIENT TRACKING).

Redis remembers each key that the lane reads and pushes one `invalidate` when it changes; the next
read registers the key again. A push with nil stands for every key (FLUSHALL). What the next command
reads is not remembered after CLIENT CACHING NO, for which a lane has to say OPTOUT first.
"""

from collections.abc import Sequence
from typing import Any

from streamcast.streams.interface import Follower
from streamcast.streams.lane import Lane, pack
from streamcast.streams.link import Link
from streamcast.streams.reader import Reader


class Tracking:
    """Marks what the store says has changed."""

    links: Sequence[Link] = ()
    unwatched = pack(("CLIENT", "CACHING", "NO"))

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        # It is read right behind, on the same way to the store and back.
        self.adds = reader.read_behind

    async def set_up(self, lane: Lane) -> None:
        """Ask a new lane for pushes. Raises hiredis.ReplyError, StoreError."""
        await lane.ask("CLIENT", "TRACKING", "ON", "OPTOUT")

    def pushed(self, push: list[Any]) -> None:
        """Take in what the store pushed."""
        if push[0] != b"invalidate":
            return
        keys: list[bytes] | None = push[1]
        if keys is None:
            # Nobody said that an absent stream was added to, so this announces none.
            self._reader.mark_all()
            return
        self._reader.announce(keys)

    def watch(self, key: bytes, follower: Follower) -> Follower:
        """Do nothing more: what is read is watched."""
        return follower

    def unwatch(self, key: bytes) -> None:
        """Do nothing: one push may still come, for nobody."""

    async def close(self) -> None:
        """Do nothing: the lane takes it all with it."""
