"""Publications to keys that go from one node to another.

The law of this file: what a node returned provably did not run, and what it was sent may still be
stored. So from the moment on at which a key is taken to be elsewhere, all that is published to it
waits, in order, until the old node has answered everything else of it, which the answer to a PING
behind it shows; then it goes where the key is. What a moving slot can't take yet (TRYAGAIN) is
tried one by one: together, a later one could be stored before an earlier one. What was overtaken
already is refused instead, and nothing is tried for ever.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
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
"""Seconds between two attempts: at first, and at most. All together they take about 7 s."""

_PING = pack(("PING",))


class Held:
    """What waits of one key.

    `returned`: what came back; `later`: what came since, or comes behind that. `asked`: the writers
    whose nodes still have something of it. `alone`: the one that was sent before the others, and is
    under way; `done`: whom it tells.
    """

    __slots__ = ("alone", "asked", "done", "later", "one_by_one", "returned")

    def __init__(self) -> None:
        self.returned: list[Publication] = []
        self.later: deque[Publication] = deque()
        self.asked: set[Writer] = set()
        self.one_by_one = False
        self.alone: Publication | None = None
        self.done: Done | None = None

    @property
    def waiting(self) -> list[Publication]:
        """All that waits, in order."""
        return [*self.returned, *self.later]


class Detours:
    """`writer_of` tells who publishes to a key just now."""

    def __init__(self, writer_of: Callable[[bytes], Writer]) -> None:
        self._writer_of = writer_of
        self._held: dict[bytes, Held] = {}
        self._closed = False

    def publications(self) -> list[Publication]:
        """Return all that wait."""
        return [each for held in self._held.values() for each in held.waiting]

    def holds(self, key: bytes, publication: Publication) -> bool:
        """Have a publication wait behind others of its key; False if there are none."""
        held = self._held.get(key)
        if held is None:
            return False
        held.later.append(publication)
        return True

    def begin(self, keys: Collection[bytes], writer: Writer) -> None:
        """Hold keys that leave a writer's node, until that has answered what it was sent."""
        if not keys or not writer.is_connected:
            return
        for key in keys:
            self._held.setdefault(key, Held())
        for key, publication in writer.withdraw(keys):
            self._held[key].later.append(publication)
        self._ask(keys, writer)

    def returned(
        self, key: bytes, publication: Publication, writer: Writer, *, one_by_one: bool
    ) -> bool:
        """Take back what a writer's node returned; False if that is its end."""
        if self._closed:
            return False
        publication.attempts += 1
        if key not in self._held:
            self.begin({key}, writer)
        held = self._held.get(key)
        if held is None:
            return False
        held.one_by_one |= one_by_one
        if held.alone is publication:
            self._take_back(held)
            held.later.appendleft(publication)
        else:
            held.returned.append(publication)
        if publication.attempts > MOST:
            self._give_up(key, held)
        elif not held.asked:
            self._go_on(key, held)
        return True

    def close(self) -> None:
        """End all that wait: it provably was not stored."""
        self._closed = True
        held, self._held = self._held, {}
        for each in held.values():
            _end(each.waiting, "The store can't be reached.")

    # Until the old node has answered everything

    def _ask(self, keys: Collection[bytes], writer: Writer) -> None:
        asked = [(key, self._held[key]) for key in keys if writer not in self._held[key].asked]
        for _, held in asked:
            held.asked.add(writer)
        writer.stored = self._stored
        writer.send(_PING, lambda _: self._has_answered(asked, writer))

    def _has_answered(self, asked: Collection[tuple[bytes, Held]], writer: Writer) -> None:
        for key, held in asked:
            held.asked.discard(writer)
            if self._held.get(key) is held and not held.asked and held.alone is None:
                self._go_on(key, held)

    def _stored(self, key: bytes, publication: Publication) -> None:
        """Refuse what this one has overtaken: its publisher said it before."""
        held = self._held.get(key)
        if held is None or held.alone is publication:
            return
        overtaken = [each for each in held.returned if each.publisher is publication.publisher]
        held.returned = [each for each in held.returned if each not in overtaken]
        _end(overtaken, "A later message was stored before it.")

    # Going where the key is

    def _go_on(self, key: bytes, held: Held) -> None:
        """Send what waits: at once, or after a pause where that was tried before."""
        if not held.asked and held.alone is None:
            held.later.extendleft(reversed(held.returned))
            held.returned = []
        attempts = max((each.attempts for each in held.later), default=0)
        if attempts > 1 or held.one_by_one:
            pause = min(FIRST_PAUSE * 2.0**attempts, LONGEST_PAUSE)
            asyncio.get_running_loop().call_later(pause, self._go, key, held)
        else:
            self._go(key, held)

    def _go(self, key: bytes, held: Held) -> None:
        if self._held.get(key) is not held or held.asked or held.alone is not None:
            return
        writer = self._writer_of(key)
        if not held.later:
            del self._held[key]
        elif not writer.is_connected and held.later[0].attempts <= MOST:
            # A node that was not known before is still being connected.
            held.later[0].attempts += 1
            self._go_on(key, held)
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
        if isinstance(outcome, MessageId) and publication.key is not None:
            # What a slot on its way can't take, it has taken: all can go.
            held.one_by_one = False
        asyncio.get_running_loop().call_soon(self._go, key, held)
        publication.done(publication, outcome)

    def _take_back(self, held: Held) -> None:
        """Have the one that was sent alone tell whom it told before."""
        assert held.alone is not None
        assert held.done is not None
        held.alone.done, held.alone, held.done = held.done, None, None

    def _give_up(self, key: bytes, held: Held) -> None:
        """End all that wait of a key, with one that was tried often enough."""
        del self._held[key]
        _end(held.waiting, "The room is on its way from one node to another.")


def _end(publications: Collection[Publication], why: str) -> None:
    for publication in publications:
        publication.done(publication, Unavailable(why))
