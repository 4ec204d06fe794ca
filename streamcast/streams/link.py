"""A lane that is opened again whenever it is lost.

The law of this file: between two attempts there is a pause, growing and jittered, so that many
servers that lost one store don't come back in one instant.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import hiredis

from streamcast import log
from streamcast.backoff import Backoff
from streamcast.errors import StoreError
from streamcast.streams.connect import Refused
from streamcast.streams.lane import Lane

Connect = Callable[[str, Callable[[str], None]], Awaitable[Lane]]
"""Opens a lane of this name; the callback takes why it was lost, later."""


class Link:
    """Keeps one lane open, for an owner who is told when there is another one, and when none.

    `where`: what it leads to. `reopened` counts how often it came back.
    """

    def __init__(
        self,
        name: str,
        where: object,
        connect: Connect,
        connected: Callable[[Lane], None],
        disconnected: Callable[[], None],
    ) -> None:
        self.name = name
        self.lane: Lane | None = None
        self.reopened = 0
        self._where = where
        self._connect = connect
        self._connected = connected
        self._disconnected = disconnected
        self._backoff = Backoff()
        self._opening: asyncio.Task[None] | None = None
        self._hurried = asyncio.Event()
        self._was_lost = False
        self._closing = False

    async def open(self) -> Lane:
        """Open it now, and return it. Raises StoreError, hiredis.ReplyError."""
        self._closing = False
        lane = self.lane = await self._connect(self.name, self._lost)
        self._connected(lane)
        return lane

    def open_soon(self) -> None:
        """Open it, trying until the store answers, unless it is open or being opened."""
        if self.lane is None and (self._opening is None or self._opening.done()):
            self._open_after(0.0)

    def _open_after(self, pause: float) -> None:
        self._opening = asyncio.create_task(self._open_until_it_is(pause))
        self._opening.add_done_callback(lambda task: log.fault_of(task, "link"))

    async def close(self) -> None:
        """End it."""
        self._closing = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self.lane is not None:
            lane = self.lane
            lane.close()
            await lane.closed

    def cut(self, reason: str) -> None:
        """End the lane that is open; another one follows."""
        if self.lane is not None:
            self.lane.close(reason)

    def hurry(self) -> None:
        """Make the next attempt now, if one is still to come: something has changed."""
        self._hurried.set()

    def _lost(self, reason: str) -> None:
        self.lane = None
        self._was_lost = True
        self._disconnected()
        if not self._closing:
            log.warning("store lost", lane=self.name, store=str(self._where), reason=reason)
            self._open_after(self._backoff.pause())

    async def _open_until_it_is(self, pause: float) -> None:
        while True:
            self._hurried.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), pause)
            try:
                await self.open()
            except (StoreError, hiredis.ReplyError) as error:
                (log.warning if isinstance(error, Refused) else log.debug)(
                    "store unavailable", lane=self.name, reason=str(error)
                )
            except Exception as fault:  # noqa: BLE001 - there has to be a lane again in any case
                log.error("fault", where=f"lane {self.name}", fault=repr(fault), exc_info=True)
            else:
                if self._was_lost:
                    self.reopened += 1
                    log.info("store back", lane=self.name, store=str(self._where))
                return
            pause = self._backoff.pause()
