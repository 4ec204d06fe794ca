"""Publications that a node returned because their key is another node's, or on its way there.

The law of this file: what was returned provably did not run. From then on all that is published to
that key waits, in order: first until the node has returned everything else of it, which the answer
to a PING behind it shows; then it goes where the key is. What a moving slot can't take yet
(TRYAGAIN) is tried one by one: together, a later one could be stored before an earlier one. What
was overtaken already is refused instead, and nothing is tried for ever.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from streamcast.errors import Unavailable
from streamcast.message import MessageId
from streamcast.streams.interface import Done, Outcome, Publication
from streamcast.streams.lane import pack
from streamcast.streams.writer import Writer

MOST = 30
"""How often a publication is tried again."""
FIRST_PAUSE = 0.01
LONGEST_PAUSE = 0.25
"""Seconds between two attempts: at first, and at most. All together they take about 6 s."""

_PING = pack("PING")


class Held:
    """What waits of one key.

    `alone`: the one that was sent before the others, and is under way; `done`: whom it tells.
    """

    __slots__ = ("alone", "done", "later", "one_by_one", "pause", "returned")

    def __init__(self) -> None:
        self.returned: list[Publication] = []
        self.later: deque[Publication] = deque()
        self.one_by_one = False
        self.alone: Publication | None = None
        self.done: Done | None = None
        self.pause = FIRST_PAUSE


class Detours:
    """`writer_of` tells who publishes to a key just now."""

    def __init__(self, writer_of: Callable[[bytes], Writer]) -> None:
        self._writer_of = writer_of
        self._held: dict[bytes, Held] = {}

    def publications(self) -> list[Publication]:
        """Return all that wait."""
        return [each for held in self._held.values() for each in (*held.returned, *held.later)]

    def holds(self, key: bytes, publication: Publication) -> bool:
        """Have a publication wait behind others of its key; False if there are none."""
        held = self._held.get(key)
        if held is None:
            return False
        held.later.append(publication)
        return True

    def returned(
        self, key: bytes, publication: Publication, writer: Writer, *, one_by_one: bool
    ) -> bool:
        """Take back what a writer's node returned; False if it was tried often enough."""
        publication.attempts += 1
        if publication.attempts > MOST:
            return False
        held = self._held.get(key)
        is_first = held is None
        if held is None:
            held = self._held[key] = Held()
        held.one_by_one |= one_by_one
        if held.alone is publication:
            self._take_back(held)
            held.later.appendleft(publication)
            self._go_later(key, held)
        else:
            held.returned.append(publication)
        if is_first:
            held.later.extend(writer.withdraw(key))
            writer.stored = self._stored
            writer.send(_PING, lambda _: self._all_returned(key))
        return True

    def _stored(self, key: bytes, publication: Publication) -> None:
        """Refuse what this one has overtaken: its publisher said it before."""
        held = self._held.get(key)
        if held is None:
            return
        overtaken = [each for each in held.returned if each.publisher is publication.publisher]
        held.returned = [each for each in held.returned if each not in overtaken]
        for each in overtaken:
            each.done(each, Unavailable("A later message was stored before it."))

    def close(self) -> None:
        """End all that wait: it provably was not stored."""
        waiting = self.publications()
        self._held.clear()
        for publication in waiting:
            publication.done(publication, Unavailable("The store can't be reached."))

    def _all_returned(self, key: bytes) -> None:
        held = self._held.get(key)
        if held is None:
            return
        if not (held.returned or held.later):
            del self._held[key]
            return
        held.later.extendleft(reversed(held.returned))
        again = any(publication.attempts > 1 for publication in held.returned)
        held.returned.clear()
        if again or held.one_by_one:
            self._go_later(key, held)
        else:
            self._go(key)

    def _go_later(self, key: bytes, held: Held) -> None:
        asyncio.get_running_loop().call_later(held.pause, self._go, key)
        held.pause = min(2 * held.pause, LONGEST_PAUSE)

    def _go(self, key: bytes) -> None:
        """Send what waits where its key is by now."""
        held = self._held.get(key)
        if held is None:
            return
        writer = self._writer_of(key)
        if not writer.is_connected and held.later[0].attempts <= MOST:
            # A node that was not known before is still being connected.
            held.later[0].attempts += 1
            self._go_later(key, held)
        elif held.one_by_one:
            self._send_alone(key, held, writer)
        else:
            del self._held[key]
            for publication in held.later:
                writer.publish(key, publication)

    def _send_alone(self, key: bytes, held: Held, writer: Writer) -> None:
        publication = held.alone = held.later.popleft()
        held.done, publication.done = publication.done, partial(self._ended, key, held)
        writer.publish(key, publication)

    def _ended(self, key: bytes, held: Held, publication: Publication, outcome: Outcome) -> None:
        self._take_back(held)
        if isinstance(outcome, MessageId):
            held.pause = FIRST_PAUSE
        if held.later:
            asyncio.get_running_loop().call_soon(self._go, key)
        else:
            self._held.pop(key, None)
        publication.done(publication, outcome)

    def _take_back(self, held: Held) -> None:
        """Have the one that was sent alone tell whom it told before."""
        assert held.alone is not None
        assert held.done is not None
        held.alone.done, held.alone, held.done = held.done, None, None
