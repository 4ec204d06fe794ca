"""Telling connections that are alive from those that are not.

The law of this file: one sweep for all, no timer per connection. Each connection is visited once in
`ping` seconds. One whose socket takes what is written must answer the ping of the visit before,
unless it is not being read from; one whose socket does not, can't, and is judged by bytes that the
kernel still takes.
"""

import asyncio
from math import ceil

from streamcast import log
from streamcast.server.connection import Connection
from streamcast.server.context import Context

STEPS = 20
"""In how many steps a sweep goes through all connections."""
HEAD_TIMEOUT = 10.0
"""Seconds within which a request's head has to come; it is looked for each second."""
CLOSE_TIMEOUT = 10.0
"""Seconds within which a close is answered, at least."""


async def sweep_forever(context: Context) -> None:
    """Visit connections until cancelled."""
    pause = context.server.ping / STEPS
    while True:
        connections = list(context.connections)
        share = ceil(len(connections) / STEPS)
        for step in range(STEPS):
            await asyncio.sleep(pause)
            for connection in connections[step * share : (step + 1) * share]:
                visit(connection, context.server.ping, context.server.stall)


async def sweep_heads_forever(context: Context) -> None:
    """Give up connections whose request does not come, and cut them where they do not close."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1)
        for head in list(context.heads):
            if loop.time() - head.since < HEAD_TIMEOUT:
                # All behind it came later.
                break
            head.give_up()


async def sweep_closes_forever(context: Context) -> None:
    """Give up connections that do not answer the close."""
    closing: set[Connection] = set()
    while True:
        await asyncio.sleep(CLOSE_TIMEOUT)
        now_closing = {connection for connection in context.connections if connection.is_closing}
        for connection in closing & now_closing:
            connection.abort()
        closing = now_closing - closing


def visit(connection: Connection, ping: float, stall: float) -> None:
    """Look after one connection; `ping` seconds have passed since the last visit."""
    if connection.is_closing:
        return
    if not connection.writable:
        _visit_paused(connection, ping, stall)
        return
    connection.stalled = 0.0
    if not connection.is_listening:
        connection.asked = False
        return
    peer = connection.websocket
    if peer.talked or not connection.asked or peer.answered:
        connection.asked = not peer.talked
        peer.talked = peer.answered = False
        if connection.asked:
            connection.ping()
    else:
        log.debug("connection given up", reason="no answer to a ping")
        connection.abort()


def _visit_paused(connection: Connection, ping: float, stall: float) -> None:
    left = connection.waiting_bytes
    connection.stalled = connection.stalled + ping if left == connection.left else 0.0
    connection.left = left
    connection.asked = False
    if connection.stalled >= stall:
        log.debug("connection given up", reason="it takes nothing of what waits for it")
        connection.abort()
