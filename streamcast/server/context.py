"""What all connections of a server share."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamcast.config import RelaySettings, ServerSettings
from streamcast.relay import Relay

if TYPE_CHECKING:
    from streamcast.server.connection import Connection
    from streamcast.server.head import Head


@dataclass(slots=True)
class Context:
    """The relay, the settings, and who is connected.

    `heads`: those whose request has not come yet. `admitted` counts those
    that are served, not those that are being refused or closed; `published` what they published.
    """

    relay: Relay
    server: ServerSettings
    messages: RelaySettings
    connections: "dict[Connection, None]" = field(default_factory=dict)
    heads: "dict[Head, None]" = field(default_factory=dict)
    opened: int = 0
    closed: int = 0
    admitted: int = 0
    published: int = 0
    refused: int = 0
    stopping: bool = False
