"""A lane: one connection to one node of the store.

The law of this file: commands of one turn of the event loop go out in one write, and who may have
more to send with them is asked right before it; who has time rests behind it, so that turns are few
and bring more. Replies come in order, each to the callback that was given with its command, exactly
once: with the reply, with a `hiredis.ReplyError`, or with `LaneLost`, which says whether the
command may have run.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, cast

import hiredis
from hiredis import PushNotification

from streamcast import log
from streamcast.errors import Unavailable, Unknown

Callback = Callable[[Any], None]

LOOKS = 8
"""How often a lane looks, within its `silence`, whether its node still answers."""

pack = cast("Callable[[tuple[str | float | bytes, ...]], bytes]", hiredis.pack_command)
"""Returns a command, given as its words, as it goes over the connection (RESP)."""

_NOT_YET = object()
_PING = pack(("PING",))


class LaneLost(Exception):
    """The connection ended before the reply came; `sent`: the command may have run."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the connection to the store was lost")
        self.sent = sent


class Lane(asyncio.Protocol):
    """See above. `silence`: seconds without an owed answer after which it is given up.

    A node that falls silent is noticed, at the latest, one look after that.
    `where`: what it leads to. `client_id`: the connection's number at its node (CLIENT ID), known
    once it was greeted. `gather`: calls what is to go behind all that was called in this turn,
    and raises nothing. `pace`: seconds from one write to the next, at least, about; 0 if it is
    never to rest.
    """

    def __init__(
        self,
        silence: float,
        on_push: Callable[[list[Any]], None],
        on_lost: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._look_every = silence / LOOKS
        self._on_push = on_push
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._transport: asyncio.Transport | None = None
        self._pending: deque[Callback | None] = deque()
        self._unsent: list[bytes] = []
        self._unsent_callbacks: list[Callback | None] = []
        self._flushing = False
        self._clock = clock
        self._sleep = sleep
        # When it last wrote, and had rested.
        self._wrote = -inf
        self.pace = 0.0
        self.gather: Callable[[], None] | None = None
        self._silent_looks = 0
        self._watching: asyncio.TimerHandle | None = None
        self._reason = "the store closed the connection"
        self.client_id = 0
        self.where: object = None
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def is_open(self) -> bool:
        """Whether commands can still be sent."""
        return self._transport is not None and not self._transport.is_closing()

    # What goes

    def call(self, command: bytes, callback: Callback | None) -> None:
        """Send a command with the others of this turn."""
        if self._transport is None:
            _hand(callback, LaneLost(sent=False))
            return
        self._unsent.append(command)
        self._unsent_callbacks.append(callback)
        if not self._flushing:
            self.flush_soon()

    def calls(self, commands: bytes, callbacks: Sequence[Callback | None]) -> None:
        """Send several commands, packed one behind the other, with a callback for each."""
        if self._transport is None:
            for callback in callbacks:
                _hand(callback, LaneLost(sent=False))
            return
        self._unsent.append(commands)
        self._unsent_callbacks += callbacks
        self.flush_soon()

    async def ask(self, *words: str | int | bytes, then: bytes = b"") -> Any:
        """Send a command and wait for its reply. Raises hiredis.ReplyError, StoreError.

        `then`: another one, packed, that goes right behind it, and whose reply nobody waits for.
        """
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.calls(pack(words) + then, (into(answer), None) if then else (into(answer),))
        reply = await answer
        if isinstance(reply, LaneLost):
            raise (Unknown if reply.sent else Unavailable)(str(reply))
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def flush_soon(self) -> None:
        """Gather and send at the end of this turn."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        try:
            if self.gather is not None:
                self.gather()
        finally:
            self._flushing = False
        if self._transport is None or self._transport.is_closing() or not self._unsent:
            # What is not sent when the connection ends never ran, and is told so.
            return
        self._pending += self._unsent_callbacks
        data = b"".join(self._unsent)
        self._unsent_callbacks = []
        self._unsent = []
        # This writes at once, if the system takes it (uvloop did so later, until 0.23).
        self._transport.write(data)
        if not self._transport.get_write_buffer_size():
            self._rest()

    def _rest(self) -> None:
        """Have this process stand still for what is left of a pace since the last write.

        What comes meanwhile is found together, answers to what was just written among it: what
        network cards call interrupt moderation. Each message would otherwise have a turn of the
        event loop and four system calls of its own, here and at the node. Who had other things to
        do for that long does not rest. All lanes of a process together rest for no more than a
        pace in a turn: none goes on longer than that after its own last write, which was in an
        earlier one.
        """
        passed = self._clock() - self._wrote
        if passed < self.pace:
            self._sleep(self.pace - passed)
        self._wrote = self._clock()

    def close(self, reason: str = "closed") -> None:
        """End the connection at once; callbacks still owed get LaneLost."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    # What comes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._watching = self._loop.call_later(self._look_every, self._watch)

    def data_received(self, data: bytes) -> None:
        """Hand replies and pushes on."""
        self._silent_looks = 0
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _NOT_YET:
                if isinstance(reply, PushNotification):
                    self._on_push(reply)
                    continue
                callback = self._pending.popleft()
                # As _hand does, in place.
                if callback is not None:
                    try:
                        callback(reply)
                    except Exception as fault:  # noqa: BLE001 - as in _hand
                        _log_fault(fault)
        except (hiredis.ProtocolError, IndexError):
            self.close("the store does not speak RESP3")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits for a reply."""
        self._transport = None
        if self._watching is not None:
            self._watching.cancel()
        self.closed.set_result(None)
        # First of all, so that no callback tries to send more over this lane.
        self._on_lost(str(exc) if exc is not None else self._reason)
        pending, self._pending = self._pending, deque()
        unsent, self._unsent_callbacks = self._unsent_callbacks, []
        self._unsent = []
        for sent, callbacks in ((True, pending), (False, unsent)):
            for callback in callbacks:
                _hand(callback, LaneLost(sent=sent))

    def _watch(self) -> None:
        """Give up a node that owes an answer; ask one that owes none for a sign.

        Looks are counted, not seconds: while this process itself stands still, nothing is owed.
        """
        self._watching = self._loop.call_later(self._look_every, self._watch)
        if not self._pending:
            self._silent_looks = 0
            self.call(_PING, None)
            return
        self._silent_looks += 1
        if self._silent_looks == LOOKS:
            self.close("the store does not answer")


def _hand(callback: Callback | None, reply: Any) -> None:
    """Hand a reply on. A fault in what is done with one must not end the lane for all."""
    if callback is None:
        return
    try:
        callback(reply)
    except Exception as fault:  # noqa: BLE001 - the boundary between one room and all others
        _log_fault(fault)


def _log_fault(fault: Exception) -> None:
    log.error("fault", where="reply from the store", fault=repr(fault), exc_info=True)


def into(answer: asyncio.Future[Any]) -> Callback:
    """Return a callback that puts a reply into a future, unless its owner was cancelled."""

    def put(reply: Any) -> None:
        if not answer.done():
            answer.set_result(reply)

    return put
