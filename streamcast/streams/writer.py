"""Adding to streams.

The law of this file: a publication is sent at most once and ends exactly once. At most IN_FLIGHT
bytes are under way; what is more waits at its publisher. Each publisher has an equal share of the
bytes (weighted fair queueing, all weights equal), so that no flood, nor many of large messages,
stands before everybody else's.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any

import hiredis

from streamcast import log
from streamcast.config import StreamSettings
from streamcast.errors import BadRoom, CodedError, Unavailable, Unknown
from streamcast.message import MessageId
from streamcast.streams.commands import is_wrong_type
from streamcast.streams.interface import Publication
from streamcast.streams.keeper import Keeper
from streamcast.streams.lane import Lane, LaneLost, pack

IN_FLIGHT = 256 * 1024
"""How many bytes are under way to the store at most."""
KEY_LIVES_MS = 120_000
"""How long a publish with a `key` is remembered."""

# KEYS: stream, mark of the key. ARGV: time to live of the mark in ms, fields of the entry.
# EVAL, not EVALSHA: the store caches the script all the same, and can't have forgotten it.
ADD_ONCE = """
local id = redis.call('GET', KEYS[2])
if not id then
  id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
  redis.call('SET', KEYS[2], id, 'PX', ARGV[1])
end
return id
"""


class Writer:
    """Publishes over one lane.

    `is_followed` tells whether this server has the room open; `demoted` is called when the store
    says that it is a replica.
    """

    def __init__(
        self,
        settings: StreamSettings,
        is_followed: Callable[[bytes], bool],
        demoted: Callable[[], None],
    ) -> None:
        self._demoted = demoted
        self.keeper = Keeper(settings, self.send)
        self._is_followed = is_followed
        self._lane: Lane | None = None
        self._waiting: dict[object, deque[tuple[bytes, Publication]]] = {}
        # When each publisher's next publication would have gone, were all sent side by side, and
        # how far that has come: in bytes of one share. The count keeps equals in order.
        self._turns: list[tuple[float, int, object]] = []
        self._clock = 0.0
        self._count = count()
        self._under_way = 0
        self.in_flight = 0
        self.waiting_bytes = 0
        self.published = 0

    @property
    def publishing(self) -> int:
        """How many publications have not ended yet."""
        return self._under_way + sum(map(len, self._waiting.values()))

    def connected(self, lane: Lane) -> None:
        """Publish over this lane from now on."""
        self._lane = lane

    def disconnected(self) -> None:
        """End what was not sent yet: it provably was not stored."""
        self._lane = None
        waiting, self._waiting = self._waiting, {}
        self._turns.clear()
        self.waiting_bytes = 0
        for queue in waiting.values():
            for _, publication in queue:
                publication.done(publication, _unreachable())

    def send(self, command: bytes, callback: Callable[[Any], None] | None) -> None:
        """Send a command that is no publication, behind those that were sent."""
        if self._lane is not None:
            self._lane.call(command, callback)

    def publish(self, key: bytes, publication: Publication) -> None:
        """Send a publication, or have it wait for its publisher's turn."""
        if self._lane is None:
            publication.done(publication, _unreachable())
        elif not self._turns and self._fits(publication):
            self._send(self._lane, key, publication)
        else:
            queue = self._waiting.get(publication.publisher)
            if queue is None:
                queue = self._waiting[publication.publisher] = deque()
                self._take_turn(self._clock, publication)
            queue.append((key, publication))
            self.waiting_bytes += publication.size

    def _take_turn(self, begins: float, publication: Publication) -> None:
        turn = begins + publication.size, next(self._count), publication.publisher
        heappush(self._turns, turn)

    def _fits(self, publication: Publication) -> bool:
        return not self.in_flight or self.in_flight + publication.size <= IN_FLIGHT

    def _send(self, lane: Lane, key: bytes, publication: Publication) -> None:
        self.in_flight += publication.size
        self._under_way += 1
        callback = partial(self._answered, key, publication)
        command = _command(key, publication)
        if self.keeper.expires and not self._is_followed(key):
            lane.calls(command + self.keeper.expire_new(key), (callback, None))
        else:
            lane.call(command, callback)

    def _answered(self, key: bytes, publication: Publication, reply: Any) -> None:
        self.in_flight -= publication.size
        self._under_way -= 1
        outcome = _outcome(reply)
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("READONLY"):
            self._demoted()
        if isinstance(outcome, MessageId):
            self.published += 1
            self.keeper.published(key, outcome)
        try:
            publication.done(publication, outcome)
        finally:
            self._serve()

    def _serve(self) -> None:
        """Send what waits, as long as it fits."""
        while self._turns and self._lane is not None:
            ends, _, publisher = self._turns[0]
            queue = self._waiting[publisher]
            key, publication = queue[0]
            if not self._fits(publication):
                return
            self._clock += publication.size / len(self._turns)
            heappop(self._turns)
            queue.popleft()
            self.waiting_bytes -= publication.size
            if queue:
                self._take_turn(ends, queue[0][1])
            else:
                del self._waiting[publisher]
            self._send(self._lane, key, publication)


def _command(key: bytes, publication: Publication) -> bytes:
    if publication.key is None:
        return pack("XADD", key, "*", *publication.fields)
    mark = b"{%b}:sent:%b" % (key, publication.key.encode())
    return pack("EVAL", ADD_ONCE, 2, key, mark, KEY_LIVES_MS, *publication.fields)


def _outcome(reply: Any) -> MessageId | CodedError:
    if isinstance(reply, bytes):
        return MessageId.parse(reply)
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
