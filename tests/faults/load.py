"""A steady load, and receivers that write down all that they see.

One publisher a room, through the project's client. Receivers follow all rooms: one with the
project's client, and one that knows only `websockets` and the protocol's description in README.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from typing import Any

from redis import RedisError
from websockets.asyncio.client import connect as dial
from websockets.exceptions import WebSocketException

from streamcast import client as streamcast
from streamcast.errors import CodedError
from tests.faults.checker import Gap, Log, Seen, Verdict, id_of, verdict

EVERY = 0.05
"""Seconds between two messages of a room."""
BEFORE = 10
"""How many messages of each room come everywhere before anything is done to it."""
PATIENCE = 40.0
END = "end"


class Receiver:
    """What one saw: by room."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.logs: dict[str, list[Seen | Gap]] = defaultdict(list)
        self.newest: dict[str, int] = defaultdict(int)
        self.joined: set[str] = set()
        self.ended: set[str] = set()

    def take(self, room: str, item: Seen | Gap) -> None:
        """Write down an item."""
        self.logs[room].append(item)
        if isinstance(item, Seen):
            if item.data == END:
                self.ended.add(room)
            else:
                self.newest[room] = max(self.newest[room], int(item.data))


async def receive(receiver: Receiver, client: streamcast.Client, room: str) -> None:
    """Follow a room with the project's client."""
    async with client.subscribe(room) as items:
        await items.wait_joined()
        receiver.joined.add(room)
        async for item in items:
            if isinstance(item, streamcast.Gap):
                earliest = None if item.earliest is None else id_of(str(item.earliest))
                receiver.take(room, Gap(id_of(str(item.after)), earliest))
            elif isinstance(item, streamcast.Message):
                receiver.take(room, Seen(id_of(str(item.id)), str(item.data)))


class Minimal:
    """Follows rooms as README tells those who write a client to do, and no better."""

    def __init__(self, receiver: Receiver, urls: Sequence[str], rooms: Sequence[str]) -> None:
        self._receiver = receiver
        self._urls = cycle(urls)
        self._rooms = rooms
        # Behind what each room is to be joined the next time.
        self._after: dict[str, str] = {}

    async def follow(self) -> None:
        """Follow for ever, over one connection after the other."""
        while True:
            with suppress(OSError, WebSocketException, TimeoutError):
                await self._follow_once(next(self._urls))
            await asyncio.sleep(0.1)

    async def _follow_once(self, url: str) -> None:
        protocols: Any = ["streamcast.v1"]
        dialing = dial(f"{url}/rooms", subprotocols=protocols, compression=None, proxy=None)
        async with asyncio.timeout(5):
            socket = await dialing
        async with socket:
            for room in self._rooms:
                await socket.send(self._join(room))
            async for data in socket:
                told = json.loads(data)
                self._take(told)
                if told["type"] == "error":
                    await asyncio.sleep(0.2)
                    await socket.send(self._join(told["room"]))

    def _join(self, room: str) -> str:
        after = {"after": self._after[room]} if room in self._after else {}
        return json.dumps({"type": "join", "room": room, **after})

    def _take(self, told: dict[str, Any]) -> None:
        room = told.get("room", "")
        match told["type"]:
            case "joined":
                self._after.setdefault(room, told["head"])
                self._receiver.joined.add(room)
            case "message":
                self._after[room] = told["id"]
                self._receiver.take(room, Seen(id_of(told["id"]), told["data"]))
            case "gap":
                earliest = told["earliest"] and id_of(told["earliest"])
                self._after[room] = told["latest"] if earliest is None else told["after"]
                self._receiver.take(room, Gap(id_of(told["after"]), earliest))


class Load:
    """Publishes to rooms. `acknowledged`: by room. `failed`: what was not, and why.

    `client_of` returns a client of the store that has a key just now. `quiet`: rooms that are
    followed, and in which nothing is said before the end. `recovered`: the seconds that `flows`
    took each time.
    """

    def __init__(
        self,
        urls: Sequence[str],
        rooms: int,
        client_of: Callable[[str], Any],
        quiet: Sequence[str] = (),
    ) -> None:
        self._client_of = client_of
        self._busy = [f"room-{number}" for number in range(rooms)]
        self.rooms = [*self._busy, *quiet]
        self.receivers = [Receiver("the client"), Receiver("the minimal one")]
        self.acknowledged: dict[str, list[Seen]] = {room: [] for room in self.rooms}
        self.failed: list[str] = []
        self.recovered: list[float] = []
        self._urls = urls
        self._numbers = dict.fromkeys(self._busy, 0)
        self._under_way: set[asyncio.Future[Any]] = set()
        self._publishing: list[asyncio.Task[None]] = []
        self._receiving: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Publish and receive; at the end everything is acknowledged, and has come or is told."""
        async with (
            streamcast.connect(*self._urls) as publisher,
            streamcast.connect(*reversed(self._urls)) as reader,
        ):
            try:
                await self._begin(publisher, reader)
                yield self
                await self._finish(publisher)
            finally:
                tasks = [*self._publishing, *self._receiving]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self, publisher: streamcast.Client, reader: streamcast.Client) -> None:
        minimal = Minimal(self.receivers[1], self._urls, self.rooms)
        self._receiving = [asyncio.create_task(minimal.follow())]
        self._receiving += [
            asyncio.create_task(receive(self.receivers[0], reader, room)) for room in self.rooms
        ]
        everywhere = set(self.rooms)
        await self._until(lambda: all(each.joined == everywhere for each in self.receivers), 10)
        for room in self._busy:
            self._publishing.append(asyncio.create_task(self._publish(publisher, room)))
        await self._until(
            lambda: all(
                each.newest[room] >= BEFORE for each in self.receivers for room in self._busy
            ),
            PATIENCE,
        )

    async def _publish(self, publisher: streamcast.Client, room: str) -> None:
        while True:
            self._numbers[room] += 1
            self._send(publisher, room, str(self._numbers[room]))
            await asyncio.sleep(EVERY)

    def _send(self, publisher: streamcast.Client, room: str, data: str) -> None:
        answer = publisher.publish(room, data)
        self._under_way.add(answer)

        def answered(answer: asyncio.Future[Any]) -> None:
            self._under_way.discard(answer)
            if answer.cancelled():
                return
            error = answer.exception()
            if error is None:
                self.acknowledged[room].append(Seen(id_of(str(answer.result())), data))
            else:
                assert isinstance(error, CodedError)
                self.failed.append(f"{room} {data}: {error}")

        answer.add_done_callback(answered)

    async def flows(self, within: float = PATIENCE, without: str = "") -> None:
        """Wait until every receiver has got what is published from now on.

        `without`: a room that can't be published to just now.
        """
        began = time.monotonic()
        wanted = {room: number + 1 for room, number in self._numbers.items() if room != without}
        await self._until(
            lambda: all(
                receiver.newest[room] >= number
                for receiver in self.receivers
                for room, number in wanted.items()
            ),
            within,
        )
        self.recovered.append(time.monotonic() - began)

    async def _finish(self, publisher: streamcast.Client) -> None:
        for task in self._publishing:
            task.cancel()
        await self._until(lambda: not self._under_way, 70)
        ended, end = set(self.rooms), time.monotonic() + PATIENCE
        while not all(each.ended == ended for each in self.receivers):
            assert time.monotonic() < end, self._missing()
            for room in await asyncio.to_thread(self._without_end):
                # Not said yet, or lost in yet another failover, which is told; else it has to come.
                self._send(publisher, room, END)
            await self._until(lambda: not self._under_way, PATIENCE)
            await asyncio.sleep(0.5)
        await self._until(lambda: not self._under_way, PATIENCE)

    def _without_end(self) -> list[str]:
        """Return the rooms that have no END in the store."""
        with suppress(RedisError, AssertionError):
            stored = self.stored()
            return [room for room in self.rooms if all(each.data != END for each in stored[room])]
        return []

    async def _until(self, condition: Callable[[], bool], within: float) -> None:
        end = time.monotonic() + within
        while not condition():
            assert time.monotonic() < end, self._missing()
            await asyncio.sleep(0.02)

    def _missing(self) -> str:
        received = [
            (each.name, dict(each.newest), "ended", sorted(each.ended)) for each in self.receivers
        ]
        return (
            f"it does not flow: published {self._numbers}, {len(self._under_way)} under way, "
            f"failed {self.failed}, received {received}"
        )

    def verdict(self) -> Verdict:
        """Compare with what the store has."""
        logs: dict[str, dict[str, Log]] = {each.name: dict(each.logs) for each in self.receivers}
        return verdict(self.acknowledged, self.stored(), logs)

    def stored(self) -> dict[str, list[Seen]]:
        """Read all rooms from their store."""
        return {room: _entries(self._client_of(f"streamcast:{room}"), room) for room in self.rooms}


def _entries(client: Any, room: str) -> list[Seen]:
    entries = client.xrange(f"streamcast:{room}")
    return [Seen(id_of(id_.decode()), fields[b"message"].decode()) for id_, fields in entries]
