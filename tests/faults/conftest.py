"""What the fault suite starts: servers that come again on the port that they had."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import stop_in_order
from tests.restarts import free_port
from tests.stores import Server

ROOMS = 20


@dataclass
class Place:
    """A port, and the server that is there."""

    port: int
    options: tuple[str, ...]
    server: Server

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def restart(self) -> None:
        """Start a server where the last one has ended."""
        self.server = _server(self.port, self.options)


def _server(port: int, options: tuple[str, ...]) -> Server:
    return Server("--port", str(port), "--history", "0", "--audit", "1h", *options)


@pytest.fixture
def place() -> Iterator[Callable[..., Place]]:
    """Starts servers on ports that they keep."""
    places: list[Place] = []

    def start(*options: str) -> Place:
        port = free_port()
        places.append(Place(port, options, _server(port, options)))
        return places[-1]

    yield start
    stop_in_order([each.server for each in places])
