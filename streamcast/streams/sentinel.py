"""Sentinels: who is the master is what most of them say.

The law of this file: a minority decides nothing. A sentinel that was cut off together with an old
master still names it, and that one still says that it is a master.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import redis

from streamcast.errors import Unavailable
from streamcast.streams.endpoint import Endpoint

PATIENCE = 1.0
"""Seconds within which a sentinel has to answer."""


class Sentinels:
    """Knows where the master of a service is. `master`: how to connect to it, but for where."""

    def __init__(self, sentinels: Sequence[Endpoint], service: str, master: Endpoint) -> None:
        self._service = service
        self._master = master
        self._sentinels = sentinels
        self._clients = [each.client(PATIENCE) for each in sentinels]

    def __str__(self) -> str:
        return f"{self._service} (of the sentinels {', '.join(map(str, self._sentinels))})"

    async def endpoint(self) -> Endpoint:
        """Ask where the master is. Raises Unavailable where no majority agrees."""
        answers = await asyncio.gather(*map(self._ask, self._clients))
        named = Counter(answer for answer in answers if isinstance(answer, tuple))
        if not named:
            raise Unavailable(
                f"None of the sentinels says where the master of {self} is: {answers[0]}."
            )
        (host, port), count = named.most_common(1)[0]
        if 2 * count <= len(self._clients):
            raise Unavailable(
                f"Only {count} of {len(self._clients)} sentinels agree where {self} is; it takes "
                "a majority."
            )
        return replace(self._master, host=host, port=port)

    async def _ask(self, client: Any) -> tuple[str, int] | str:
        """Return what one says, or why it does not."""
        try:
            async with asyncio.timeout(PATIENCE):
                said = await client.execute_command(
                    "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service
                )
        except (redis.RedisError, OSError, TimeoutError) as error:
            return str(error).rstrip(".") or "it does not answer"
        return "it does not know it" if said is None else (said[0].decode(), int(said[1]))

    async def close(self) -> None:
        """Disconnect."""
        for client in self._clients:
            await client.aclose()
