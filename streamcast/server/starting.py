"""What is checked and started before a server listens."""

import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from streamcast.config import ServerSettings, StreamSettings
from streamcast.errors import BadRoom, StartError
from streamcast.message import room_name
from streamcast.streams import EmbeddedStore

RESERVED_FILES = 128
"""How many files clients leave for lanes to the store, which have to be opened again when they were
lost, and for what else the process needs."""
FEWEST_FILES = 2 * RESERVED_FILES


@asynccontextmanager
async def started(
    streams: StreamSettings, server: ServerSettings
) -> AsyncIterator[tuple[StreamSettings, str | None]]:
    """Have what a server needs: where the rooms are, and the embedded store's socket, if it runs.

    Raises StartError.
    """
    _check(server, streams)
    files_for_clients()
    if streams.redis:
        yield streams, None
        return
    embedded = EmbeddedStore(streams.data)
    try:
        await embedded.start()
        yield replace(streams, redis=embedded.url), embedded.path
    finally:
        await embedded.close()


def _check(server: ServerSettings, streams: StreamSettings) -> None:
    try:
        room_name(server.default_room)
    except BadRoom as error:
        raise StartError(f"--default-room: {error}") from error
    if streams.redis and streams.data:
        raise StartError("--data is for the embedded Valkey; give either --redis or --data.")


def files_for_clients() -> int:
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
