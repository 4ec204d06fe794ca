"""What a node of a cluster says of a key that is not its own (MOVED, ASK).

The law of this file: it is pure. See "Redis cluster specification", section "Redirection".
"""

from typing import NamedTuple

import hiredis

ASKING: bytes = hiredis.pack_command(("ASKING",))
"""What a command has in front that follows an ASK."""


class Redirect(NamedTuple):
    """Another node has the slot (MOVED); or the key, while its slot moves there (`asks`).

    `host` is empty where it is that of the node that says so.
    """

    asks: bool
    slot: int
    host: str
    port: int

    @classmethod
    def parse(cls, error: hiredis.ReplyError) -> "Redirect | None":
        """Read one; None if the error says something else."""
        words = str(error).split(" ")
        if len(words) < 3 or words[0] not in {"MOVED", "ASK"}:
            return None
        host, _, port = words[2].rpartition(":")
        return cls(words[0] == "ASK", int(words[1]), host.strip("[]?"), int(port))


def is_retried(error: hiredis.ReplyError) -> bool:
    """Whether the command provably did not run, and may as soon as a slot has moved (TRYAGAIN)."""
    return str(error).startswith("TRYAGAIN")
