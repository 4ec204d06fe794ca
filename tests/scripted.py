"""A server that says just what a test has it say; and reads what the client says."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.clients import JSON, PATIENCE

Script = Callable[["Scripted"], Awaitable[None]]


class Scripted:
    """One client's connection, as its server has it."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.asked: list[dict[str, Any]] = []

    async def request(self, kind: str) -> dict[str, Any]:
        """Return the next request, which is of this kind."""
        async with asyncio.timeout(PATIENCE):
            request: dict[str, Any] = json.loads(await self.socket.recv())
        assert request["type"] == kind, request
        self.asked.append(request)
        return request

    async def silent(self, seconds: float = 0.2) -> bool:
        """Whether the client asks for nothing for a while."""
        try:
            async with asyncio.timeout(seconds):
                await self.socket.recv()
        except TimeoutError:
            return True
        return False

    async def tell(self, kind: str, **members: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **members}))

    async def join(self, head: str = "0-0") -> dict[str, Any]:
        """Let the client join; returns what it asked for."""
        request = await self.request("join")
        joined = {"room": request["room"], "ref": request["ref"], "head": head}
        await self.tell("joined", **joined, resumed="after" in request)
        return request

    async def message(self, id: str, room: str = "live") -> None:
        await self.tell("message", room=room, id=id, data=id)

    async def ack(self, id: str) -> dict[str, Any]:
        """Acknowledge the next publish; returns it."""
        request = await self.request("publish")
        await self.tell("ack", room=request["room"], ref=request["ref"], id=id)
        return request


class ScriptedServer:
    """Runs a script for each connection, in turn; the last one for all that come after.

    When a script ends, its connection is cut. What a script raises fails the test.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self._failed: BaseException | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.connections = 0

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._test = task
        self._server: Server = await serve(
            self._run,
            "127.0.0.1",
            0,
            subprotocols=[Subprotocol(JSON)],
            compression=None,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._running:
            task.cancel()
        self._server.close()
        await self._server.wait_closed()
        if self._failed is not None:
            self._test.uncancel()
            raise self._failed

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"

    async def _run(self, socket: ServerConnection) -> None:
        task = asyncio.ensure_future(self._follow(socket))
        self._running.add(task)
        await asyncio.wait([task])
        self._running.discard(task)
        socket.transport.abort()

    async def _follow(self, socket: ServerConnection) -> None:
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        try:
            with suppress(ConnectionClosed):
                await script(Scripted(socket))
        except (AssertionError, TimeoutError) as error:
            self._failed = error
            self._test.cancel()
