"""Who has which slots of a cluster (CLUSTER NODES, CLUSTER SLOTS).

The law of this file: it is pure. Where nodes disagree, the newest configuration counts, as among
themselves ("Redis cluster specification", section "Hash slots configuration propagation"): a master
that was cut off still names itself, with an older one.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis.crc import key_slot as slot_of

SLOTS = 16384

__all__ = ["SLOTS", "Address", "Range", "View", "owners", "slot_of"]


class Address(NamedTuple):
    """Where a node is reached."""

    host: str
    port: int


class Range(NamedTuple):
    """Slots, both ends included, of one master: its ID, and the epoch of its configuration."""

    epoch: int
    first: int
    last: int
    master: str


class View(NamedTuple):
    """What one node says, the one that was `asked`.

    `leaving`: the slots that are on their way from it to another one.
    """

    asked: Address
    ranges: Sequence[Range]
    addresses: dict[str, Address]
    leaving: frozenset[int]

    @classmethod
    def of(cls, nodes: Any, slots: Any, asked: Address) -> "View":
        """Read the answers to CLUSTER NODES and CLUSTER SLOTS of the node that is `asked`."""
        ranges: list[Range] = []
        leaving: list[int] = []
        for line in nodes.decode().splitlines():
            id_, _, flags, _, _, _, epoch, _, *parts = line.split(" ")
            for part in parts:
                if not part.startswith("["):
                    first, _, last = part.partition("-")
                    ranges.append(Range(int(epoch), int(first), int(last or first), id_))
                elif "->-" in part and "myself" in flags:
                    leaving.append(int(part[1:].partition("-")[0]))
        return cls(asked, sorted(ranges), dict(_addresses(slots, asked)), frozenset(leaving))


def owners(views: Iterable[View]) -> list[str]:
    """Return which master has which slot, by ID; nothing where none has."""
    found = [""] * SLOTS
    for range_ in sorted({each for view in views for each in view.ranges}):
        found[range_.first : range_.last + 1] = [range_.master] * (range_.last - range_.first + 1)
    return found


def _addresses(slots: Any, asked: Address) -> Iterable[tuple[str, Address]]:
    # Each with its preferred host, and with the port for TLS where TLS was asked over.
    for _, _, *nodes in slots:
        for host, port, id_, *_ in nodes:
            known = host is not None and host not in {b"", b"?"}
            yield id_.decode(), Address(host.decode() if known else asked.host, port)
