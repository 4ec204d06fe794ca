"""What `publish` does: messages from an argument or standard input, published one after another.

The law of this file: many are under way at a time, and what is said about them is said in order.
One that can never be stored does not keep the next from being; where the store or the server is
lost, nothing more is begun.
"""

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncIterator

import typer

from streamcast.cli.pipes import Output, chunks_of, lines_of
from streamcast.cli.place import connected
from streamcast.cli.show import line_of, stamp, tell
from streamcast.client import Client, MessageId
from streamcast.config import PlaceSettings, PublishSettings
from streamcast.errors import (
    BadRequest,
    CodedError,
    RequestError,
    StoreError,
    StreamcastError,
    TooBig,
)

MOST = 1000
"""How many messages are published and not acknowledged at most."""
LARGEST = 16 * 1024 * 1024
"""Bytes; what is larger than any server takes is not read into memory."""
STDIN, STDOUT = 0, 1

Answer = asyncio.Future[MessageId]


async def publish_all(
    room: str, message: str | None, what: PublishSettings, place: PlaceSettings
) -> None:
    """Publish, and exit with 1 if not every message was acknowledged. Raises StreamcastError."""
    output = Output.standard(watch=not (what.quiet or _is_one_socket()))
    account = Account()
    try:
        async with connected(place) as client:
            await Publishing(client, room, what, output, account).run(_messages(message, what))
        await output.drained()
        account.stopped = output.fault or account.stopped
    finally:
        output.close()
        account.settle()
        if not account.is_whole:
            tell(account.summary())
    if not account.is_whole:
        raise typer.Exit(1)


class Account:
    """What became of the messages.

    `waiting`: those that were not accounted for, in order. `stopped`: why no more were published.
    """

    def __init__(self) -> None:
        self.published = 0
        self.acknowledged = 0
        self.waiting: deque[Answer] = deque()
        self.stopped = ""
        self._first: tuple[int, CodedError] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all that was to be published was, and is acknowledged."""
        return self.acknowledged == self.published and not self.stopped

    def add(self, answer: Answer) -> None:
        """Take in a message that was published."""
        self.published += 1
        self.waiting.append(answer)

    def take(self) -> MessageId | CodedError:
        """Account for the next one, which has been answered."""
        answer = self.waiting.popleft()
        error = answer.exception()
        if error is None:
            self.acknowledged += 1
            return answer.result()
        assert isinstance(error, CodedError)
        if self._first is None:
            self._first = self.published - len(self.waiting), error
        return error

    def settle(self) -> None:
        """Account for those that were answered before the end."""
        while self.waiting and self.waiting[0].done() and not self.waiting[0].cancelled():
            self.take()

    def summary(self) -> str:
        """Say what became of them."""
        words = []
        if self.published > 1:
            words.append(f"{self.acknowledged} of {self.published} messages were acknowledged.")
        if self._first is not None:
            number, error = self._first
            if self.published > 1:
                words.append(f"The first that was not is number {number}.")
            # A store's errors say it themselves.
            fate = "It was not stored: " if isinstance(error, RequestError) else ""
            words.append(f"{fate}{error}")
        return " ".join([*words, self.stopped]).strip()


class Publishing:
    """Publishes messages, and prints what becomes of each."""

    def __init__(
        self, client: Client, room: str, what: PublishSettings, output: Output, account: Account
    ) -> None:
        self._client = client
        self._room = room
        self._what = what
        self._output = output
        self._account = account
        self._space = asyncio.Semaphore(MOST)
        self._changed = asyncio.Event()

    async def run(self, messages: AsyncIterator[bytes]) -> None:
        """Publish all, or until one can't be stored or nobody reads the output."""
        publishing = asyncio.create_task(self._publish(messages))
        publishing.add_done_callback(lambda _: self._changed.set())
        reporting = asyncio.create_task(self._report(publishing))
        closing = asyncio.create_task(self._output.closed.wait())
        try:
            await asyncio.wait([publishing, closing], return_when=asyncio.FIRST_COMPLETED)
            if closing.done():
                self._account.stopped = self._output.fault or "Nobody reads the IDs any more."
                publishing.cancel()
            await reporting
            if not publishing.cancelled():
                publishing.result()
        finally:
            for task in (publishing, reporting, closing):
                task.cancel()
            await asyncio.gather(publishing, reporting, closing, return_exceptions=True)

    async def _publish(self, messages: AsyncIterator[bytes]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            async for message in messages:
                await asyncio.sleep(due - loop.time())
                due = max(due, loop.time()) + self._what.interval
                await self._space.acquire()
                self._account.add(self._publish_one(message))
                self._changed.set()
        except StreamcastError as error:
            self._account.stopped = str(error)

    def _publish_one(self, message: bytes) -> Answer:
        try:
            data = message if self._what.binary else message.decode()
        except UnicodeDecodeError:
            refused: Answer = asyncio.get_running_loop().create_future()
            refused.set_exception(BadRequest("It is not UTF-8; publish it with --binary."))
            return refused
        return self._client.publish(self._room, data, key=self._what.key)

    async def _report(self, publishing: "asyncio.Task[None]") -> None:
        """Print what became of the messages, in order; end when all have been published."""
        account, output = self._account, self._output
        while True:
            while account.waiting:
                if not account.waiting[0].done():
                    await asyncio.wait([account.waiting[0]])
                outcome = account.take()
                self._space.release()
                output.write(self._line(outcome))
                if output.is_full:
                    await output.drained()
                if isinstance(outcome, StoreError):
                    publishing.cancel()
            if publishing.done():
                return
            self._changed.clear()
            await self._changed.wait()

    def _line(self, outcome: MessageId | CodedError) -> bytes:
        if self._what.quiet:
            return b""
        if self._what.json:
            return line_of(_object(self._room, outcome))
        return f"{outcome}\n".encode() if isinstance(outcome, MessageId) else b""


def _object(room: str, outcome: MessageId | CodedError) -> dict[str, str | None]:
    if isinstance(outcome, MessageId):
        return {"type": "ack", "room": room, "id": str(outcome), "time": stamp(outcome)}
    return {"type": "error", "room": room, "code": outcome.code, "message": str(outcome)}


async def _messages(message: str | None, what: PublishSettings) -> AsyncIterator[bytes]:
    """Return what is to be published, as it comes. Raises StreamcastError."""
    if message is None and sys.stdin is None:
        # Then the number is somebody else's by now.
        raise StreamcastError("There is no standard input.")
    try:
        if what.lines:
            async for line in lines_of(STDIN, LARGEST):
                yield line
            return
        # What the shell gave is bytes, whatever Python made of it.
        payload = await _whole() if message is None else os.fsencode(message)
    except OSError as error:
        raise StreamcastError(f"Standard input can't be read: {error.strerror}.") from error
    for _ in range(what.count):
        yield payload


def _is_one_socket() -> bool:
    """Whether standard input and output are the same; then what comes over it is input."""
    try:
        return os.path.sameopenfile(STDIN, STDOUT)
    except OSError:
        return False


async def _whole() -> bytes:
    payload = bytearray()
    async for chunk in chunks_of(STDIN):
        payload += chunk
        if len(payload) > LARGEST:
            raise TooBig(f"Standard input has more than {LARGEST} bytes, which no server takes.")
    return bytes(payload)
