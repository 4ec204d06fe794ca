"""Whether deliveries work: a key of each master is added to, and that has to be told.

The law of this file: what counts is what came back the way that messages come: a lane that is open
says nothing. The key is no room's; it goes away by itself, and is another one when its slot moved.
"""

import asyncio
from itertools import islice

import hiredis

from streamcast.errors import StoreError
from streamcast.streams.commands import is_away
from streamcast.streams.interface import State
from streamcast.streams.lane import pack
from streamcast.streams.node import Node
from streamcast.streams.nodes import Nodes
from streamcast.streams.probe import Probe, probe_keys
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


class Probing:
    """Knows the state of a store, once `watch` runs.

    `waits`: seconds for which the store may answer nothing, in good order.
    """

    def __init__(self, nodes: Nodes, prefix: str, waits: float) -> None:
        self._nodes = nodes
        self._prefix = prefix
        self._within = WITHIN + waits
        self._probes: dict[Node, Probe] = {}
        self._states: dict[Node, State] = {}

    def __len__(self) -> int:
        """How many keys it follows."""
        return len(self._probes)

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
            for node in self._probes.keys() - set(nodes):
                self._forget(node)
            await asyncio.sleep(EVERY)

    async def _look(self, node: Node) -> State:
        # The node may have lost it, or have another one, before this is done with it.
        lane = node.write_lane
        if lane is None or node.read_lane is None:
            return State.NO_STORE
        probe = self._probe(node)
        if probe is None:
            return self._states.get(node, State.READY)  # its slots have just gone
        added = False
        try:
            async with asyncio.timeout(self._within):
                await probe.follows.wait()
                probe.heard.clear()
                # The time to live goes with it: what waits for replicas would hold it up.
                lives = pack(("PEXPIRE", probe.key, LIVES_MS))
                await lane.ask("XADD", probe.key, "MAXLEN", 1, "*", "probe", "1", then=lives)
                added = True
                await probe.heard.wait()
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

    def _probe(self, node: Node) -> Probe | None:
        """Return the follower of a key that is this node's; None if it has none."""
        probe = self._probes.get(node)
        if probe is None or probe.is_dead or self._nodes.of(probe.key) is not node:
            self._forget(node)
            if node not in self._nodes.masters():
                return None
            keys = islice(probe_keys(self._prefix), TRIES)
            key = next((key for key in keys if self._nodes.of(key) is node), None)
            if key is None:
                return None
            probe = self._probes[node] = Probe(key)
            node.follow(key, probe)
        return probe

    def _forget(self, node: Node) -> None:
        probe = self._probes.pop(node, None)
        if probe is not None:
            self._nodes.unfollow(probe.key)
