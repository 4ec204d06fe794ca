"""Starting and stopping the server."""

import asyncio
import errno
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import Any

from streamcast import log
from streamcast.config import RelaySettings, ServerSettings, StreamSettings
from streamcast.errors import BadRoom, StartError
from streamcast.message import room_name
from streamcast.relay import Relay
from streamcast.server.context import Context
from streamcast.server.draining import drain
from streamcast.server.head import Head
from streamcast.server.keepalive import (
    sweep_closes_forever,
    sweep_forever,
    sweep_heads_forever,
)
from streamcast.streams import EmbeddedStore, RedisStreams

BACKLOG = 2048
RESERVED_FILES = 128
"""How many files clients leave for lanes to the store, which have to be opened again when they were
lost, and for what else the process needs."""
FEWEST_FILES = 2 * RESERVED_FILES
SUMMARY_EVERY = 10.0


async def serve(
    streams: StreamSettings,
    messages: RelaySettings,
    server: ServerSettings,
    listening: Callable[[str, str | None], None],
) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartError.

    `listening` is called with the URL, and the path of the embedded store's socket if it runs.
    """
    _check(server, streams)
    files = _files_for_clients()
    if streams.redis:
        await _serve(streams, messages, server, files, lambda url: listening(url, None))
        return
    embedded = EmbeddedStore(streams.data)
    try:
        await embedded.start()
        own = replace(streams, redis=embedded.url)
        await _serve(own, messages, server, files, lambda url: listening(url, embedded.path))
    finally:
        await embedded.close()


async def _serve(
    streams: StreamSettings,
    messages: RelaySettings,
    server: ServerSettings,
    files: int,
    listening: Callable[[str], None],
) -> None:
    store = RedisStreams(streams, messages.max_message)
    await store.start()
    relay = Relay(store, messages)
    context = Context(relay, server, messages, files)
    try:
        sockets = await _listen(context)
        stop = _stop_on_signals()
        _tell_statistics_on_signal(context)
        url = _url(sockets)
        listening(url)
        log.info("listening", url=url, store=store.where, max_connections=context.capacity)
        async with _kept_up(context, stop):
            await stop.wait()
            await drain(context, sockets.close)
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


def _check(server: ServerSettings, streams: StreamSettings) -> None:
    try:
        room_name(server.default_room)
    except BadRoom as error:
        raise StartError(f"--default-room: {error}") from error
    if streams.redis and streams.data:
        raise StartError("--data is for the embedded Valkey; give either --redis or --data.")


async def _listen(context: Context) -> asyncio.Server:
    settings = context.server
    where = f"{settings.host}:{settings.port}"
    try:
        return await asyncio.get_running_loop().create_server(
            lambda: Head(context), settings.host, settings.port, backlog=BACKLOG
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"{where} is taken; choose another --port, or 0 for any.") from error
        raise StartError(f"Can't listen on {where}: {error.strerror or error}.") from error


def _url(sockets: asyncio.Server) -> str:
    host, port = sockets.sockets[0].getsockname()[:2]
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


def _stop_on_signals() -> asyncio.Event:
    """Return what the first SIGTERM or SIGINT sets; a second ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    return stop


def _tell_statistics_on_signal(context: Context) -> None:
    """Log on SIGUSR1 what is held now and was done so far."""

    def tell() -> None:
        parts = context.statistics(), context.relay.statistics(), context.relay.streams.statistics()
        log.info(
            "statistics", **{name: value for part in parts for name, value in asdict(part).items()}
        )

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)


def _files_for_clients() -> int:
    """Take as many open files as we may; return how many clients may have. Raises StartError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            # macOS says that there is no limit, and has one.
            hard = soft
    if hard == resource.RLIM_INFINITY:
        return sys.maxsize
    if hard < FEWEST_FILES:
        raise StartError(f"Only {hard} files may be open; allow {FEWEST_FILES} (ulimit -n).")
    return hard - RESERVED_FILES


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
