"""Whether deliveries work: a key of each master is added to, and that has to be told.

The law of this file: what counts is what came back the way that messages come: a lane that is open
says nothing. The key is no room's; it goes away by itself, and is another one when its slot moved.
"""

import asyncio

import hiredis

from streamcast.errors import CodedError, StoreError
from streamcast.message import ZERO
from streamcast.proof import Kind, Read, Reply
from streamcast.streams.interface import State
from streamcast.streams.lane import Lane
from streamcast.streams.node import Node
from streamcast.streams.nodes import Nodes
from streamcast.streams.probe import probe_key
from streamcast.streams.redirect import Redirect

EVERY = 1.0
"""Seconds between two additions."""
WITHIN = 2.0
"""Seconds within which one has to be told."""
LIVES_MS = 30_000
"""How long the key is kept."""


_AWAY = {"LOADING", "CLUSTERDOWN", "MASTERDOWN", "BUSY"}
"""What a node says that serves nobody just now."""


class Ear:
    """A follower of a master's key.

    `follows`: it was read, so changes are told. `heard`: one was, since this was last cleared.
    `is_dead`: it is not followed.
    """

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.follows = asyncio.Event()
        self.heard = asyncio.Event()
        self.is_dead = False

    def next_read(self, *, announced: bool) -> Read | None:
        """Read it, so that the next change is told as well."""
        if announced:
            self.heard.set()
        return Read(Kind.RESOLVE, ZERO, 1)

    def received(self, read: Read, reply: Reply) -> bool:
        """Take in that it is being followed."""
        self.follows.set()
        return False

    def failed(self, error: CodedError) -> None:
        """Take in that it is not followed: nothing will be heard."""
        self.is_dead = True


class Probing:
    """Knows the state of a store, once `watch` runs."""

    def __init__(self, nodes: Nodes, prefix: str) -> None:
        self._nodes = nodes
        self._prefix = prefix
        self._ears: dict[Node, Ear] = {}
        self._states: dict[Node, State] = {}

    def __len__(self) -> int:
        """How many keys it follows."""
        return len(self._ears)

    @property
    def state(self) -> State:
        """That of the master that does worst."""
        order = list(State)
        return max(self._states.values(), key=order.index, default=State.READY)

    async def watch(self) -> None:
        """Look for ever how the masters do."""
        while True:
            nodes = self._nodes.masters()
            states = await asyncio.gather(*map(self._look, nodes))
            self._states = dict(zip(nodes, states, strict=True))
            for node in self._ears.keys() - set(nodes):
                self._forget(node)
            await asyncio.sleep(EVERY)

    async def _look(self, node: Node) -> State:
        if node.write_lane is None or node.read_lane is None:
            return State.NO_STORE
        ear = self._ear(node)
        try:
            async with asyncio.timeout(WITHIN):
                await ear.follows.wait()
                ear.heard.clear()
                await self._add(node.write_lane, ear.key)
                await ear.heard.wait()
        except hiredis.ReplyError as error:
            return self._refused(node, error)
        except StoreError:
            return State.NO_STORE
        except TimeoutError:
            # It is followed anew: a key that was taken for another's is heard of no more.
            self._forget(node)
            return State.DEAF
        return State.READY

    def _refused(self, node: Node, error: hiredis.ReplyError) -> State:
        if Redirect.parse(error) is not None:
            # The slot of the key has moved; that says nothing of the node.
            self._forget(node)
            return self._states.get(node, State.READY)
        return State.NO_STORE if str(error).partition(" ")[0] in _AWAY else State.READ_ONLY

    async def _add(self, lane: Lane, key: bytes) -> None:
        """Add to a key. Raises hiredis.ReplyError where the store takes nothing; StoreError."""
        await lane.ask("XADD", key, "MAXLEN", 1, "*", "probe", "1")
        await lane.ask("PEXPIRE", key, LIVES_MS)

    def _ear(self, node: Node) -> Ear:
        """Return the follower of a key that is this node's."""
        ear = self._ears.get(node)
        if ear is None or ear.is_dead or self._nodes.of(ear.key) is not node:
            self._forget(node)
            key = probe_key(self._prefix)
            while self._nodes.of(key) is not node:
                key = probe_key(self._prefix)
            ear = self._ears[node] = Ear(key)
            node.follow(key, ear)
        return ear

    def _forget(self, node: Node) -> None:
        ear = self._ears.pop(node, None)
        if ear is not None:
            self._nodes.of(ear.key).unfollow(ear.key)
