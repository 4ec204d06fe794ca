"""What was acknowledged, what each receiver saw, and what the store has: do they agree?

The law of this file: it is pure, and knows nothing of streamcast's code but what a gap means: what
lay behind `after` and before `earliest` may be missing, and messages go on from `earliest`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

Id = tuple[int, int]


def id_of(text: str) -> Id:
    """A message ID as numbers."""
    ms, _, seq = text.partition("-")
    return int(ms), int(seq)


class Seen(NamedTuple):
    """A message that a receiver got, or that was acknowledged, or is stored."""

    id: Id
    data: str


class Gap(NamedTuple):
    """A gap that a receiver was told."""

    after: Id
    earliest: Id | None

    def covers(self, id_: Id) -> bool:
        """Whether a message may be missing. `earliest` not behind `after`: history was lost."""
        if id_ <= self.after:
            return False
        return self.earliest is None or self.earliest <= self.after or id_ < self.earliest


Log = Sequence[Seen | Gap]


@dataclass
class Verdict:
    """What became of everything. `lost`: acknowledged, and not in the store any more.

    `rolled_back`: rooms of which anything was there once, and is not any more. `wrong`: what breaks
    a promise, in words. `gaps`: by room and receiver.
    """

    acknowledged: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    rolled_back: set[str] = field(default_factory=set)
    gaps: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged, {self.lost.total()} of them lost in "
            f"{len(self.lost)} rooms, {self.gaps.total()} gaps told, {len(self.wrong)} wrong"
        )


def verdict(
    acknowledged: Mapping[str, Sequence[Seen]],
    stored: Mapping[str, Iterable[Seen]],
    logs: Mapping[str, Mapping[str, Log]],
) -> Verdict:
    """Compare them. `logs`: by receiver and room."""
    found = Verdict()
    for room, acks in acknowledged.items():
        kept = set(stored.get(room, ()))
        found.acknowledged += len(acks)
        lost = [ack for ack in acks if ack not in kept]
        if lost:
            found.lost[room] = len(lost)
        once = {*acks, *(item for log in logs.values() for item in log.get(room, ()))}
        if any(isinstance(item, Seen) and item not in kept for item in once):
            found.rolled_back.add(room)
        for receiver, log in logs.items():
            _check(found, room, receiver, acks, log.get(room, ()))
            if lost and not found.gaps[room, receiver]:
                found.wrong.append(f"{receiver} was not told that {room} lost {lost[0]}")
        if room not in found.rolled_back and any(found.gaps[room, each] for each in logs):
            found.wrong.append(f"a gap was told in {room}, of which everything is there")
    return found


def _check(found: Verdict, room: str, receiver: str, acks: Sequence[Seen], log: Log) -> None:
    gaps = [item for item in log if isinstance(item, Gap)]
    seen = Counter(item for item in log if isinstance(item, Seen))
    if gaps:
        found.gaps[room, receiver] = len(gaps)
    newest: Id = (0, 0)
    for item in log:
        if isinstance(item, Gap):
            newest = (0, 0)
        elif item.id <= newest:
            found.wrong.append(f"{receiver}, {room}: {item} came behind {newest}")
        else:
            newest = item.id
    for item, count in seen.items():
        if count > 1:
            found.wrong.append(f"{receiver}, {room}: {item} came {count} times")
    for ack in acks:
        if not seen[ack] and not any(gap.covers(ack.id) for gap in gaps):
            found.wrong.append(f"{receiver}, {room}: {ack} never came")
