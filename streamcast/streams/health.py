"""Whether deliveries work: a key of each master is added to, and that has to be told.

The law of this file: what counts is what came back the way that messages come: a lane that is open
says nothing. The key is no room's; it goes away by itself, and is another one when its slot moved.
"""

import asyncio
from itertools import islice
from typing import Any

import hiredis

from streamcast.errors import CodedError, StoreError, Unavailable
from streamcast.message import ZERO
from streamcast.proof import Kind, Read, Reply
from streamcast.streams.commands import is_away
from streamcast.streams.interface import State
from streamcast.streams.lane import Lane, LaneLost, into, pack
from streamcast.streams.node import Node
from streamcast.streams.nodes import Nodes
from streamcast.streams.probe import probe_keys
from streamcast.streams.redirect import Redirect

EVERY = 1.0
"""Seconds between two additions."""
WITHIN = 2.0
"""Seconds within which one has to be told."""
LIVES_MS = 30_000
"""How long the key is kept."""


TRIES = 200_000
"""How many keys are tried to find one that is a node's; one that has a single slot has one in
16,384."""


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
    """Knows the state of a store, once `watch` runs.

    `waits`: seconds for which the store may answer nothing, in good order.
    """

    def __init__(self, nodes: Nodes, prefix: str, waits: float) -> None:
        self._nodes = nodes
        self._prefix = prefix
        self._within = WITHIN + waits
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
        if ear is None:
            return self._states.get(node, State.READY)  # its slots have just gone
        added = False
        try:
            async with asyncio.timeout(self._within):
                await ear.follows.wait()
                ear.heard.clear()
                await self._add(node.write_lane, ear.key)
                added = True
                await ear.heard.wait()
        except hiredis.ReplyError as error:
            return self._refused(node, error)
        except StoreError:
            return State.NO_STORE
        except TimeoutError:
            # It is followed anew: a key that was taken for another's is heard of no more.
            self._forget(node)
            return State.DEAF if added else State.NO_STORE
        return State.READY

    def _refused(self, node: Node, error: hiredis.ReplyError) -> State:
        if Redirect.parse(error) is not None:
            # The slot of the key has moved; that says nothing of the node.
            self._forget(node)
            return self._states.get(node, State.READY)
        return State.NO_STORE if is_away(error) else State.READ_ONLY

    async def _add(self, lane: Lane, key: bytes) -> None:
        """Add to a key. Raises hiredis.ReplyError where the store takes nothing; StoreError."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        add = pack("XADD", key, "MAXLEN", 1, "*", "probe", "1")
        lane.calls(add + pack("PEXPIRE", key, LIVES_MS), (into(answer), None))
        raw = await answer
        if isinstance(raw, hiredis.ReplyError):
            raise raw
        if isinstance(raw, LaneLost):
            raise Unavailable(str(raw))

    def _ear(self, node: Node) -> Ear | None:
        """Return the follower of a key that is this node's; None if it has none."""
        ear = self._ears.get(node)
        if ear is None or ear.is_dead or self._nodes.of(ear.key) is not node:
            self._forget(node)
            if node not in self._nodes.masters():
                return None
            keys = islice(probe_keys(self._prefix), TRIES)
            key = next((key for key in keys if self._nodes.of(key) is node), None)
            if key is None:
                return None
            ear = self._ears[node] = Ear(key)
            node.follow(key, ear)
        return ear

    def _forget(self, node: Node) -> None:
        ear = self._ears.pop(node, None)
        if ear is not None:
            self._nodes.unfollow(ear.key)
