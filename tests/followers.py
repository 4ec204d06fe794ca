"""Streams in this very process: followers and publishers that keep what they are told."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from streamcast.config import Follow, StreamSettings
from streamcast.errors import CodedError
from streamcast.message import ZERO, Gap, Item, Message
from streamcast.proof import Kind, Position, Read, Reply, next_read, progress
from streamcast.streams import Publication, RedisStreams
from streamcast.streams.interface import Outcome
from streamcast.wire import Publish
from tests.load import until
from tests.proxy import Proxy
from tests.stores import Store

NEVER = 3600.0
MAX_MESSAGE = 65536

Start = Callable[..., Awaitable[RedisStreams]]


@asynccontextmanager
async def connecting(notifier: str) -> AsyncIterator[Start]:
    """Starts streams on a store; without an audit unless asked for."""
    started: list[RedisStreams] = []

    async def connect(store: Store | Proxy, **more: object) -> RedisStreams:
        settings = StreamSettings(redis=store.url, follow=Follow(notifier), audit=NEVER, retain=0.0)
        streams = RedisStreams(replace(settings, **more), MAX_MESSAGE)  # type: ignore[arg-type]
        await streams.start()
        started.append(streams)
        return streams

    yield connect
    for streams in started:
        await streams.close()


class Recorder:
    """A follower that keeps all that it reads."""

    def __init__(self) -> None:
        self.position: Position | None = None
        self.items: list[Item] = []
        self.reads = 0
        self.error: CodedError | None = None
        self._again: Read | None = None

    def next_read(self, announced: bool) -> Read:
        if self.position is None:
            return Read(Kind.RESOLVE, ZERO, 1)
        return self._again or next_read(self.position, 100, announced=announced)

    def received(self, read: Read, reply: Reply) -> bool:
        self.reads += 1
        if self.position is None:
            assert reply.info is not None
            self.position = Position.at_end(reply.info)
            return False
        known = {item.id: item.fingerprint for item in self.items if isinstance(item, Message)}
        went = progress(self.position, read, reply, lambda: known)
        self._again, self.position = went.again, went.position
        self.items += went.items
        return went.more or went.again is not None

    def failed(self, error: CodedError) -> None:
        self.error = error

    @property
    def is_open(self) -> bool:
        return self.position is not None

    @property
    def texts(self) -> list[str]:
        return [
            "gap" if isinstance(item, Gap) else (item.data or b"").decode() for item in self.items
        ]


async def follow(streams: RedisStreams, room: str) -> Recorder:
    recorder = Recorder()
    streams.follow(room, recorder)
    await until(lambda: recorder.is_open or recorder.error)
    return recorder


class Publisher:
    """Publishes, and keeps how each ended, in the order in which they did."""

    def __init__(self, streams: RedisStreams, everybody: "list[Publisher] | None" = None) -> None:
        self.streams = streams
        self.outcomes: list[Outcome] = []
        self.by_text: dict[str, Outcome] = {}
        # Whose publications ended, of all that share the list.
        self.everybody = [] if everybody is None else everybody

    def publish(self, room: str, text: str, key: str | None = None) -> None:
        publish = Publish(room, text.encode(), True, key=key)
        self.streams.publish(Publication.of(publish, self, self._done))

    def _done(self, publication: Publication, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.by_text[publication.fields[1].decode()] = outcome
        self.everybody.append(self)

    async def ended(self, count: int, within: float = 10.0) -> list[Outcome]:
        await until(lambda: len(self.outcomes) >= count, within)
        assert len(self.outcomes) == count
        return self.outcomes
