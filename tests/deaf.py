"""A proxy that says OK to CLIENT TRACKING and passes no push on, as there are some."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.stores import Store


@asynccontextmanager
async def without_pushes(store: Store) -> AsyncIterator[str]:
    """Stand before a store; returns the URL."""
    passing: list[asyncio.Task[None] | None] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing.append(asyncio.current_task())
        from_store, to_store = await asyncio.open_unix_connection(str(store.path))
        await asyncio.gather(_pump(reader, to_store), _pump(from_store, writer))

    path = store.folder / "proxy"
    async with await asyncio.start_unix_server(pass_on, path):
        yield f"unix://{path}"
        await asyncio.gather(*(task for task in passing if task is not None))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on what comes, but turn tracking off where it was to be turned on."""
    while data := await source.read(65536):
        sink.write(data.replace(b"TRACKING\r\n$2\r\nON", b"TRACKING\r\n$3\r\nOFF"))
    sink.close()
    await sink.wait_closed()
