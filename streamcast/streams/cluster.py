"""A cluster: each master is a node, and keys go with their slots.

The law of this file: who has a slot is what the cluster says (`slots`), asked every second and
whenever a node sends us elsewhere (MOVED). A key that is elsewhere by now is read again there, so
that its position is proved anew; a publication that a node returned goes there, too (`detours`).
A key whose slot is on its way follows what the node says of it (ASK). Redis does not tell those who
read an absent key that its slot moves, so the keys of a slot on its way are read every second.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain

import hiredis

from streamcast import log
from streamcast.config import Follow, StreamSettings
from streamcast.errors import StartError, StoreError, Unavailable
from streamcast.streams.connect import Refused, open_lane
from streamcast.streams.detours import Detours
from streamcast.streams.endpoint import Endpoint, StoreUrl
from streamcast.streams.interface import Publication
from streamcast.streams.lane import Lane
from streamcast.streams.node import At, Node
from streamcast.streams.redirect import Redirect, is_retried
from streamcast.streams.slots import SLOTS, Address, View, owners, slot_of

LOOK_EVERY = 1.0
"""Seconds between two looks at who has which slots."""
LOOK_AGAIN = 0.1
"""Seconds between two looks where a node has sent us elsewhere."""
MOST_SENT = 3
"""How often a key is read elsewhere at once; nodes that disagree would send it to and fro."""
PATIENCE = 1.0
"""Seconds within which a node has to say what it knows."""


class Cluster:
    """The nodes of a cluster."""

    def __init__(self, settings: StreamSettings, max_message: int, url: StoreUrl) -> None:
        if settings.follow == Follow.BLOCK:
            raise StartError("--follow block does not work in a cluster; leave it at auto.")
        # Who waits for changes would have to wait on each node for its own keys.
        self._settings = replace(settings, follow=Follow.TRACKING)
        self._max_message = max_message
        self._seeds = url.endpoints
        self._nodes: dict[Address, Node] = {}
        # For slots that nobody has: it is never connected.
        self._nowhere = Node(self._settings, max_message, At(url.endpoints[0]), self)
        self._slots = [self._nowhere] * SLOTS
        # Keys whose slot is on its way to another node, where they are already.
        self._asked: dict[bytes, Node] = {}
        # How often each was sent elsewhere since the last look.
        self._sent: Counter[bytes] = Counter()
        self._owners: list[str] = []
        self._addresses: dict[str, Address] = {}
        self._detours = Detours(lambda key: self.of(key).writer)
        self._look_now = asyncio.Event()

    def __str__(self) -> str:
        return ",".join(map(str, self._seeds))

    def all(self) -> Sequence[Node]:
        """Return all nodes."""
        return [*self._nodes.values(), self._nowhere]

    def masters(self) -> Collection[Node]:
        """Return those that have slots, and the one that is nowhere if slots have no master."""
        return set(self._slots)

    def of(self, key: bytes) -> Node:
        """Return the node that a key is on."""
        if self._asked and (node := self._asked.get(key)) is not None:
            return node
        return self._slots[slot_of(key)]

    def unfollow(self, key: bytes) -> None:
        """End following a key: until the next look it may be another node's than its follower."""
        for node in self.all():
            if key in node.reader:
                node.unfollow(key)

    def publish(self, key: bytes, publication: Publication) -> None:
        """Add to a stream."""
        if not self._detours.holds(key, publication):
            self.of(key).writer.publish(key, publication)

    def held(self) -> Sequence[Publication]:
        """Return the publications that wait until it is known where their key is."""
        return self._detours.publications()

    # Connecting

    async def start(self) -> None:
        """Connect to all masters. Raises StartError, StoreError."""
        new = self._take_in(await self._ask_seeds())
        started = await asyncio.gather(*map(self._start, new))
        if not any(started):
            raise Unavailable(f"None of the masters of the cluster at {self} can be reached.")

    async def _start(self, node: Node) -> bool:
        """Connect to a master; one of several may be about to be replaced. Raises StartError."""
        try:
            await node.start()
        except Refused:
            raise
        except StoreError as error:
            log.warning("master can't be reached", store=str(node.where), reason=str(error))
            node.start_soon()
            return False
        return True

    async def watch(self) -> None:
        """Look for ever who has which slots."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), LOOK_EVERY)
                await asyncio.sleep(LOOK_AGAIN)
            self._look_now.clear()
            try:
                views = await self._ask_nodes() or await self._ask_seeds()
            except StoreError as error:
                log.debug("cluster unknown", reason=str(error))
                continue
            for node in self._take_in(views):
                node.start_soon()
            self._sent.clear()
            self._go_back(views)
            self._read_what_leaves(views)
            await self._forget_empty_nodes()

    async def close(self) -> None:
        """Disconnect."""
        self._detours.close()
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    # Who has which slots

    async def _ask_nodes(self) -> list[View]:
        """Ask all nodes that we are connected to; those that don't answer say nothing."""
        asked = (self._view(address, node) for address, node in self._nodes.items())
        return [view for view in await asyncio.gather(*asked) if view is not None]

    async def _view(self, address: Address, node: Node) -> View | None:
        try:
            return None if node.write_lane is None else await _ask(node.write_lane, address)
        except (StoreError, hiredis.ReplyError):
            return None

    async def _ask_seeds(self) -> list[View]:
        """Ask all nodes that were ever known, over connections of their own. Raises StoreError."""
        known = {Address(each.host, each.port): each for each in self._seeds}
        known |= {each: self._endpoint(each) for each in self._addresses.values()}
        asked = [self._ask_once(address, endpoint) for address, endpoint in known.items()]
        answers = await asyncio.gather(*asked)
        views = [answer for answer in answers if isinstance(answer, View)]
        if not views:
            raise next(answer for answer in answers if isinstance(answer, StoreError))
        return views

    async def _ask_once(self, address: Address, endpoint: Endpoint) -> View | StoreError:
        """Return what a node says, or why it does not."""
        try:
            return await self._ask_newly(address, endpoint)
        except StoreError as error:
            return error

    async def _ask_newly(self, address: Address, endpoint: Endpoint) -> View:
        lane = await open_lane(
            endpoint,
            "streamcast-look",
            self._settings.silence,
            lambda _: None,
            lambda _: None,
            in_cluster=True,
            to_master=False,
        )
        try:
            return await _ask(lane, address)
        except hiredis.ReplyError as error:
            raise Refused(f"Redis at {endpoint} does not speak for a cluster: {error}.") from error
        finally:
            lane.close()

    def _take_in(self, views: Iterable[View]) -> list[Node]:
        """Have every key follow its slot; return masters that were not known before."""
        addresses = {id_: where for view in views for id_, where in view.addresses.items()}
        found = owners(views)
        if found == self._owners and addresses == self._addresses:
            return []
        before = set(self._nodes.values())
        self._owners, self._addresses = found, addresses
        node_of = {"": self._nowhere}
        for id_ in set(found) - {""}:
            if id_ in addresses:
                node_of[id_] = self._at(addresses[id_])
        slots = [node_of.get(id_, self._nowhere) for id_ in found]
        for node in self.all():
            leave = {key for key in node.writer.busy_keys() if slots[slot_of(key)] is not node}
            self._detours.begin(leave - self._asked.keys(), node.writer)
        self._slots = slots
        for key, node in list(self._asked.items()):
            if self._slots[slot_of(key)] is node:
                self._has_come(key)
        for node in self.all():
            for key in list(node.reader.followed):
                self._move(key, node)
        return [node for node in self._nodes.values() if node not in before]

    def _at(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            endpoint = self._endpoint(address)
            node = self._nodes[address] = Node(
                self._settings, self._max_message, At(endpoint), self
            )
            log.info("master", store=str(endpoint))
        return node

    def _endpoint(self, address: Address) -> Endpoint:
        return replace(self._seeds[0], host=address.host, port=address.port)

    async def _forget_empty_nodes(self) -> None:
        """Disconnect from nodes that have no slot any more."""
        used = {*self._slots, *self._asked.values()}
        for address, node in list(self._nodes.items()):
            if node not in used and not node.writer.publishing:
                del self._nodes[address]
                log.info("no master any more", store=str(node.where))
                await node.close()

    def _go_back(self, views: Iterable[View]) -> None:
        """Have keys follow their slots again that are on their way nowhere: it was given up."""
        leaving = {view.asked: view.leaving for view in views}
        addresses = {node: address for address, node in self._nodes.items()}
        for key, node in list(self._asked.items()):
            slot = slot_of(key)
            owner = addresses.get(self._slots[slot])
            if owner in leaving and slot not in leaving[owner]:
                self._detours.begin({key} & node.writer.busy_keys(), node.writer)
                self._has_come(key)
                self._move(key, node)

    def _read_what_leaves(self, views: Iterable[View]) -> None:
        leaving = frozenset(chain.from_iterable(view.leaving for view in views))
        if leaving:
            for node in self.all():
                for key in list(node.reader.followed):
                    if slot_of(key) in leaving:
                        node.reader.mark(key)

    # Being sent elsewhere

    def read(self, node: Node, key: bytes, error: hiredis.ReplyError, *, announced: bool) -> bool:
        """Take in that a node refused a read. Returns whether the key is read elsewhere."""
        if self._sent[key] >= MOST_SENT or not self._learn(node, key, error):
            return False
        self._sent[key] += 1
        self._move(key, node, announced=announced)
        return True

    def published(
        self, node: Node, key: bytes, publication: Publication, error: hiredis.ReplyError
    ) -> bool:
        """Take in that a node returned a publication. Returns whether it goes on."""
        one_by_one = is_retried(error)
        if not (one_by_one or self._learn(node, key, error)):
            return False
        self._move(key, node)
        return self._detours.returned(key, publication, node.writer, one_by_one=one_by_one)

    def _learn(self, node: Node, key: bytes, error: hiredis.ReplyError) -> bool:
        """Read where a key is; False if the error does not say that."""
        redirect = Redirect.parse(error)
        if redirect is None:
            return False
        self._look_now.set()
        address = Address(redirect.host or self._host_of(node), redirect.port)
        is_new = address not in self._nodes
        there = self._at(address)
        if is_new:
            there.start_soon()
        if redirect.asks and self._asked.get(key) is not there:
            self._detours.begin({key} & node.writer.busy_keys(), node.writer)
            self._asked[key] = there
            there.writer.asking.add(key)
        elif not redirect.asks:
            self._has_come(key)
            self._slot_is_at(redirect.slot, there)
        return True

    def _slot_is_at(self, slot: int, there: Node) -> None:
        node = self._slots[slot]
        if node is not there:
            busy = {key for key in node.writer.busy_keys() if slot_of(key) == slot}
            self._detours.begin(busy, node.writer)
            self._slots[slot] = there
            self._owners = []

    def _has_come(self, key: bytes) -> None:
        """Take in that a key is where its slot is."""
        node = self._asked.pop(key, None)
        if node is not None:
            node.writer.asking.discard(key)
            node.reader.has_come(key)

    def _host_of(self, node: Node) -> str:
        hosts = (address.host for address, each in self._nodes.items() if each is node)
        return next(hosts, self._seeds[0].host)

    def _move(self, key: bytes, node: Node, *, announced: bool = False) -> None:
        """Have a key followed where it is by now."""
        there = self.of(key)
        if there is not node:
            node.hand_over(key, there, asking=key in self._asked, announced=announced)


async def _ask(lane: Lane, address: Address) -> View:
    """Return what a node says. Raises hiredis.ReplyError, StoreError."""
    try:
        async with asyncio.timeout(PATIENCE):
            nodes, slots = await asyncio.gather(
                lane.ask("CLUSTER", "NODES"), lane.ask("CLUSTER", "SLOTS")
            )
    except TimeoutError:
        raise Unavailable(f"Redis at {address.host}:{address.port} does not answer.") from None
    return View.of(nodes, slots, address)
