"""What the connections of a load received: when each message came, and what never did.

The law of this file: it is pure, bytes in with the time at which they came. Whole frames are kept,
and taken apart when the load is over. Of those who get the same, as a room's mere subscribers do,
only the first one does so; the others compare bytes with what it got, and take theirs apart only
from where they differ. No message is believed to have come that was not there.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple

from streamcast.bench.frames import frames_of, next_frame, whole_text
from streamcast.bench.schedule import Mark, mark_of

Payload = Callable[[int, bytes], bytes | None]
"""Returns the payload in a frame (opcode, data) of a message of a room; None in any other."""


SOME = 50
"""How many of its newest messages a connection tells of, at most, while the load runs."""
MOST_AHEAD = 64
"""How many pieces wait for the first subscriber before one does without it."""


class Stream:
    """The messages of a room as its first subscriber got them.

    `data`: its bytes from the first message on. `ends`: where each message's frame ends in them.
    `marks`: what was in each, once it is over; None where it is no message of the load.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.ends = array("Q", [0])
        self.marks: list[Mark | None] = []

    def add(self, frame: bytes) -> None:
        """Take in one more message."""
        self.data += frame
        self.ends.append(len(self.data))


class Shapes(NamedTuple):
    """How frames begin, behind their head: those of messages, and of what means nothing here."""

    message: bytes
    nothing: bytes | None


class Tally:
    """How many messages came, over all connections that don't compare."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


@dataclass(slots=True)
class Faults:
    """What was wrong with what a connection received."""

    lost: int = 0
    duplicate: int = 0
    out_of_order: int = 0
    unknown: int = 0
    """Messages that nobody published so."""

    def add(self, other: "Faults") -> None:
        """Add another connection's."""
        self.lost += other.lost
        self.duplicate += other.duplicate
        self.out_of_order += other.out_of_order
        self.unknown += other.unknown


class Receiver:
    """One connection that receives a room's messages.

    `size`: bytes of a payload. `leads`: it fills the `stream`, with which those that `compares`
    compare. `other` is given those frames that are no messages (opcode, data). `keeps`: what frames
    look like that are taken apart later. `tally` counts what comes, beside others'.
    """

    def __init__(
        self,
        stream: Stream,
        payload: Payload,
        size: int,
        other: Callable[[int, bytes], None],
        *,
        leads: bool = False,
        compares: bool = False,
        keeps: Shapes | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._stream = stream
        self._keeps = keeps
        self._tally = tally or Tally()
        self._other = other
        self._payload = payload
        self._size = size
        self.leads = leads
        # As long as it only compares: how far it is, and what came before the first one got it.
        self._compares = compares
        self._expected = stream.data
        self._at = 0
        self._ahead: list[tuple[float, bytes]] = []
        self._times = array("d")
        self._ends = array("Q")
        # From where it takes frames apart.
        self._rest = bytearray()
        self._came: list[tuple[float, Mark | bytes]] = []
        self._taken_last = b""
        self.unknown = 0
        self._told = 0

    @property
    def compared(self) -> int:
        """How many messages came as another one got them; all others are in the tally."""
        return bisect_right(self._stream.ends, self._at) - 1 if self._at else 0

    def receive(self, now: float, data: bytes) -> None:
        """Take in bytes that came at `now`, in seconds."""
        # What nearly every read of a large load is; no call is made here that can be spared.
        if self._compares and not self._ahead and self._expected.startswith(data, self._at):
            self._at += len(data)
            self._times.append(now)
            self._ends.append(self._at)
        elif not self._compares:
            if self._keeps is not None:
                if self._rest:
                    data = bytes(self._rest) + data
                    self._rest.clear()
                data = self._keep(now, data, self._keeps)
            if data:
                self._take_apart(now, data)
        elif self._ahead:
            self._ahead.append((now, data))
            self.catch_up()
            if len(self._ahead) > MOST_AHEAD:
                self.stop_comparing()
        else:
            self._compare(now, data)

    def catch_up(self) -> None:
        """Compare what had come before the first subscriber got it."""
        ahead, self._ahead = self._ahead, []
        for number, (now, data) in enumerate(ahead, 1):
            if not self._compares:
                self._take_apart(now, data)
                continue
            self._compare(now, data)
            if self._ahead:
                self._ahead += ahead[number:]
                break

    def _compare(self, now: float, data: bytes) -> None:
        stream = self._expected
        if stream.startswith(data, self._at):
            self._at += len(data)
            self._times.append(now)
            self._ends.append(self._at)
        elif len(stream) < self._at + len(data) and data.startswith(stream[self._at :]):
            self._ahead.append((now, data))
        else:
            self._part(now, data)

    def _part(self, now: float, data: bytes) -> None:
        """Take apart from here: from the frame that this one is in."""
        stream = self._stream
        begun = stream.ends[bisect_right(stream.ends, self._at) - 1]
        self._compares = False
        self._take_apart(now, bytes(stream.data[begun : self._at]) + data)

    def begin_anew(self) -> None:
        """Take in that the connection is another one: what was half a frame is none any more."""
        self._rest.clear()

    def stop_comparing(self) -> None:
        """Do without the first subscriber from now on: nobody leads any more."""
        self.give_up_comparing()
        if self._compares:
            self._part(0.0, b"")

    def give_up_comparing(self) -> None:
        """Take apart what waits for the first subscriber, who may never get it."""
        ahead, self._ahead = self._ahead, []
        for now, data in ahead:
            if self._compares:
                self._part(now, data)
            else:
                self._take_apart(now, data)

    def _keep(self, now: float, data: bytes, shapes: Shapes) -> bytes:
        """Keep whole frames from the front; return what is to be taken apart now, if anything."""
        at = 0
        while (found := whole_text(data, at)) is not None:
            start, stop = found
            if data.startswith(shapes.message, start):
                frame = data[at:stop]
                self._came.append((now, frame))
                self._tally.count += 1
                if self.leads:
                    self._stream.add(frame)
            elif shapes.nothing is None or not data.startswith(shapes.nothing, start):
                break
            at = stop
        return data[at:]

    def _take_apart(self, now: float, data: bytes) -> None:
        rest = self._rest
        rest += data
        for frame, whole in frames_of(rest):
            payload = self._payload(frame.opcode, frame.data)
            if payload is not None:
                self._take(now, payload, whole)
            else:
                self._other(frame.opcode, frame.data)

    def _take(self, now: float, payload: bytes, frame: bytes) -> None:
        mark = mark_of(payload, self._size)
        if mark is None:
            self.unknown += 1
            return
        self._came.append((now, mark))
        self._taken_last = frame
        self._tally.count += 1
        if self.leads:
            self._stream.add(frame)

    def newest(self) -> list[tuple[float, Mark]]:
        """Return some of what came since this was asked for before, unless it only compares."""
        came = self._came[self._told :]
        self._told += len(came)
        # Not all: while they are taken apart nothing is received.
        some = [(now, self._mark(each)) for now, each in came[:: len(came) // SOME + 1]]
        return [(now, mark) for now, mark in some if mark is not None]

    @property
    def last_frame(self) -> bytes:
        """The frame of the last message that came; nothing, if none did."""
        last = self._came[-1][1] if self._came else b""
        return last if isinstance(last, bytes) else self._taken_last

    def take_apart_kept(self) -> None:
        """Take apart what was kept; what is no message of the load is unknown.

        Of a room's receivers the one that leads has to be the first.
        """
        marks = [self._mark(each) for _, each in self._came]
        if self.leads:
            self._stream.marks = marks
        self._came = list(self._known((now for now, _ in self._came), marks))

    def _known(
        self, times: Iterable[float], marks: Iterable[Mark | None]
    ) -> Iterator[tuple[float, Mark]]:
        """Return the messages of the load among what came, and count the others."""
        for now, mark in zip(times, marks, strict=False):
            if mark is None:
                self.unknown += 1
            else:
                yield now, mark

    def _mark(self, message: Mark | bytes) -> Mark | None:
        """Return what is in a message; None if no load published it."""
        if isinstance(message, Mark):
            return message
        frame = next_frame(message, 0)
        assert frame is not None
        payload = self._payload(frame.opcode, frame.data)
        return None if payload is None else mark_of(payload, self._size)

    def arrivals(self) -> Iterator[tuple[float, Mark]]:
        """Return the messages that came, in order, each with its time; once all is taken apart."""
        stream = self._stream
        index = 0
        for now, end in zip(self._times, self._ends, strict=True):
            there = bisect_right(stream.ends, end, lo=index) - 1
            yield from self._known(repeat(now), stream.marks[index:there])
            index = there
        for now, each in self._came:
            assert isinstance(each, Mark), "it was not taken apart"
            yield now, each


@dataclass(slots=True)
class Judgement:
    """What one connection got of what was published.

    `latencies`: of each message that came, the seconds since it was due.
    """

    faults: Faults = field(default_factory=Faults)
    latencies: list[tuple[Mark, float]] = field(default_factory=list)


def judge(
    arrivals: Iterable[tuple[float, Mark]],
    published: Sequence[int],
    index_of: Mapping[int, int],
    begin: float,
) -> Judgement:
    """Compare what came with what was published: how many by each of the room's publishers.

    `index_of`: which of them a publisher is. `begin`: the time, in seconds, that dues count from.
    """
    judgement = Judgement()
    faults = judgement.faults
    seen: list[set[int]] = [set() for _ in published]
    newest = [-1] * len(published)
    for now, mark in arrivals:
        which = index_of.get(mark.publisher)
        if which is None or mark.number >= published[which]:
            faults.unknown += 1
        elif mark.number in seen[which]:
            faults.duplicate += 1
        else:
            seen[which].add(mark.number)
            faults.out_of_order += mark.number < newest[which]
            newest[which] = max(newest[which], mark.number)
            judgement.latencies.append((mark, now - begin - mark.due / 1e6))
    faults.lost = sum(published) - sum(map(len, seen))
    return judgement
