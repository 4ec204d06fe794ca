"""A steady load of one room by real clients, and the account of what each of them was told.

The checker is the test's own: what was acknowledged, and what was told to members, is compared
with what the store really has (XRANGE).
"""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Self, TypeVar

from websockets.asyncio.client import ClientConnection, connect

from tests.clients import JSON
from tests.stores import Store

T = TypeVar("T")

ANSWERED_WITHIN = 5.0
"""Seconds within which every request is answered, whatever happens to the store."""
DELIVERED_WITHIN = 10.0
PUBLISHERS = 3
MEMBERS = 3
BURST = 10
"""How many messages a publisher sends at once."""
PAUSE = 0.03
"""Seconds between two of its bursts."""


async def until(condition: Callable[[], Any], within: float = DELIVERED_WITHIN) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


class Peer:
    """A JSON client that keeps what it was told. Nothing may close it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._refs = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.told: list[dict[str, Any]] = []
        """All but the answers to its requests."""
        self.longest = 0.0
        """How many seconds the slowest answer took."""

    async def listen(self) -> None:
        """Take in what comes. Raises ConnectionClosed."""
        while True:
            told = json.loads(await self._socket.recv())
            if "ref" in told:
                self._waiting.pop(told["ref"]).set_result(told)
            else:
                self.told.append(told)

    async def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request; return the answer. Raises TimeoutError where there is none in time."""
        ref = next(self._refs)
        answer = self._waiting[ref] = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        await self._socket.send(json.dumps(request | {"ref": ref}))
        async with asyncio.timeout(ANSWERED_WITHIN):
            told: dict[str, Any] = await answer
        self.longest = max(self.longest, time.monotonic() - began)
        return told

    async def publish(self, room: str, text: str, **more: str) -> str:
        """Return the ID under which a message was stored, or the error's code."""
        told = await self.ask(type="publish", room=room, data=text, **more)
        assert told["type"] in {"ack", "error"}, told
        return str(told["id"] if told["type"] == "ack" else told["code"])


class Peers:
    """Opens clients of a server. A client that is closed fails the test that uses them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._stack = AsyncExitStack()
        self._running: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        return self

    async def __aexit__(self, *exc: object) -> None:
        # Before the connections are closed, which is not to be taken for a fault.
        for task in self._running:
            task.cancel()
        await asyncio.wait(self._running)
        await self._stack.__aexit__(*exc)  # type: ignore[arg-type]

    def run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a part of the test beside the others, until the end of it."""
        task = self._tasks.create_task(work)
        self._running.append(task)
        return task

    async def open(self) -> Peer:
        """Connect one, a member of no room yet."""
        more: Any = {"compression": None, "proxy": None, "close_timeout": 1}
        opening = connect(f"{self.url}/rooms", subprotocols=[JSON], **more)  # type: ignore[list-item]
        peer = Peer(await self._stack.enter_async_context(opening))
        self.run(peer.listen())
        return peer


class Load:
    """Publishers and members of a room.

    Publishers don't wait for answers, and publish nothing twice. One more, the careful one,
    publishes with a `key`, and the same again until it is acknowledged.
    """

    def __init__(self, peers: Peers, room: str = "live") -> None:
        self._peers = peers
        self._room = room
        self._ending = False
        self._under_way: set[asyncio.Task[None]] = set()
        self._publishing: list[asyncio.Task[None]] = []
        self.members: list[Peer] = []
        self.publishers: list[Peer] = []
        self.outcomes: dict[str, str] = {}
        """Of each text, its ID or an error's code."""
        self.careful: dict[str, list[str]] = {}
        """Of each text of the careful one, all outcomes; the last is an ID."""

    async def start(self) -> None:
        """Return once messages flow to every member."""
        for _ in range(MEMBERS):
            self.members.append(await self._peers.open())
            joined = await self.members[-1].ask(type="join", room=self._room)
            assert joined["type"] == "joined"
        for number in range(PUBLISHERS):
            self.publishers.append(await self._peers.open())
            work = self._publish_steadily(self.publishers[-1], f"{number}")
            self._publishing.append(self._peers.run(work))
        self.publishers.append(await self._peers.open())
        work = self._publish_carefully(self.publishers[-1])
        self._publishing.append(self._peers.run(work))
        await self.flows()

    async def flows(self) -> None:
        """Return once the messages of a moment from now on have come to every member."""
        acked = self.acked
        await until(lambda: self.acked > acked + 150)
        seen = [len(member.told) for member in self.members]
        await until(lambda: all(len(m.told) > n for m, n in zip(self.members, seen, strict=True)))

    @property
    def acked(self) -> int:
        """How many messages were acknowledged."""
        return sum("-" in outcome for outcome in self.outcomes.values())

    @property
    def unanswered(self) -> int:
        """How many publishes wait for an answer."""
        return len(self._under_way)

    def count(self, code: str) -> int:
        """How many publishes were told an error."""
        return Counter(self.outcomes.values())[code]

    async def _publish_steadily(self, peer: Peer, name: str) -> None:
        for number in itertools.count():
            if self._ending:
                return
            task = self._peers.run(self._publish(peer, f"{name}/{number}"))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            if number % BURST == 0:
                await asyncio.sleep(PAUSE)

    async def _publish(self, peer: Peer, text: str) -> None:
        self.outcomes[text] = await peer.publish(self._room, text)

    async def _publish_carefully(self, peer: Peer) -> None:
        for number in itertools.count():
            if self._ending:
                return
            text = f"careful/{number}"
            outcomes = self.careful[text] = []
            while not outcomes or "-" not in outcomes[-1]:
                outcomes.append(await peer.publish(self._room, text, key=text))
                await asyncio.sleep(PAUSE)

    async def end(self) -> None:
        """Publish no more; return once all is answered and the last has come to every member."""
        self._ending = True
        await asyncio.gather(*self._publishing)
        await asyncio.gather(*self._under_way)
        last = await self.publishers[0].publish(self._room, "last")
        self.outcomes["last"] = last
        await until(lambda: all(member.told[-1].get("id") == last for member in self.members))

    def check(self, store: Store) -> None:
        """Compare what everybody was told with what the store has."""
        raw = store.client.xrange(f"streamcast:{self._room}")
        entries = [(id_.decode(), fields[b"message"].decode()) for id_, fields in raw]
        stored = {text: id_ for id_, text in entries}
        assert len(stored) == len(entries), "something was stored twice"
        for text, outcome in self.outcomes.items():
            if outcome == "unavailable":
                assert text not in stored, f"{text} was not to be stored"
            elif outcome != "unknown":
                assert stored.get(text) == outcome, f"{text} was acknowledged"
        for text, outcomes in self.careful.items():
            assert stored.get(text) == outcomes[-1], f"{text} was acknowledged in the end"
        for member in self.members:
            assert {told["type"] for told in member.told} == {"message"}
            assert [(told["id"], told["data"]) for told in member.told] == entries
