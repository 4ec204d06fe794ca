"""The rooms' streams in a store: reading those that change, and adding to them.

`interface` says what is guaranteed; `redis` keeps it, for a single Redis or Valkey; `embedded` is a
Valkey of our own.
"""

from streamcast.streams.embedded import EmbeddedStore
from streamcast.streams.interface import Follower, Publication, State, Statistics, Streams
from streamcast.streams.redis import RedisStreams

__all__ = [
    "EmbeddedStore",
    "Follower",
    "Publication",
    "RedisStreams",
    "State",
    "Statistics",
    "Streams",
]
