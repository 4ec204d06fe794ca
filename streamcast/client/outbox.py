"""What a client publishes, until it is acknowledged or given up.

The law of this file: it is pure. What is published to one room is stored in the order published, as
long as the store refuses none of it. What was not answered is sent again, with its key, in order. A
room that had something refused is sent nothing more until all that is under way there was answered,
then one message at a time until one is stored; and what would come behind a later one is not sent
again, but told.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import takewhile

from streamcast.errors import CodedError, NotReplicated, StoreError, Unavailable, Unknown
from streamcast.message import MessageId

UNDER_WAY = 192 * 1024
"""How many bytes are sent and not answered at most; a server takes 256 KiB of one client."""
TOO_LATE = "a later message was stored already."
OVERHEAD = 512
"""How many bytes a message counts beside its frame."""


class Publication:
    """A message to be published. `ref` counts them; `frame` is what is sent, each time the same.

    `payload`: how many bytes its payload has. `deadline`: monotonic seconds, when it is given up.
    `uncertain`: an attempt ended without an answer, so it may be stored.
    """

    __slots__ = (
        "answer",
        "deadline",
        "error",
        "frame",
        "payload",
        "ref",
        "room",
        "size",
        "uncertain",
    )

    def __init__(
        self,
        room: str,
        ref: int,
        frame: bytes,
        payload: int,
        deadline: float,
        answer: "asyncio.Future[MessageId]",
    ) -> None:
        self.room = room
        self.ref = ref
        self.frame = frame
        self.payload = payload
        self.deadline = deadline
        self.answer = answer
        self.size = len(frame) + OVERHEAD
        self.uncertain = False
        self.error: CodedError | None = None

    def give_up(self, why: str) -> None:
        """Tell whoever waits that it is not known to be stored."""
        if self.answer.done():
            return
        if self.uncertain:
            self.answer.set_exception(Unknown(f"It may have been stored: {why}"))
        else:
            self.answer.set_exception(Unavailable(f"It was not stored: {why}"))


class _Lane:
    """What is published to one room. `stored`: the last one that was.

    `held`: something was refused. `careful`: one at a time, until one is stored.
    """

    __slots__ = ("careful", "held", "queued", "refused", "sent", "stored", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Publication] = deque()
        self.sent: dict[int, Publication] = {}
        self.refused: list[Publication] = []
        self.stored = 0
        self.held = False
        self.careful = False
        self.queued = False

    @property
    def may_send(self) -> bool:
        return bool(self.waiting) and not self.held and not (self.careful and self.sent)

    @property
    def is_empty(self) -> bool:
        return not (self.waiting or self.sent or self.refused)

    def forget_done(self) -> None:
        """Let go of what nobody waits for any more, because it was cancelled or given up."""
        while self.waiting and self.waiting[0].answer.done():
            self.waiting.popleft()
        if any(each.answer.done() for each in self.refused):
            self.refused = [each for each in self.refused if not each.answer.done()]

    def try_again(self, again: Iterable[Publication]) -> list[Publication]:
        """Put back in front what is to be sent again; return what would come too late."""
        self.held, self.careful = False, True
        late = []
        for publication in sorted(again, key=lambda each: each.ref, reverse=True):
            if publication.ref > self.stored:
                self.waiting.appendleft(publication)
            else:
                late.append(publication)
        return late


class Outbox:
    """The publications of all rooms; those of one after the other, the rooms in turn."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        # Rooms that may have something to send, in turn.
        self._turns: deque[str] = deque()
        # All that was neither answered nor given up, by ref, the oldest first.
        self._open: dict[int, Publication] = {}
        self._sent: dict[int, Publication] = {}
        self._under_way = 0

    def add(self, publication: Publication) -> None:
        """Take in one more; refs grow, deadlines too."""
        lane = self._lanes.setdefault(publication.room, _Lane())
        lane.waiting.append(publication)
        self._open[publication.ref] = publication
        self._queue(publication.room, lane)

    @property
    def has_held(self) -> bool:
        """Whether a room waits for `release`."""
        return any(lane.held for lane in self._lanes.values())

    # Sending

    def next(self) -> Publication | None:
        """Return what to send now, which counts as sent; None: nothing, or too much under way."""
        while self._turns:
            lane = self._lanes[self._turns[0]]
            if not self._has_something(lane):
                self._end_turn(lane)
                continue
            if self._sent and self._under_way + lane.waiting[0].size > UNDER_WAY:
                return None
            self._end_turn(lane)
            publication = lane.waiting.popleft()
            lane.sent[publication.ref] = self._sent[publication.ref] = publication
            self._under_way += publication.size
            self._queue(publication.room, lane)
            return publication
        return None

    def _has_something(self, lane: _Lane) -> bool:
        lane.forget_done()
        return lane.may_send

    def _queue(self, room: str, lane: _Lane) -> None:
        if lane.may_send and not lane.queued:
            lane.queued = True
            self._turns.append(room)

    def _end_turn(self, lane: _Lane) -> None:
        room = self._turns.popleft()
        lane.queued = False
        self._forget_if_empty(room, lane)

    def _forget_if_empty(self, room: str, lane: _Lane) -> None:
        if lane.is_empty and not lane.queued:
            del self._lanes[room]

    # What comes back

    def acked(self, ref: int, id: MessageId) -> None:
        """Take in that one is stored."""
        publication = self._answered(ref)
        if publication is None:
            return
        lane = self._lanes[publication.room]
        lane.stored = max(lane.stored, ref)
        lane.careful = False
        self._open.pop(ref, None)
        if not publication.answer.done():
            publication.answer.set_result(id)
        self._go_on(publication.room, lane)

    def failed(self, ref: int, error: CodedError) -> None:
        """Take in that one failed: for good, or it holds its room until `release`."""
        publication = self._answered(ref)
        if publication is None:
            return
        lane = self._lanes[publication.room]
        if isinstance(error, StoreError):
            publication.uncertain |= isinstance(error, Unknown)
            publication.error = error
            lane.refused.append(publication)
            lane.held = True
        else:
            if isinstance(error, NotReplicated):
                lane.stored = max(lane.stored, ref)
            self._open.pop(ref, None)
            if not publication.answer.done():
                publication.answer.set_exception(error)
            self._go_on(publication.room, lane)

    def _answered(self, ref: int) -> Publication | None:
        publication = self._sent.pop(ref, None)
        if publication is not None:
            self._under_way -= publication.size
            del self._lanes[publication.room].sent[ref]
        return publication

    def _go_on(self, room: str, lane: _Lane) -> None:
        self._queue(room, lane)
        self._forget_if_empty(room, lane)

    # Trying again

    def release(self) -> None:
        """Try again what was refused, in the rooms where nothing is under way any more."""
        for room, lane in list(self._lanes.items()):
            if lane.held and not lane.sent:
                again, lane.refused = lane.refused, []
                self._give_up(lane.try_again(again), TOO_LATE)
                self._queue(room, lane)

    def disconnected(self) -> None:
        """Try again, on the next connection, all that was sent and not answered."""
        self._sent.clear()
        self._under_way = 0
        self._turns.clear()
        for room, lane in list(self._lanes.items()):
            for publication in lane.sent.values():
                publication.uncertain = True
            again = [*lane.refused, *lane.sent.values()]
            lane.refused, lane.sent, lane.queued = [], {}, False
            if again:
                self._give_up(lane.try_again(again), TOO_LATE)
            self._go_on(room, lane)

    # Giving up

    @property
    def deadline(self) -> float | None:
        """When the oldest one is to be given up."""
        while self._open:
            oldest = next(iter(self._open.values()))
            if not oldest.answer.done():
                return oldest.deadline
            del self._open[oldest.ref]  # it was cancelled
        return None

    def expire(self, now: float) -> None:
        """Give up those whose time is over."""
        due = takewhile(lambda each: each.deadline <= now, self._open.values())
        self._give_up(list(due), "no answer came in time.")

    def close(self, why: str) -> None:
        """Give up all."""
        self._give_up(list(self._open.values()), why)

    def _give_up(self, publications: Sequence[Publication], why: str) -> None:
        for publication in publications:
            self._open.pop(publication.ref, None)
            publication.uncertain |= publication.ref in self._sent
            error = publication.error
            publication.give_up(why if error is None else f"{error} {why.capitalize()}")
        for room in {each.room for each in publications}:
            if (lane := self._lanes.get(room)) is not None:
                lane.forget_done()
                if lane.is_empty and lane.queued:
                    self._turns.remove(room)
                    lane.queued = False
                self._forget_if_empty(room, lane)
