"""What a case of the fault suite plays on: stores, and servers that come again where they were."""

import sys
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.clusters import Cluster
from tests.conftest import stop_in_order
from tests.restarts import free_port
from tests.sentinels import Sentinels
from tests.stores import Server, Store

UNTOUCHED = ("--history", "0", "--audit", "1h")
"""Nothing is trimmed, so that the store can be asked for all; and nothing waits for the audit."""


class Place:
    """A port, and the server that is there."""

    def __init__(self, port: int, options: tuple[str, ...]) -> None:
        self._options = ("--port", str(port), *UNTOUCHED, *options)
        self.url = f"ws://127.0.0.1:{port}"
        self.server = Server(*self._options)

    def restart(self) -> None:
        """Start a server where the last one has ended."""
        self.server = Server(*self._options)


class Stage:
    """Starts things, and ends them all; servers that still run must stop in order.

    `program`: that of the engine.
    """

    def __init__(self, program: str) -> None:
        self.program = program
        self._places: list[Place] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is not None:
                for place in self._places:
                    sys.stdout.write(f"{place.url} logged:\n{place.server.logged()}\n")
            stop_in_order([place.server for place in self._places])

    def store(self, *options: str) -> Store:
        """Start one Redis."""
        made = Store(self.program, *options)
        self._stack.callback(made.close)
        made.start()
        return made

    def sentinels(self) -> Sentinels:
        """Start a primary, two replicas, and three sentinels."""
        made = Sentinels(self.program)
        self._stack.callback(made.close)
        made.start()
        return made

    def cluster(self) -> Cluster:
        """Start three masters, each with a replica."""
        made = Cluster(self.program)
        self._stack.callback(made.close)
        made.start()
        return made

    def place(self, *options: str) -> Place:
        """Start a server."""
        self._places.append(Place(free_port(), options))
        return self._places[-1]
