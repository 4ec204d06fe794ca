"""The rooms' streams in one Redis or Valkey.

Two lanes whatever the number of rooms: one reads and hears of changes, one writes. A lane that is
lost is opened again, with growing, jittered pauses; then every position is proved anew.
"""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from math import ceil
from typing import Any

import hiredis

from streamcast import log
from streamcast.config import StreamSettings
from streamcast.errors import StartError, StoreError
from streamcast.message import Message, MessageId
from streamcast.proof import Read, Reply
from streamcast.streams.connect import Refused, SetUp, open_lane
from streamcast.streams.endpoint import Endpoint
from streamcast.streams.interface import Follower, Publication, Statistics
from streamcast.streams.lane import Lane
from streamcast.streams.reader import Reader
from streamcast.streams.tracking import Tracking
from streamcast.streams.writer import Writer

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
"""Seconds before the store is tried again: the first time, and at most."""
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
        self._tracking = Tracking(self._reader)
        self._writer = Writer(settings, self._reader.__contains__, self._demoted)
        self._keeper = self._writer.keeper
        self._lanes: dict[str, Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._audits = 0
        self._reconnects = 0

    @property
    def where(self) -> str:
        """The store's address, without secrets."""
        return str(self._endpoint)

    # Lanes

    async def start(self) -> None:
        """Connect, and make sure that changes are told. Raises StartError."""
        try:
            await self._open_writing()
            await self._open_reading()
            read_lane, write_lane = self._lanes["read"], self._lanes["write"]
            if self._settings.follow == "auto":
                await self._tracking.probe(read_lane, write_lane, self._prefix)
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
        self._spawn(self._audit())

    async def close(self) -> None:
        """Disconnect; what is under way ends as Unavailable or Unknown."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in list(self._lanes.values()):
            lane.close()
            await lane.closed

    async def _open_reading(self) -> None:
        self._reader.connected(await self._open("read", self._tracking.turn_on))

    async def _open_writing(self) -> None:
        self._writer.connected(await self._open("write"))

    async def _open(self, name: str, set_up: SetUp | None = None) -> Lane:
        lane = await open_lane(
            self._endpoint,
            f"streamcast-{name}",
            self._settings.silence,
            self._tracking.pushed,
            lambda reason: self._lost(name, reason),
            set_up,
        )
        self._lanes[name] = lane
        return lane

    def _lost(self, name: str, reason: str) -> None:
        del self._lanes[name]
        (self._reader if name == "read" else self._writer).disconnected()
        if not self._closing:
            log.warning("store lost", lane=name, store=str(self._endpoint), reason=reason)
            self._spawn(self._reopen(name))

    def _demoted(self) -> None:
        """Take in that the node is a replica by now: no proof counts from it."""
        for lane in list(self._lanes.values()):
            lane.close("the store is no longer a master")

    async def _reopen(self, name: str) -> None:
        pause = FIRST_PAUSE
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                await (self._open_reading() if name == "read" else self._open_writing())
            except (StoreError, hiredis.ReplyError) as error:
                (log.warning if isinstance(error, Refused) else log.debug)(
                    "store unavailable", lane=name, reason=str(error)
                )
            else:
                self._reconnects += 1
                log.info("store back", lane=name, store=str(self._endpoint))
                return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        log.fault_of(task, "streams")

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
        self._reader.follow(key, follower)
        self._keeper.renew(key)

    def unfollow(self, room: str) -> None:
        """End following."""
        self._reader.unfollow(self._key(room))

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
            reconnects=self._reconnects,
        )
