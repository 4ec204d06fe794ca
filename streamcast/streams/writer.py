"""Adding to streams.

The law of this file: a publication is sent at most once and ends exactly once. At most IN_FLIGHT
bytes are under way; what is more waits at its publisher. Publishers take turns, and one that was
quiet goes first (as flows do in RFC 8290 section 4.2), so that no flood, nor a thousand of them,
stands before everybody else's messages.
"""

from collections import deque
from collections.abc import Callable, Collection, Container
from functools import partial
from typing import Any

import hiredis

from streamcast import log
from streamcast.config import StreamSettings
from streamcast.errors import BadRoom, CodedError, Unavailable, Unknown
from streamcast.message import MessageId
from streamcast.streams.commands import adding, adding_once, is_away, is_wrong_type
from streamcast.streams.interface import Outcome, Publication
from streamcast.streams.keeper import Keeper
from streamcast.streams.lane import Lane, LaneLost
from streamcast.streams.redirect import ASKING
from streamcast.streams.replication import Replication

IN_FLIGHT = 256 * 1024
"""How many bytes are under way to the store at most."""
SHARE = 1024
"""How many bytes a publisher may send in its turn; the message that goes over it still goes."""
MOST_OWED = 4 * SHARE
"""How much of what it sent over its share costs a publisher further turns."""


class Waiting:
    """What waits of one publisher, and how many bytes of its turn are left."""

    __slots__ = ("left", "publications")

    def __init__(self) -> None:
        self.publications: deque[tuple[bytes, Publication]] = deque()
        self.left = SHARE


Returned = Callable[[bytes, Publication, hiredis.ReplyError], bool]
"""Takes a publication that was refused. Returns whether it is published elsewhere, or later."""


class Writer:
    """Publishes over one lane.

    `adds` is called with each key that is added to, and returns whether this server has its room
    open; it looks among those that are `followed`, unless a notifier has it do more. `unwatched`:
    what goes in front of a command that reads what is no news, see `Notifier`. `demoted` is called
    when the store says that it is a replica. `asking`: keys whose slot is still on its way to this
    node (ASK).
    """

    def __init__(
        self,
        settings: StreamSettings,
        followed: Container[bytes],
        demoted: Callable[[], None],
        returned: Returned,
    ) -> None:
        self._demoted = demoted
        self._returned = returned
        self.asking: set[bytes] = set()
        # Who wants to know what was stored, since some that came before was returned.
        self.stored: Callable[[bytes, Publication], None] | None = None
        self.keeper = Keeper(settings, self.send)
        self._replication: Replication | None = None
        if settings.replicas_ack:
            wanted, timeout = settings.replicas_ack, settings.replicas_timeout
            self._replication = Replication(wanted, timeout, self.send, self._ended)
        self.adds: Callable[[bytes], bool] = followed.__contains__
        self.unwatched = b""
        self._lane: Lane | None = None
        self._waiting: dict[object, Waiting] = {}
        # Whose turn is when: first those that were quiet until now, then all others. One whose last
        # message went stays for another turn, so that it can't be the first again and again.
        self._quiet: deque[object] = deque()
        self._turns: deque[object] = deque()
        # What was sent and has not ended, and to which key.
        self._under_way: dict[Publication, bytes] = {}
        self.in_flight = 0
        self.waiting_bytes = 0
        self.published = 0

    @property
    def is_connected(self) -> bool:
        """Whether there is a lane to publish over."""
        return self._lane is not None

    @property
    def publishing(self) -> int:
        """How many publications have not ended yet."""
        return len(self._under_way) + sum(len(each.publications) for each in self._waiting.values())

    def connected(self, lane: Lane) -> None:
        """Publish over this lane from now on."""
        self._lane = lane

    def disconnected(self) -> None:
        """End what was not sent yet: it provably was not stored."""
        self._lane = None
        if self._replication is not None:
            self._replication.disconnected()
        waiting, self._waiting = self._waiting, {}
        self._quiet.clear()
        self._turns.clear()
        self.waiting_bytes = 0
        for queue in waiting.values():
            for _, publication in queue.publications:
                try:
                    publication.done(publication, _unreachable())
                except Exception as fault:  # noqa: BLE001 - as in the lane, for those that were sent
                    log.error("fault", where="end of a publish", fault=repr(fault), exc_info=True)

    def send(self, command: bytes, callback: Callable[[Any], None] | None) -> None:
        """Send a command that is no publication, behind those that were sent."""
        if self._lane is not None:
            self._lane.call(command, callback)

    def publish(self, key: bytes, publication: Publication) -> None:
        """Send a publication, or have it wait for its publisher's turn."""
        if self._lane is None:
            publication.done(publication, _unreachable())
        elif not self._waiting and self._fits(publication):
            self._send(self._lane, key, publication)
        else:
            queue = self._waiting.get(publication.publisher)
            if queue is None:
                queue = self._waiting[publication.publisher] = Waiting()
                self._quiet.append(publication.publisher)
            queue.publications.append((key, publication))
            self.waiting_bytes += publication.size

    def _fits(self, publication: Publication) -> bool:
        return not self.in_flight or self.in_flight + publication.size <= IN_FLIGHT

    def _send(self, lane: Lane, key: bytes, publication: Publication) -> None:
        self.in_flight += publication.size
        self._under_way[publication] = key
        callback = partial(self._answered, key, publication)
        fields, once = publication.fields, publication.key
        command = adding(key, fields) if once is None else adding_once(key, once.encode(), fields)
        followed = self.adds(key)
        more = b"" if followed else self.keeper.expire_new(key)
        if self.asking and key in self.asking:
            # It holds for the very next command, so nothing else can stand between.
            more = ASKING + more if more else b""
            lane.calls(ASKING + command + more, (None, callback, *(None,) * (2 * bool(more))))
        elif once is not None and self.unwatched:
            # The mark of its key is read with it.
            command = self.unwatched + command + more
            lane.calls(command, (self._unwatched_answered, callback, *(None,) * bool(more)))
        elif more:
            lane.calls(command + more, (callback, None))
        else:
            lane.call(command, callback)

    def _unwatched_answered(self, reply: Any) -> None:
        """Do without where the store refuses, as it does to a user who may not say that."""
        if isinstance(reply, hiredis.ReplyError) and not is_away(reply):
            self.unwatched = b""

    def _answered(self, key: bytes, publication: Publication, reply: Any) -> None:
        if not isinstance(reply, bytes):
            self._failed(key, publication, reply)
            return
        id = MessageId.trusted(reply)
        self.published += 1
        self.keeper.published(key, id)
        if self.stored is not None:
            self.stored(key, publication)
        if self._replication is not None:
            self._replication.stored(publication, id)
        else:
            self._ended(publication, id)

    def _failed(self, key: bytes, publication: Publication, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError) and self._goes_on(key, publication, reply):
            self._is_under_way_no_more(publication)
            self._serve()
        else:
            self._ended(publication, _error(reply))

    def _goes_on(self, key: bytes, publication: Publication, error: hiredis.ReplyError) -> bool:
        """Take in a refusal. Returns whether that is not the publication's end."""
        if str(error).startswith("READONLY"):
            self._demoted()
        return self._returned(key, publication, error)

    def _ended(self, publication: Publication, outcome: Outcome) -> None:
        # As in _is_under_way_no_more, in place: each message comes by here.
        self.in_flight -= publication.size
        del self._under_way[publication]
        try:
            publication.done(publication, outcome)
        finally:
            if self._waiting:
                self._serve()

    def _is_under_way_no_more(self, publication: Publication) -> None:
        self.in_flight -= publication.size
        del self._under_way[publication]

    def busy_keys(self) -> set[bytes]:
        """Return the keys of which something is under way, or waits."""
        waiting = (key for queue in self._waiting.values() for key, _ in queue.publications)
        return {*self._under_way.values(), *waiting}

    def withdraw(self, keys: Collection[bytes]) -> list[tuple[bytes, Publication]]:
        """Take back what waits of some keys, in the order of its publishers."""
        found: list[tuple[bytes, Publication]] = []
        for queue in self._waiting.values():
            mine = [each for each in queue.publications if each[0] in keys]
            if mine:
                queue.publications = deque(e for e in queue.publications if e[0] not in keys)
                found += mine
        self.waiting_bytes -= sum(publication.size for _, publication in found)
        return found

    def _serve(self) -> None:
        """Send what waits, publisher by publisher, as long as it fits."""
        while self._waiting and self._lane is not None:
            turns = self._quiet or self._turns
            publisher = turns[0]
            queue = self._waiting[publisher]
            if queue.left <= 0:
                queue.left += SHARE
                turns.popleft()
                self._turns.append(publisher)
                continue
            if not queue.publications:
                turns.popleft()
                if turns is self._quiet:
                    self._turns.append(publisher)
                else:
                    del self._waiting[publisher]
                continue
            key, publication = queue.publications[0]
            if not self._fits(publication):
                return
            queue.publications.popleft()
            queue.left = max(queue.left - publication.size, -MOST_OWED)
            self.waiting_bytes -= publication.size
            self._send(self._lane, key, publication)


def _error(reply: Any) -> CodedError:
    if isinstance(reply, LaneLost):
        return Unknown("The store was lost before it answered.") if reply.sent else _unreachable()
    if isinstance(reply, hiredis.ReplyError):
        if is_wrong_type(reply):
            return BadRoom("The key under this room's name is not a stream.")
        return Unavailable(f"The store refused: {reply}.")
    log.error("fault", where="reply to a publish", fault=f"unexpected {type(reply).__name__}")
    return Unknown("The store's answer was not understood.")


def _unreachable() -> Unavailable:
    return Unavailable("The store can't be reached.")
