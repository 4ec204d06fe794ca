"""One node of the store, a master: one lane whatever the number of rooms.

It adds, reads, and hears of changes; what is added is read in the same write. When it is opened
again, every position is proved anew, and only a node that says it is a master is read from.

There are two, one that reads and one that writes, where what is added waits for replicas: what is
read would wait too. So there are for a node that does not push changes; it is followed by waiting
for them, on a few connections more.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import hiredis

from streamcast import log
from streamcast.config import Follow, StreamSettings
from streamcast.errors import StartError, Unavailable
from streamcast.streams.block import Block
from streamcast.streams.connect import Refused, open_lane
from streamcast.streams.endpoint import Endpoint
from streamcast.streams.interface import Follower, Publication
from streamcast.streams.lane import Lane
from streamcast.streams.link import Link
from streamcast.streams.notifier import Notifier
from streamcast.streams.probe import Probe, probe_keys
from streamcast.streams.reader import Reader
from streamcast.streams.tracking import Tracking
from streamcast.streams.writer import Writer


class Where(Protocol):
    """Says where a node is."""

    def __str__(self) -> str:
        """Return it for people, without secrets."""

    async def endpoint(self) -> Endpoint:
        """Return where it is just now. Raises Unavailable."""


class At:
    """A node that stays where it is."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def __str__(self) -> str:
        return str(self._endpoint)

    async def endpoint(self) -> Endpoint:
        """Return it."""
        return self._endpoint


class Redirects(Protocol):
    """One who knows what other nodes there are. It is told what a node refused, and why."""

    def read(self, node: "Node", key: bytes, error: hiredis.ReplyError, *, announced: bool) -> bool:
        """Return whether the key is read elsewhere from now on."""

    def published(
        self, node: "Node", key: bytes, publication: Publication, error: hiredis.ReplyError
    ) -> bool:
        """Return whether the publication goes on elsewhere, or later."""


class Node:
    """A node, and who follows what on it. Keys are given, not rooms.

    `max_message`: bytes, see `Message`.
    """

    def __init__(
        self,
        settings: StreamSettings,
        max_message: int,
        where: Where,
        redirects: Redirects | None = None,
    ) -> None:
        self._settings = settings
        self._redirects = redirects
        self.where = where
        self.reader = Reader(max_message, self._read_refused)
        self.writer = Writer(
            settings, self.reader.followed, self.demoted, self._publication_refused
        )
        self._learn_from(Tracking(self.reader))
        self._reading = self._writing = self._link("rooms", self._connected, self._disconnected)
        self._lane_links: Sequence[Link] = (self._reading,)
        if settings.replicas_ack or settings.follow == Follow.BLOCK:
            self._part()

    @property
    def connections(self) -> int:
        """How many connections it has at most; asked for each client that comes."""
        return len(self._lane_links) + len(self._notifier.links)

    @property
    def reopened(self) -> int:
        """How often lanes were opened again."""
        return sum(link.reopened for link in self._lane_links)

    @property
    def lanes(self) -> Sequence[Lane]:
        """The lanes that there are just now."""
        return [link.lane for link in self._lane_links if link.lane is not None]

    @property
    def read_lane(self) -> Lane | None:
        """The lane that reads, while there is one."""
        return self._reading.lane

    @property
    def write_lane(self) -> Lane | None:
        """The lane that writes, while there is one."""
        return self._writing.lane

    # Connecting

    async def start(self) -> None:
        """Connect, and make sure that changes are told. Raises StartError, StoreError."""
        try:
            await self._follow_changes()
            await self._warn_of_settings()
        except hiredis.ReplyError as error:
            raise StartError(f"Redis at {self.where} refused: {error}.") from error

    def start_soon(self) -> None:
        """Connect, trying until the node answers."""
        for link in self._lane_links:
            link.open_soon()

    async def close(self) -> None:
        """Disconnect; what is under way ends as Unavailable or Unknown."""
        await self._notifier.close()
        for link in self._lane_links:
            await link.close()

    @property
    def _links(self) -> Sequence[Link]:
        return (*self._lane_links, *self._notifier.links)

    def hurry(self) -> None:
        """Try at once to open what is not open."""
        for link in self._links:
            link.hurry()

    def leave_all_but(self, endpoint: Endpoint) -> bool:
        """Open anew what leads elsewhere; return whether anything did."""
        elsewhere = [link for link in self._links if link.lane and link.lane.where != endpoint]
        for link in elsewhere:
            link.cut("another node is the master")
        return bool(elsewhere)

    def demoted(self) -> None:
        """Take in that the node is a replica by now: no proof counts from it."""
        for link in self._links:
            link.cut("the store is no longer a master")

    async def _follow_changes(self) -> None:
        """Open the lanes, with the notifier that was chosen or that works."""
        follow = self._settings.follow
        if self._reading is not self._writing:
            await self._writing.open()
        if follow != Follow.BLOCK:
            if await self._can_track():
                return
            if self._reading is self._writing:
                self._part()
                await self._writing.open()
            log.warning("store does not push changes", store=str(self.where), following="block")
        wait = self._settings.silence / 2
        self._learn_from(Block(self.reader, wait, self.writer.send, self._link))
        await self._reading.open()
        if follow == Follow.AUTO and not await self._hears():
            raise StartError(
                f"Redis at {self.where} tells of changed keys neither by pushes (CLIENT "
                "TRACKING over RESP3) nor to those who wait (XREAD BLOCK): connect to it "
                "directly, not through a proxy."
            )

    async def _can_track(self) -> bool:
        """Open the lane that reads with tracking on, and keep it if it works."""
        if self._settings.follow == Follow.TRACKING:
            await self._reading.open()
            return True
        try:
            await self._reading.open()
            if await self._hears():
                return True
        except Refused:
            pass  # if it does not take the lane at all, the next one will tell
        await self._reading.close()
        return False

    async def _hears(self) -> bool:
        """Whether an entry that another connection adds is really told of. Raises StoreError.

        One that is added on the lane itself would not do: it has an answer, with which even those
        let a push through who hold back all others.
        """
        lanes = [link.lane for link in self._lane_links]
        adding = await self._open("streamcast-probe")
        probe = Probe(next(probe_keys(self._settings.prefix)))
        self.follow(probe.key, probe)
        try:
            heard = await probe.hears(adding)
        finally:
            self.unfollow(probe.key)
            adding.close()
        if not heard and lanes != self.lanes:
            # That says nothing about what the store can do.
            raise Unavailable(f"Redis at {self.where} closed the connection.")
        return heard

    async def _open(self, name: str) -> Lane:
        return await open_lane(
            await self.where.endpoint(),
            name,
            self._settings.silence,
            lambda _: None,
            lambda _: None,
            in_cluster=self._redirects is not None,
        )

    async def _connect(self, name: str, lost: Callable[[str], None]) -> Lane:
        reads = name == self._reading.name
        endpoint = await self.where.endpoint()
        # While replicas are waited for a node owes answers, and is not silent.
        waits = self._settings.waits_for_replicas if name == self._writing.name else 0.0
        lane = await open_lane(
            endpoint,
            f"streamcast-{name}",
            self._settings.silence + waits,
            self._notifier.pushed,
            lost,
            self._notifier.set_up if reads else None,
            in_cluster=self._redirects is not None,
        )
        lane.pace = self._settings.pace
        return lane

    def _learn_from(self, notifier: Notifier) -> None:
        """Have it tell which keys changed."""
        self._notifier = notifier
        # Where replicas are waited for, what is added waits, and would be read too early; and the
        # lane that writes is another one, of which nothing is watched.
        if not self._settings.replicas_ack:
            self.writer.adds = notifier.adds
            self.writer.unwatched = notifier.unwatched

    def _part(self) -> None:
        """Have two lanes from now on."""
        self._reading = self._link("read", self.reader.connected, self.reader.disconnected)
        self._writing = self._link("write", self.writer.connected, self.writer.disconnected)
        self._lane_links = (self._writing, self._reading)

    def _connected(self, lane: Lane) -> None:
        self.writer.connected(lane)
        self.reader.connected(lane)

    def _disconnected(self) -> None:
        self.writer.disconnected()
        self.reader.disconnected()

    def _link(
        self, name: str, connected: Callable[[Lane], None], disconnected: Callable[[], None]
    ) -> Link:
        return Link(name, self.where, self._connect, connected, disconnected)

    async def _warn_of_settings(self) -> None:
        """Look for settings of the store that could lose messages; CONFIG may be forbidden."""
        lane = self._reading.lane
        if lane is None:
            raise Unavailable(f"Redis at {self.where} closed the connection.")
        try:
            policy = await lane.ask("CONFIG", "GET", "maxmemory-policy")
            table = await lane.ask("CONFIG", "GET", "tracking-table-max-keys")
        except hiredis.ReplyError:
            return
        name = policy.get(b"maxmemory-policy", b"noeviction").decode()
        if name != "noeviction":
            log.warning("store may evict rooms", maxmemory_policy=name, advice="set noeviction")
        keys = int(table.get(b"tracking-table-max-keys", 0))
        if 0 < keys < 100_000:
            log.warning("store tracks few keys", tracking_table_max_keys=keys, advice="set 1000000")

    # Keys

    def follow(self, key: bytes, follower: Follower) -> None:
        """Begin to follow a key."""
        self.reader.follow(key, self._notifier.watch(key, follower))

    def unfollow(self, key: bytes) -> None:
        """End following."""
        self.reader.unfollow(key)
        self._notifier.unwatch(key)

    def hand_over(self, key: bytes, there: "Node", *, asking: bool, announced: bool) -> None:
        """Have a key followed on another node by who follows it here, from where he is.

        `asking`: its slot is still on its way there. `announced`: a change of it was told. Only for
        nodes that push what changes.
        """
        opening = self.reader.is_opening(key)
        announced = announced or self.reader.is_announced(key)
        follower = self.reader.unfollow(key)
        if follower is not None and key not in there.reader:
            there.reader.follow(key, follower, asking=asking, opening=opening)
            there.reader.mark(key, announced=announced)

    # Being refused

    def _read_refused(self, key: bytes, error: hiredis.ReplyError, announced: bool) -> bool:
        redirects = self._redirects
        return redirects is not None and redirects.read(self, key, error, announced=announced)

    def _publication_refused(
        self, key: bytes, publication: Publication, error: hiredis.ReplyError
    ) -> bool:
        redirects = self._redirects
        return redirects is not None and redirects.published(self, key, publication, error)
