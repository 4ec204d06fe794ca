"""What `tail` does: rooms on the one side, standard output on the other."""

import asyncio
import os
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any

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
from streamcast.client import Message, Subscription
from streamcast.config import PlaceSettings, ShowSettings, TailSettings
from streamcast.errors import StreamcastError

TICK = 0.05
"""Seconds between two looks at whether messages can come."""


async def follow(
    rooms: Sequence[str], tail: TailSettings, show: ShowSettings, place: PlaceSettings
) -> None:
    """Print what rooms bring until that is to end. Raises StreamcastError."""
    output = Output.standard()
    try:
        async with connected(place) as client:
            after = "0" if tail.all else tail.after
            subscriptions = [client.subscribe(room, after=after, last=tail.last) for room in rooms]
            await Following(subscriptions, tail, _choose(rooms, show), output).run()
        await output.drained()
    finally:
        output.close()
    if output.fault is not None:
        raise StreamcastError(output.fault)


class Following:
    """Follows rooms until enough came, nothing came for long enough, or nobody reads it."""

    def __init__(
        self, subscriptions: Sequence[Subscription], tail: TailSettings, show: Show, output: Output
    ) -> None:
        self._subscriptions = subscriptions
        self._show = show
        self._output = output
        self._left = tail.count
        self._wait = tail.wait
        self._enough = asyncio.Event()
        self._last = time.monotonic()

    async def run(self) -> None:
        """Follow. Raises StreamcastError."""
        work = [self._follow(each) for each in self._subscriptions]
        ends: list[Coroutine[Any, Any, object]] = [
            self._enough.wait(),
            self._output.closed.wait(),
        ]
        if self._wait is not None:
            ends.append(self._wait_quiet(self._wait))
        tasks = [asyncio.ensure_future(each) for each in (*work, *ends)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, subscription: Subscription) -> None:
        async for item in subscription:
            if self._enough.is_set():
                break
            self._output.write(self._show(item))
            if isinstance(item, Message):
                self._count()
            else:
                tell(told(item))
            self._last = time.monotonic()
            if self._output.is_full:
                await self._output.drained()

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._enough.set()

    async def _wait_quiet(self, wait: float) -> None:
        """Wait until nothing came for so long, though it could have come."""
        while time.monotonic() < self._last + wait:
            await asyncio.sleep(TICK)
            if self._is_held_up:
                self._last = time.monotonic()

    @property
    def _is_held_up(self) -> bool:
        """Whether there may be messages that could not come."""
        all_joined = all(each.is_joined for each in self._subscriptions)
        return not (all_joined and self._output.is_idle)


def _choose(rooms: Sequence[str], show: ShowSettings) -> Show:
    if show.json:
        return as_json
    if not sys.stdout.isatty():
        return as_payload
    if show.raw:
        return as_safe_payload
    colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return for_people(rooms, colours=colours)
