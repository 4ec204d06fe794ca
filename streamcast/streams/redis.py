"""The rooms' streams in one Redis or Valkey.

Two lanes whatever the number of rooms: one reads and hears of changes, one writes. When the one
that reads is opened again, every position is proved anew. A store that does not push changes is
followed by waiting for them, on a few connections more.
"""

import asyncio
from collections.abc import Callable, Sequence
from math import ceil

import hiredis

from streamcast import log
from streamcast.config import Follow, StreamSettings
from streamcast.errors import StartError, StoreError, Unavailable
from streamcast.message import Message, MessageId
from streamcast.proof import Read, Reply
from streamcast.streams.block import Block
from streamcast.streams.connect import Refused, open_lane
from streamcast.streams.endpoint import Endpoint
from streamcast.streams.interface import Follower, Publication, Statistics
from streamcast.streams.lane import Lane
from streamcast.streams.link import Link
from streamcast.streams.notifier import Notifier
from streamcast.streams.probe import Probe, probe_key
from streamcast.streams.reader import Reader
from streamcast.streams.tracking import Tracking
from streamcast.streams.writer import Writer

AUDITS = 30
"""In how many steps an audit goes through all rooms."""


class RedisStreams:
    """See `Streams` for what is guaranteed. `max_message`: bytes, see `Message`."""

    def __init__(self, settings: StreamSettings, max_message: int) -> None:
        self._settings = settings
        self._endpoint = Endpoint.parse(settings.redis)
        if "{" in settings.prefix or "}" in settings.prefix:
            raise StartError("--prefix can't have braces.")
        self._prefix = settings.prefix
        self._reader = Reader(max_message)
        self._writer = Writer(settings, self._reader.__contains__, self._demoted)
        self._keeper = self._writer.keeper
        self._notifier: Notifier = Tracking(self._reader)
        self._reading = self._link("read", self._reader.connected, self._reader.disconnected)
        self._writing = self._link("write", self._writer.connected, self._writer.disconnected)
        self._auditing: asyncio.Task[None] | None = None
        self._audits = 0

    @property
    def where(self) -> str:
        """The store's address, without secrets."""
        return str(self._endpoint)

    @property
    def more_connections(self) -> int:
        """How many connections it holds beside its two lanes."""
        return self._notifier.connections

    # Connecting

    async def start(self) -> None:
        """Connect, and make sure that changes are told. Raises StartError."""
        try:
            write_lane = await self._writing.open()
            await self._follow_changes()
            await self._warn_of_settings(write_lane)
        except StoreError as error:
            await self.close()
            raise StartError(str(error)) from error
        except hiredis.ReplyError as error:
            await self.close()
            raise StartError(f"Redis at {self._endpoint} refused: {error}.") from error
        except BaseException:
            await self.close()
            raise
        self._auditing = asyncio.create_task(self._audit())
        self._auditing.add_done_callback(lambda task: log.fault_of(task, "audit"))

    async def close(self) -> None:
        """Disconnect; what is under way ends as Unavailable or Unknown."""
        if self._auditing is not None:
            self._auditing.cancel()
            await asyncio.gather(self._auditing, return_exceptions=True)
        await self._notifier.close()
        for link in (self._reading, self._writing):
            await link.close()

    async def _follow_changes(self) -> None:
        """Open the read lane, with the notifier that was chosen or that works."""
        follow = self._settings.follow
        if follow != Follow.BLOCK:
            if await self._can_track():
                return
            log.warning("store does not push changes", store=self.where, following="block")
        self._notifier = Block(
            self._reader, self._settings.silence / 2, self._writer.send, self._link
        )
        await self._reading.open()
        if follow == Follow.AUTO and not await self._hears():
            raise StartError(
                f"Redis at {self._endpoint} tells of changed keys neither by pushes (CLIENT "
                "TRACKING over RESP3) nor to those who wait (XREAD BLOCK): connect to it "
                "directly, not through a proxy."
            )

    async def _can_track(self) -> bool:
        """Open the read lane with tracking on, and keep it if it works."""
        if self._settings.follow == Follow.TRACKING:
            await self._reading.open()
            return True
        try:
            await self._reading.open()
            if await self._hears():
                return True
        except Refused:
            pass  # it takes the lane, as it took the one that writes, but not the tracking
        await self._reading.close()
        return False

    async def _hears(self) -> bool:
        """Whether an entry that is added is really told of. Raises Unavailable."""
        lane = self._reading.lane
        key, probe = probe_key(self._prefix), Probe()
        self._reader.follow(key, self._notifier.watch(key, probe))
        try:
            heard = await probe.hears(key, self._writer.send)
        finally:
            self._reader.unfollow(key)
            self._notifier.unwatch(key)
        if not heard and self._reading.lane is not lane:
            # That says nothing about what the store can do.
            raise Unavailable(f"Redis at {self._endpoint} closed the connection.")
        return heard

    async def _connect(self, name: str, lost: Callable[[str], None]) -> Lane:
        reads = name == self._reading.name
        return await open_lane(
            self._endpoint,
            f"streamcast-{name}",
            self._settings.silence,
            self._notifier.pushed,
            lost,
            self._notifier.set_up if reads else None,
        )

    def _link(
        self, name: str, connected: Callable[[Lane], None], disconnected: Callable[[], None]
    ) -> Link:
        return Link(name, self._connect, connected, disconnected)

    def _demoted(self) -> None:
        """Take in that the node is a replica by now: no proof counts from it."""
        for link in (self._reading, self._writing):
            link.cut("the store is no longer a master")

    # Audit

    async def _audit(self) -> None:
        """Read each followed room again once in an interval, spread evenly; renew its time."""
        interval = self._settings.audit
        if self._keeper.expires:
            interval = min(interval, self._settings.retained / 4)
        while True:
            keys = self._reader.keys()
            share = ceil(len(keys) / AUDITS)
            for step in range(AUDITS):
                await asyncio.sleep(interval / AUDITS)
                for key in keys[step * share : (step + 1) * share]:
                    if key in self._reader:
                        self._audits += 1
                        self._reader.mark(key)
                        self._keeper.renew(key)
            self._keeper.forget_quiet()

    async def _warn_of_settings(self, lane: Lane) -> None:
        """Look for settings of the store that could lose messages; CONFIG may be forbidden."""
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

    # Rooms

    def _key(self, room: str) -> bytes:
        return (self._prefix + room).encode()

    def follow(self, room: str, follower: Follower) -> None:
        """Begin to follow a room."""
        key = self._key(room)
        self._reader.follow(key, self._notifier.watch(key, follower))
        self._keeper.renew(key)

    def unfollow(self, room: str) -> None:
        """End following."""
        key = self._key(room)
        self._reader.unfollow(key)
        self._notifier.unwatch(key)

    def changed(self, room: str) -> None:
        """Ask a room's follower for a read."""
        self._reader.mark(self._key(room))

    def publish(self, publication: Publication) -> None:
        """Add to a room's stream."""
        self._writer.publish(self._key(publication.room), publication)

    async def examine(self, room: str, read: Read) -> Reply:
        """Read history with XINFO in one step. Raises StoreError."""
        return await self._reader.examine(self._key(room), read)

    async def before(self, room: str, end: MessageId, count: int) -> Sequence[Message]:
        """Read history from `end` down, newest first. Raises StoreError."""
        return await self._reader.before(self._key(room), end, count)

    def statistics(self) -> Statistics:
        """Return what was done so far."""
        return Statistics(
            followed=len(self._reader),
            reads=self._reader.reads,
            empty_reads=self._reader.empty_reads,
            examinations=self._reader.examinations,
            refused_reads=self._reader.refused_reads,
            audits=self._audits,
            published=self._writer.published,
            publishing=self._writer.publishing,
            publishing_bytes=self._writer.in_flight + self._writer.waiting_bytes,
            reconnects=self._reading.reopened + self._writing.reopened,
        )
