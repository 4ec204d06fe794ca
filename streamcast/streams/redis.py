"""The rooms' streams in Redis or Valkey: one of them, the one that sentinels name, or a cluster."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from math import ceil
from typing import Any, TypeVar

from streamcast import log
from streamcast.config import StreamSettings
from streamcast.errors import StartError, StoreError, Unavailable
from streamcast.message import Message, MessageId
from streamcast.proof import Read, Reply
from streamcast.streams.cluster import Cluster
from streamcast.streams.endpoint import Engine, StoreUrl
from streamcast.streams.health import Probing
from streamcast.streams.interface import Follower, Publication, Statistics
from streamcast.streams.nodes import Nodes, OneNode
from streamcast.streams.reader import Reader, Rerouted

AUDITS = 30
"""In how many steps an audit goes through all rooms."""
AFTER_FAULT = 1.0
"""Seconds until what failed is begun again."""
REROUTES = 5
"""How often a read of history follows its key to another node."""

T = TypeVar("T")


class RedisStreams:
    """See `Streams` for what is guaranteed. `max_message`: bytes, see `Message`."""

    def __init__(self, settings: StreamSettings, max_message: int) -> None:
        if "{" in settings.prefix or "}" in settings.prefix:
            raise StartError("--prefix can't have braces.")
        self._settings = settings
        self._prefix = settings.prefix
        url = StoreUrl.parse(settings.redis)
        self._nodes: Nodes
        if url.engine is Engine.CLUSTER:
            self._nodes = Cluster(settings, max_message, url)
        else:
            self._nodes = OneNode(settings, max_message, url)
        self._probing = Probing(self._nodes, settings.prefix, settings.waits_for_replicas)
        self._tasks: list[asyncio.Task[None]] = []
        self._audits = 0

    @property
    def where(self) -> str:
        """The store's address, without secrets."""
        return str(self._nodes)

    @property
    def health(self) -> Probing:
        """Whether deliveries work."""
        return self._probing

    @property
    def connections(self) -> int:
        """How many connections it has at most."""
        return sum(node.connections for node in self._nodes.all())

    # Connecting

    async def start(self) -> None:
        """Connect, and make sure that changes are told. Raises StartError."""
        try:
            await self._nodes.start()
        except BaseException as error:
            await self._nodes.close()
            if isinstance(error, StoreError):
                raise StartError(str(error)) from error
            raise
        for name, work in (("audit", self._audit), ("nodes", self._nodes.watch)):
            self._tasks.append(asyncio.create_task(_keep(name, work)))

    async def close(self) -> None:
        """Disconnect; what is under way ends as Unavailable or Unknown."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._nodes.close()

    # Audit

    async def _audit(self) -> None:
        """Read each followed room again once in an interval, spread evenly; renew its time."""
        interval = self._settings.audit
        if self._settings.retained:
            interval = min(interval, self._settings.retained / 4)
        while True:
            keys = [key for node in self._nodes.all() for key in node.reader.followed]
            share = ceil(len(keys) / AUDITS)
            for step in range(AUDITS):
                await asyncio.sleep(interval / AUDITS)
                for key in keys[step * share : (step + 1) * share]:
                    node = self._nodes.of(key)
                    if key in node.reader:
                        self._audits += 1
                        node.reader.mark(key)
                        node.writer.keeper.renew(key)
            for node in self._nodes.all():
                node.writer.keeper.forget_quiet()

    # Rooms

    def _key(self, room: str) -> bytes:
        return (self._prefix + room).encode()

    def follow(self, room: str, follower: Follower) -> None:
        """Begin to follow a room."""
        key = self._key(room)
        node = self._nodes.of(key)
        node.follow(key, follower)
        node.writer.keeper.renew(key)

    def unfollow(self, room: str) -> None:
        """End following."""
        self._nodes.unfollow(self._key(room))

    def changed(self, room: str) -> None:
        """Ask a room's follower for a read."""
        key = self._key(room)
        self._nodes.of(key).reader.mark(key)

    def publish(self, publication: Publication) -> None:
        """Add to a room's stream."""
        # As _key does, in place: each message comes by here.
        self._nodes.publish((self._prefix + publication.room).encode(), publication)

    async def examine(self, room: str, read: Read) -> Reply:
        """Read history with XINFO in one step. Raises StoreError."""
        key = self._key(room)
        return await self._where_it_is(key, lambda reader: reader.examine(key, read))

    async def before(self, room: str, end: MessageId, count: int) -> Sequence[Message]:
        """Read history from `end` down, newest first. Raises StoreError."""
        key = self._key(room)
        return await self._where_it_is(key, lambda reader: reader.before(key, end, count))

    async def _where_it_is(self, key: bytes, ask: Callable[[Reader], Awaitable[T]]) -> T:
        for _ in range(REROUTES):
            try:
                return await ask(self._nodes.of(key).reader)
            except Rerouted:
                continue
        raise Unavailable("The room is on its way from one node to another.")

    def statistics(self) -> Statistics:
        """Return what was done so far."""
        nodes, held = self._nodes.all(), self._nodes.held()
        readers = [node.reader for node in nodes]
        writers = [node.writer for node in nodes]
        return Statistics(
            followed=sum(map(len, readers)) - len(self._probing),
            reads=sum(reader.reads for reader in readers),
            empty_reads=sum(reader.empty_reads for reader in readers),
            examinations=sum(reader.examinations for reader in readers),
            refused_reads=sum(reader.refused_reads for reader in readers),
            audits=self._audits,
            published=sum(writer.published for writer in writers),
            publishing=sum(writer.publishing for writer in writers) + len(held),
            publishing_bytes=sum(writer.in_flight + writer.waiting_bytes for writer in writers)
            + sum(publication.size for publication in held),
            reconnects=sum(node.reopened for node in nodes),
        )


async def _keep(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do what is done for ever, also where it fails."""
    while True:
        try:
            await work()
        except Exception as fault:  # noqa: BLE001 - rooms are delivered all the same
            log.error("fault", where=name, fault=repr(fault), exc_info=True)
        await asyncio.sleep(AFTER_FAULT)
