"""What a load consists of, and which of its processes does what.

The law of this file: it is pure, and everything here can be sent to another process.
"""

from dataclasses import dataclass

from streamcast.bench.schedule import Schedule
from streamcast.bench.sockets import Address


@dataclass(frozen=True, slots=True)
class Member:
    """A connection: it hears its room, publishes there, or both."""

    room: str
    listens: bool
    schedule: Schedule | None = None


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
        """How many hear each room."""
        found: dict[str, int] = {}
        for member in self.members:
            found[member.room] = found.get(member.room, 0) + member.listens
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
