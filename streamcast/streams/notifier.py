"""The interface of those who learn which rooms changed, and mark them for the reader."""

from collections.abc import Sequence
from typing import Any, Protocol

from streamcast.streams.interface import Follower
from streamcast.streams.lane import Lane
from streamcast.streams.link import Link


class Notifier(Protocol):
    """Marks the keys that it watches when they may have changed.

    `unwatched`: the command, packed, in front of one that reads on the lane of reads what nobody is
    to be told of; or nothing.
    """

    unwatched: bytes

    async def set_up(self, lane: Lane) -> None:
        """Prepare a new lane that reads. Raises hiredis.ReplyError, StoreError."""

    def pushed(self, push: list[Any]) -> None:
        """Take in what the store pushed on it."""

    def adds(self, key: bytes) -> bool:
        """Take in that this server is just about to add to a key. Returns whether it is watched."""

    def watch(self, key: bytes, follower: Follower) -> Follower:
        """Begin to watch a key. Returns whom the reader has to ask and to tell."""

    def unwatch(self, key: bytes) -> None:
        """End watching a key."""

    @property
    def links(self) -> Sequence[Link]:
        """Its own connections."""

    async def close(self) -> None:
        """Let go of what it holds."""
