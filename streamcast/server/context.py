"""What all connections of a server share."""

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamcast.config import RelaySettings, ServerSettings
from streamcast.relay import Relay
from streamcast.server.intake import Intake
from streamcast.server.others import Others

if TYPE_CHECKING:
    from streamcast.server.connection import Connection
    from streamcast.server.head import Head

MAX_REFUSALS = 64
"""How many clients that are too many can be told so at a time; more are cut off."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a server holds now, and has done so far.

    `paused` connections take no more of what is written to them; `unread` bytes were received and
    wait for their turn; `unacknowledged` bytes are under way to the store.
    """

    connections: int
    paused: int
    heads: int
    opened: int
    closed: int
    refused: int
    unread: int
    unacknowledged: int


@dataclass(slots=True)
class Context:
    """The relay, the settings, and who is connected.

    `files`: how many files clients may have open; each is one. `heads`: those whose request has not
    come yet, or was refused, the oldest first. `published` counts what clients published. `others`:
    the workers beside this one, and how many clients each serves, which are not those that are
    being refused or closed. `stopping`: from the first moment of a drain.
    """

    relay: Relay
    server: ServerSettings
    messages: RelaySettings
    files: int = sys.maxsize
    connections: "dict[Connection, None]" = field(default_factory=dict)
    heads: "dict[Head, None]" = field(default_factory=dict)
    intake: Intake = field(default_factory=Intake)
    others: Others = field(default_factory=Others)
    opened: int = 0
    closed: int = 0
    published: int = 0
    refused: int = 0
    stopping: bool = False

    def statistics(self) -> Statistics:
        """Return what is held now and was done so far."""
        return Statistics(
            connections=len(self.connections),
            paused=sum(not connection.writable for connection in self.connections),
            heads=len(self.heads),
            opened=self.opened,
            closed=self.closed,
            refused=self.refused,
            unread=sum(connection.unread for connection in self.connections),
            unacknowledged=self.intake.publishing,
        )

    @property
    def _files_left(self) -> int:
        """How many files are left for clients: what the store needs grows with the rooms."""
        return self.files - self.relay.streams.connections

    @property
    def capacity(self) -> int:
        """How many clients are served here at once."""
        return min(self.server.max_connections, self._files_left - MAX_REFUSALS)

    def admit(self) -> bool:
        """Count one more client as served, unless that is one too many; it is told so."""
        others = self.others
        others.admitted += 1
        # Counted first: workers that admit one in the same instant don't exceed the limit.
        too_many = others.admitted > self.capacity
        if too_many or others.admitted_by_all > self.server.max_connections:
            self.dismiss()
            return False
        return True

    def dismiss(self) -> None:
        """Count one client less."""
        self.others.admitted -= 1

    @property
    def has_no_file_left(self) -> bool:
        """Whether one more client can't even be told so."""
        return len(self.heads) + len(self.connections) >= self._files_left
