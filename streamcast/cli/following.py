"""What `tail` does: rooms on the one side, standard output on the other."""

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from streamcast.cli.pipes import Output
from streamcast.cli.place import connected
from streamcast.cli.show import (
    Show,
    as_json,
    as_payload,
    as_safe_payload,
    for_people,
    tell,
    told,
)
from streamcast.client import Client, Connected, ConnectionEvent, Interrupted, Message
from streamcast.config import PlaceSettings, ShowSettings, TailSettings
from streamcast.errors import StreamcastError


async def follow(
    rooms: Sequence[str], tail: TailSettings, show: ShowSettings, place: PlaceSettings
) -> None:
    """Print what rooms bring until that is to end. Raises StreamcastError."""
    output = Output.standard()
    following = Following(tail, _choose(rooms, show), output)
    try:
        async with connected(place, following.on_connection) as client:
            await following.run(client, rooms)
        await output.drained()
    finally:
        output.close()
    if output.fault is not None:
        raise StreamcastError(output.fault)


class Following:
    """Follows rooms until enough came, nothing came for long enough, or nobody reads it."""

    def __init__(self, tail: TailSettings, show: Show, output: Output) -> None:
        self._tail = tail
        self._show = show
        self._output = output
        self._left = tail.count
        self._enough = asyncio.Event()
        self._interrupted = False
        # How many rooms are not joined yet, or wait until the output takes more.
        self._holds = 0
        self._last = asyncio.get_running_loop().time()

    async def run(self, client: Client, rooms: Sequence[str]) -> None:
        """Follow. Raises StreamcastError."""
        work = [self._follow(client, room) for room in rooms]
        ends = [self._enough.wait(), self._output.closed.wait(), self._wait_quiet()]
        tasks = [asyncio.ensure_future(each) for each in (*work, *ends)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, client: Client, room: str) -> None:
        tail, output = self._tail, self._output
        after = "0" if tail.all else tail.after
        subscription = client.subscribe(room, after=after, last=tail.last)
        with self._held_up():
            await subscription.wait_joined()
        async for item in subscription:
            if self._enough.is_set():
                break
            output.write(self._show(item))
            if isinstance(item, Message):
                self._count()
            else:
                tell(told(item))
            self._last = asyncio.get_running_loop().time()
            if output.is_full:
                with self._held_up():
                    await output.drained()

    @contextmanager
    def _held_up(self) -> Iterator[None]:
        """Let the time until nothing came begin anew afterwards."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._last = asyncio.get_running_loop().time()

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._enough.set()

    async def _wait_quiet(self) -> None:
        """Wait until nothing came for as long as was asked for."""
        loop = asyncio.get_running_loop()
        if self._tail.wait is None:
            await loop.create_future()
            return
        while (left := self._last + self._tail.wait - loop.time()) > 0 or self._is_held_up:
            await asyncio.sleep(max(left, 0.05))

    @property
    def _is_held_up(self) -> bool:
        """Whether there may be messages that could not come."""
        return self._interrupted or self._holds > 0

    def on_connection(self, event: ConnectionEvent) -> None:
        """Tell of connections that are lost and come again, once each."""
        self._last = asyncio.get_running_loop().time()
        if isinstance(event, Interrupted) and not self._interrupted:
            self._interrupted = True
            reason = event.reason.rstrip(".")
            tell(f"Interrupted: {event.url}: {reason}. Connecting again …")
        elif isinstance(event, Connected):
            self._interrupted = False
            if event.again:
                tell(f"Connected again to {event.url}.")


def _choose(rooms: Sequence[str], show: ShowSettings) -> Show:
    if show.json:
        return as_json
    if not sys.stdout.isatty():
        return as_payload
    if show.raw:
        return as_safe_payload
    colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return for_people(rooms, colours=colours)
