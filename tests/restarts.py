"""Rooms that a client keeps while its server is restarted: was each message there once, in order?

As a program: `scripts/restarts --rooms 500 --restarts 10`.
"""

import argparse
import asyncio
import signal
import socket
import sys
from dataclasses import dataclass, field

from streamcast.client import (
    Client,
    Connected,
    ConnectionEvent,
    Gap,
    Message,
    Subscription,
    connect,
)
from tests.conftest import ENGINES
from tests.stores import Server, Store

END = "end"
UP = 0.6
"""Seconds that a server is let live before the next restart."""


@dataclass
class Kept:
    """What was published, and what was wrong with what came."""

    published: int = 0
    received: int = 0
    gaps: int = 0
    connections: int = 0
    wrong: list[str] = field(default_factory=list)


async def keep_rooms(store: str, rooms: int, restarts: int) -> Kept:
    """Publish to all rooms and follow them, each by a client of its own, through restarts.

    Every other server is killed with -9, the others stop in order.
    """
    kept = Kept()
    names = [f"kept-{number}" for number in range(rooms)]
    connections = asyncio.Semaphore(0)
    port = free_port()
    server = await asyncio.to_thread(start, store, port)

    def on_connection(event: ConnectionEvent) -> None:
        if isinstance(event, Connected):
            connections.release()
            kept.connections += 1

    try:
        url = f"ws://127.0.0.1:{port}"
        async with (
            connect(url, on_connection=on_connection) as reads,
            connect(url, on_connection=on_connection) as writes,
        ):
            subscriptions = [reads.subscribe(name) for name in names]
            for subscription in subscriptions:
                await subscription.wait_joined()
            stop = asyncio.Event()
            counts = [asyncio.create_task(publish(writes, name, stop)) for name in names]
            checks = [asyncio.create_task(check(kept, each)) for each in subscriptions]
            for number in range(restarts):
                for _ in (reads, writes):
                    await connections.acquire()
                await asyncio.sleep(UP)
                server.signal(signal.SIGTERM if number % 2 else signal.SIGKILL)
                await asyncio.to_thread(server.ended)
                server = await asyncio.to_thread(start, store, port)
            await asyncio.sleep(UP)
            stop.set()
            kept.published = sum(await asyncio.gather(*counts))
            async with asyncio.timeout(30):
                await asyncio.gather(*checks)
    finally:
        await asyncio.to_thread(server.stop)
    return kept


async def publish(client: Client, room: str, stop: asyncio.Event) -> int:
    """Publish numbers, four at a time, and END; returns how many, when all are acknowledged."""
    count = 0
    while not stop.is_set():
        await asyncio.gather(*[client.publish(room, str(count + more)) for more in range(4)])
        count += 4
        await asyncio.sleep(0.1)
    await client.publish(room, END)
    return count


async def check(kept: Kept, subscription: Subscription) -> None:
    """Read numbers, each of which is the next, until the END."""
    expected = 0
    async for item in subscription:
        if isinstance(item, Gap):
            kept.gaps += 1
        if not isinstance(item, Message):
            continue
        if item.data == END:
            break
        if item.data != str(expected):
            kept.wrong.append(f"{item.room}: {item.data!r} instead of {expected}")
        expected += 1
        kept.received += 1


def start(store: str, port: int) -> Server:
    """Start a server, on a port that may be in use for a moment yet."""
    return Server("--redis", store, "--port", str(port))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rooms", type=int, default=500)
    parser.add_argument("--restarts", type=int, default=10)
    given = parser.parse_args()
    store = Store(ENGINES["valkey"])
    try:
        store.start()
        kept = asyncio.run(keep_rooms(store.url, given.rooms, given.restarts))
    finally:
        store.close()
    sys.stdout.write(f"{kept}\n")
    assert not kept.wrong
    assert not kept.gaps
    assert kept.received == kept.published


if __name__ == "__main__":
    main()
