"""What a load consists of, and which of its processes does what.

The law of this file: it is pure, and everything here can be sent to another process.
"""

from dataclasses import dataclass

from streamcast.bench.schedule import Schedule
from streamcast.bench.sockets import Address


@dataclass(frozen=True, slots=True)
class Member:
    """A connection: it hears its room, publishes there, or both.

    `more`: further rooms that it hears. `counts`: how late it gets its messages is measured.
    `stalls`: it is in its rooms and reads nothing.
    """

    room: str
    listens: bool
    schedule: Schedule | None = None
    more: tuple[str, ...] = ()
    counts: bool = True
    stalls: bool = False

    @property
    def rooms(self) -> tuple[str, ...]:
        """The rooms that it hears."""
        return (self.room, *self.more) if self.listens else ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A load. `size`: bytes of a payload.

    `duration`: seconds for which is published, of which the first `warmup` are not measured.
    """

    address: Address
    dialect: str
    size: int
    warmup: float
    duration: float
    members: tuple[Member, ...]
    cut_at: float | None = None
    """When all who only listen lose their connections, and come back; None: never."""
    keyed: bool = False
    """Whether each message has a key of its own, so that it can be sent again."""

    @property
    def publishers(self) -> dict[str, list[int]]:
        """The publishers of each room."""
        found: dict[str, list[int]] = {}
        for member in self.members:
            if member.schedule is not None:
                found.setdefault(member.room, []).append(member.schedule.publisher)
        return found

    @property
    def listeners(self) -> dict[str, int]:
        """How many hear each room, and read."""
        found: dict[str, int] = {member.room: 0 for member in self.members}
        for member in self.members:
            for room in () if member.stalls else member.rooms:
                found[room] = found.get(room, 0) + 1
        return found

    def shares(self, processes: int) -> list[tuple[Member, ...]]:
        """Deal the members out; those of a room stay together where there are rooms enough."""
        rooms = sorted({member.room for member in self.members})
        if len(rooms) >= processes:
            process_of = {room: number % processes for number, room in enumerate(rooms)}
            return [
                tuple(each for each in self.members if process_of[each.room] == number)
                for number in range(processes)
            ]
        return [self.members[number::processes] for number in range(processes)]


def broadcast(
    room: str, *, subscribers: int, publishers: int, rate: float, duration: float
) -> tuple[Member, ...]:
    """One room: all hear, a few publish in turn, `rate` messages a second in all."""
    each = rate / publishers
    speak = [
        Member(room, False, Schedule(number, each, number / rate, duration))
        for number in range(publishers)
    ]
    return (*speak, *[Member(room, True)] * subscribers)


def live(
    prefix: str, *, rooms: int, players: int, rate: float, duration: float
) -> tuple[Member, ...]:
    """Many rooms, in each of which everyone hears everyone; each publishes `rate` a second.

    Their times are spread evenly: not all at once, and not all players of a room together.
    """
    total = rooms * players
    return tuple(
        Member(
            f"{prefix}-{number % rooms}",
            True,
            Schedule(number, rate, number / total / rate, duration),
        )
        for number in range(total)
    )


def idle(room: str, *, connections: int) -> tuple[Member, ...]:
    """One room, in which nobody says anything."""
    return (Member(room, True),) * connections
