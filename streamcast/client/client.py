"""The client: one connection, which comes back by itself, for any number of rooms.

The law of this file: a connection has a task that reads and one that writes; neither waits for a
user of the client, and all that is to outlive it is in the exchange.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from streamcast import log
from streamcast.backoff import Backoff
from streamcast.client.dial import Dial, dial_to
from streamcast.client.exchange import Exchange
from streamcast.client.subscription import Subscription
from streamcast.errors import BadRequest, BadUrl, Disconnected, StreamcastError, Unreachable
from streamcast.message import MessageId
from streamcast.wire import MAX_MESSAGE_HEADER, Start, json_client
from streamcast.wire.close import may_come_back
from streamcast.wire.json_v1 import count_of_last

MAX_TIMEOUT = 100.0
"""Seconds for which a publish is tried at most: a server knows its key for 120."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 4.0
"""Seconds between two attempts to connect; what is younger than 10 s is kept in any case."""
ABNORMAL = 1006
"""What an end without a close counts as (RFC 6455 section 7.1.5)."""
PROTOCOL_ERROR = 1002
"""How a connection is closed that does not keep to the protocol (RFC 6455 section 7.4.1)."""


@dataclass(frozen=True, slots=True)
class Connected:
    """There is a connection to the server at `url`; `again`: another one than the first."""

    url: str
    again: bool


@dataclass(frozen=True, slots=True)
class Interrupted:
    """There is none any more, or an attempt failed; the next attempt is under way."""

    url: str
    reason: str


ConnectionEvent = Connected | Interrupted


class Client:
    """A connection to one of several servers; made by `connect`."""

    def __init__(
        self,
        dials: Sequence[Dial],
        publish_timeout: float = 60.0,
        on_connection: Callable[[ConnectionEvent], None] | None = None,
    ) -> None:
        if not 0 < publish_timeout <= MAX_TIMEOUT:
            raise BadRequest(f"publish_timeout is at most {MAX_TIMEOUT:.0f} seconds.")
        self._dials = deque(dials)
        self._on_connection = on_connection or (lambda event: None)
        self._exchange = Exchange(publish_timeout)
        self._backoff = Backoff(first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        self._opened = False
        self._connection: ClientConnection | None = None
        self._running: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    # For its user

    def subscribe(
        self, room: str, *, after: MessageId | str | None = None, last: int | None = None
    ) -> Subscription:
        """Join a room, from now on, and return its messages and gaps to be iterated over.

        `after`: resume behind that ID; "0" brings all that is kept. `last`: the newest N first, up
        to 10,000. Raises BadRoom, BadId, BadRequest, and Disconnected if the client has ended.
        """
        return Subscription(self._exchange.subscribe(room, _start(after, last)))

    def publish(
        self, room: str, data: str | bytes, *, key: str | None = None, meta: str | None = None
    ) -> "asyncio.Future[MessageId]":
        """Publish text or bytes; the future returned has the ID under which it is stored.

        What is published to one room is stored in the order of these calls, whether or not one is
        awaited before the next; but whoever awaits none of many holds all of them in memory. It is
        sent again, with its `key`, until it is answered or `publish_timeout` is over. `meta`: a
        small string that is handed on.

        Awaiting raises Unavailable where it was not stored, Unknown where it may have been, and
        BadRoom, TooBig or BadRequest where it never can be.
        """
        try:
            return self._exchange.publish(room, data, key, meta)
        except StreamcastError as error:
            refused: asyncio.Future[MessageId] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect to the first server that answers. Raises Unreachable, Disconnected."""
        if self._opened:
            raise BadRequest("A client is opened once; connect anew.")
        self._opened = True
        for _ in range(len(self._dials)):
            try:
                connection = await self._dial()
                break
            except Disconnected as error:
                failed = error
                self._dials.rotate(-1)
        else:
            raise failed
        self._running = asyncio.create_task(self._run(connection))
        self._running.add_done_callback(lambda task: log.fault_of(task, "client"))

    async def close(self) -> None:
        """Disconnect; subscriptions end, and what was not acknowledged is given up.

        If it is cancelled, that goes on all the same.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        self._exchange.end(None)
        if self._connection is not None:
            await self._connection.close()

    # Connections

    async def _dial(self) -> ClientConnection:
        """Connect to the server whose turn it is. Raises Unreachable, Disconnected."""
        connection = self._connection = await self._dials[0].open()
        assert connection.response is not None
        limit = connection.response.headers.get(MAX_MESSAGE_HEADER, "")
        self._exchange.max_message = int(limit) if limit.isdecimal() else None
        return connection

    async def _run(self, connection: ClientConnection) -> None:
        """Use connections, one after another, until one is not to be followed by another."""
        why: Disconnected | None = Disconnected("The client failed; its log says why.")
        again = False
        try:
            while True:
                self._on_connection(Connected(self._dials[0].url, again))
                reason = await self._use(connection)
                self._on_connection(Interrupted(self._dials[0].url, reason))
                self._dials.rotate(-1)
                connection = await self._dial_again()
                again = True
        except Disconnected as error:
            why = error
        except asyncio.CancelledError:
            why = None
            raise
        finally:
            self._exchange.end(why)
            if why is not None and self._connection is not None:
                await self._connection.close()

    async def _dial_again(self) -> ClientConnection:
        """Try the servers in turn until one takes us. Raises Disconnected if none ever will."""
        refused = 0
        while True:
            await asyncio.sleep(self._backoff.pause())
            try:
                return await self._dial()
            except Disconnected as error:
                refused = 0 if isinstance(error, Unreachable) else refused + 1
                if refused == len(self._dials):
                    raise
                self._on_connection(Interrupted(self._dials[0].url, str(error)))
                self._dials.rotate(-1)

    async def _use(self, connection: ClientConnection) -> str:
        """Read and write until the connection ends; return why. Raises Disconnected."""
        self._exchange.connected()
        work = [self._read(connection), self._write(connection)]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except ConnectionClosed:
            pass
        finally:
            self._exchange.disconnected()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return self._end_of(connection)

    async def _read(self, connection: ClientConnection) -> None:
        while True:
            frame = await connection.recv(decode=False)
            try:
                told = json_client.decode(frame)
            except ValueError as error:
                await connection.close(PROTOCOL_ERROR)
                raise Disconnected(f"{self._dials[0].url} does not speak our protocol.") from error
            if told is not None:
                self._exchange.take(told, len(frame))

    async def _write(self, connection: ClientConnection) -> None:
        exchange = self._exchange
        while True:
            while (frame := exchange.next_frame()) is not None:
                await connection.send(frame, text=True)
            exchange.something_to_send.clear()
            await exchange.something_to_send.wait()

    def _end_of(self, connection: ClientConnection) -> str:
        """Return why a connection ended. Raises Disconnected if none is to follow it."""
        code = connection.close_code or ABNORMAL
        said = connection.close_reason
        reason = "the connection broke off" if code == ABNORMAL else f"it closed with {code}"
        if said:
            reason += f", {said}"
        if not may_come_back(code):
            raise Disconnected(f"{self._dials[0].url}: {reason}.", code)
        return reason


def connect(
    *urls: str,
    publish_timeout: float = 60.0,
    on_connection: Callable[[ConnectionEvent], None] | None = None,
) -> Client:
    """Return a client of the server at a URL; it is to be entered with `async with`.

    Of several URLs any will do; they are tried in turn. Each is that of a server, without a room;
    `wss` is TLS. `publish_timeout`: for how many seconds a publish is tried, at most 100.
    `on_connection` is told of connections that come and go.

    Raises BadUrl; entering raises Unreachable or Disconnected if no server can be had now. From
    then on the client connects again by itself.
    """
    if not urls:
        raise BadUrl("Connect to what? Give the URL of a server.")
    return Client([dial_to(url) for url in urls], publish_timeout, on_connection)


def _start(after: MessageId | str | None, last: int | None) -> Start:
    if after is not None and last is not None:
        raise BadRequest("Give last or after, not both.")
    if after is not None:
        return Start.parse_after(str(after))
    return Start(last=None if last is None else count_of_last(last))
