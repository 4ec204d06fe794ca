"""Stopping without loss: the clients are sent to other servers, one after the other.

The law of this file: each client is served until its turn comes, its acknowledgements are finished,
and it is closed with 1012. The turns are spread, so that whoever takes the clients in is not met by
all in one instant. However the store and the clients behave, it ends in `drain` seconds and
`ANSWER_TIMEOUT` and `CLOSE_TIMEOUT`.
"""

import asyncio
from collections.abc import Callable
from math import ceil

from streamcast import log
from streamcast.server.context import Context
from streamcast.wire import Close
from streamcast.wire.close import Code

APART = 0.01
"""Seconds between two clients at most: few clients don't make a stop wait."""
ANSWER_TIMEOUT = 1.0
"""Seconds that the store has, after the last turn, to answer to what was published."""
CLOSE_TIMEOUT = 2.0
"""Seconds that clients have to answer the close."""
LOOK_EVERY = 0.02
RESTARTING = Close(Code.RESTART, "restarting")


async def drain(context: Context, stop_listening: Callable[[], None]) -> None:
    """Accept no more clients, and send away those that are there.

    Until all are gone the port stays open, for /readyz to say so; who wants to join is told 503.
    """
    log.info("stopping", connections=len(context.connections))
    context.stopping = True
    end = _now() + context.server.drain
    await _send_away(context)
    for head in list(context.heads):
        head.give_up()
    await _wait_until(lambda: context.intake.publishing == 0, end + ANSWER_TIMEOUT)
    for connection in list(context.connections):
        connection.close(RESTARTING)
    await _wait_until(lambda: not context.connections, _now() + CLOSE_TIMEOUT)
    stop_listening()
    for connection in list(context.connections):
        connection.abort()
    for head in list(context.heads):
        head.abort()
    log.info("stopped")


async def _send_away(context: Context) -> None:
    """Give each client its turn, evenly spread."""
    clients = list(context.connections)
    spread = min(context.server.drain, len(clients) * APART)
    began, sent = _now(), 0
    while sent < len(clients):
        elapsed = _now() - began
        # The first at once; all when the time is over, however busy it was.
        due = ceil(len(clients) * elapsed / spread) if elapsed < spread else len(clients)
        for client in clients[sent : max(due, 1)]:
            client.finish(RESTARTING)
        sent = max(due, 1)
        await asyncio.sleep(APART)


async def _wait_until(condition: Callable[[], bool], end: float) -> None:
    while not condition() and _now() < end:
        await asyncio.sleep(LOOK_EVERY)


def _now() -> float:
    return asyncio.get_running_loop().time()
