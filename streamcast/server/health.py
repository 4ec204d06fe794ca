"""`/livez` and `/readyz`, for load balancers and supervisors.

The law of this file: it runs as long as it answers; it is ready while deliveries work. Whichever
worker is asked answers for all of them, with the word of the one that does worst.
"""

import asyncio
from http import HTTPStatus

from streamcast.server.context import Context
from streamcast.server.others import DOWN, SILENT
from streamcast.streams import State

LIVE, READY = "/livez", "/readyz"
STOPPING = "stopping"
TELL_EVERY = 1.0
"""Seconds between two times that a worker tells the others how it does."""

_FROM_BEST: list[str] = [*State, DOWN, SILENT, STOPPING]
_READY = {State.READY, State.READ_ONLY}


def answer(path: str, context: Context) -> tuple[HTTPStatus, str] | None:
    """Return what is said at a path: a status and a word; None if there is nothing there."""
    if path not in {LIVE, READY}:
        return None
    tell(context)
    states = context.others.states
    if path == LIVE:
        # One that is down is being replaced; one that hangs is not.
        hangs = SILENT in states
        return (HTTPStatus.SERVICE_UNAVAILABLE, SILENT) if hangs else (HTTPStatus.OK, "live")
    worst = max(states, key=_FROM_BEST.index)
    return HTTPStatus.OK if worst in _READY else HTTPStatus.SERVICE_UNAVAILABLE, worst


def tell(context: Context) -> None:
    """Have the other workers know how this one does."""
    context.others.tell(STOPPING if context.stopping else context.relay.streams.health.state)


async def tell_forever(context: Context) -> None:
    """Tell them every second."""
    while True:
        tell(context)
        await asyncio.sleep(TELL_EVERY)
