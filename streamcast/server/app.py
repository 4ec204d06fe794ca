"""Serving in one process: the server itself, or a worker of one."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from streamcast import log
from streamcast.config import RelaySettings, ServerSettings, StreamSettings
from streamcast.relay import Relay
from streamcast.server import health
from streamcast.server.accepting import Accepting
from streamcast.server.collecting import collect_rarely
from streamcast.server.context import Context
from streamcast.server.draining import drain
from streamcast.server.keepalive import (
    sweep_closes_forever,
    sweep_forever,
    sweep_heads_forever,
)
from streamcast.server.listening import Listening, listen, url_of
from streamcast.server.others import Others
from streamcast.server.signals import stop_on_signals
from streamcast.server.starting import files_for_clients, started
from streamcast.streams import RedisStreams

SUMMARY_EVERY = 10.0

Begin = Callable[[Context, Callable[[], None]], Awaitable[Listening]]
"""Begins to listen for clients; is given what stops the server."""


async def serve(
    streams: StreamSettings,
    messages: RelaySettings,
    server: ServerSettings,
    listening: Callable[[str, str | None], None],
) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartError.

    `listening` is called with the URL, and the path of the embedded store's socket if it runs.
    """
    async with started(streams, server) as (streams, path):

        async def begin(context: Context, stop: Callable[[], None]) -> Listening:
            sockets = await listen(server.host, server.port)
            url = url_of(sockets)
            accepting = Accepting(context, sockets)
            stop_on_signals(stop)
            listening(url, path)
            return Listening(url, accepting.close)

        await serve_clients(streams, messages, server, begin, Others())


async def serve_clients(
    streams: StreamSettings,
    messages: RelaySettings,
    server: ServerSettings,
    begin: Begin,
    others: Others,
) -> None:
    """Serve until stopped. Raises StartError."""
    files = files_for_clients()
    store = RedisStreams(streams, messages.max_message)
    await store.start()
    relay = Relay(store, messages)
    context = Context(relay, server, messages, files, others=others)
    stop = asyncio.Event()
    try:
        _tell_statistics_on_signal(context)
        health.tell(context)
        collect_rarely()
        listening = await begin(context, stop.set)
        log.info(
            "listening", url=listening.url, store=store.where, max_connections=context.capacity
        )
        async with _kept_up(context, stop):
            await stop.wait()
            await drain(context, listening.close)
    finally:
        await relay.close()
        await store.close()


@asynccontextmanager
async def _kept_up(context: Context, stop: asyncio.Event) -> AsyncIterator[None]:
    """Do what a server does all the time, to the end of the drain too."""
    work: list[Coroutine[Any, Any, None]] = [
        sweep_forever(context),
        sweep_heads_forever(context),
        sweep_closes_forever(context),
        _summarize_forever(context),
        context.relay.streams.health.watch(),
        health.tell_forever(context),
    ]
    tasks = [asyncio.create_task(each) for each in work]

    def ended(task: asyncio.Task[None]) -> None:
        # By a fault; better to end in order than to go on without it.
        log.fault_of(task, "server")
        stop.set()

    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell_statistics_on_signal(context: Context) -> None:
    """Log on SIGUSR1 what is held now and was done so far."""

    def tell() -> None:
        parts = context.statistics(), context.relay.statistics(), context.relay.streams.statistics()
        log.info(
            "statistics", **{name: value for part in parts for name, value in asdict(part).items()}
        )

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)


async def _summarize_forever(context: Context) -> None:
    """Tell every 10 s what happened, where something did."""
    before = None
    while True:
        now = {
            "opened": context.opened,
            "closed": context.closed,
            "refused": context.refused,
            "published": context.published,
            "delivered": context.relay.delivered,
        }
        if before is not None and now != before:
            happened = {name: now[name] - before[name] for name in now}
            held = {"connections": len(context.connections), "rooms": context.relay.rooms}
            log.info("summary", **held, **happened)
        before = now
        await asyncio.sleep(SUMMARY_EVERY)
