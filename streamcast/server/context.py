"""What all connections of a server share."""

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamcast.config import RelaySettings, ServerSettings
from streamcast.relay import Relay

if TYPE_CHECKING:
    from streamcast.server.connection import Connection
    from streamcast.server.head import Head

MAX_REFUSALS = 64
"""How many clients that are too many can be told so at a time; more are cut off."""


@dataclass(slots=True)
class Context:
    """The relay, the settings, and who is connected.

    `files`: how many files clients may have open; each is one. `heads`: those whose request has not
    come yet, or was refused, the oldest first. `admitted` counts those that are served, not those
    that are being refused or closed; `published` what they published.
    """

    relay: Relay
    server: ServerSettings
    messages: RelaySettings
    files: int = sys.maxsize
    connections: "dict[Connection, None]" = field(default_factory=dict)
    heads: "dict[Head, None]" = field(default_factory=dict)
    opened: int = 0
    closed: int = 0
    admitted: int = 0
    published: int = 0
    refused: int = 0
    stopping: bool = False

    @property
    def capacity(self) -> int:
        """How many clients are served at once."""
        return min(self.server.max_connections, self.files - MAX_REFUSALS)

    @property
    def is_full(self) -> bool:
        """Whether one more client can't be served; it is told so."""
        return self.admitted >= self.capacity

    @property
    def has_no_file_left(self) -> bool:
        """Whether one more client can't even be told so."""
        return len(self.heads) + len(self.connections) >= self.files
