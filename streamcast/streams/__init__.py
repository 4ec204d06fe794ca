"""The rooms' streams in a store: reading those that change, and adding to them.

`interface` says what is guaranteed, and `redis` keeps it, whatever the engine. `node` is one master
with its lane; `nodes` and `cluster` know which node a key is on: the only one, which sentinels
may name, or one of a cluster's. `embedded` is a Valkey of our own.
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
