"""Detours, between writers that the test itself answers for."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest

from streamcast.errors import Unavailable
from streamcast.message import MessageId
from streamcast.streams import Publication
from streamcast.streams.detours import MOST, Detours
from streamcast.streams.interface import Outcome
from tests.load import until

KEY = b"key"


class Writer:
    """Keeps what it is to publish, and who waits for its node's answer to a PING."""

    def __init__(self) -> None:
        self.is_connected = True
        self.stored: Any = None
        self.sent: list[Publication] = []
        self.waiting: list[tuple[bytes, Publication]] = []
        self.pings: list[Callable[[Any], None]] = []

    def withdraw(self, keys: Collection[bytes]) -> list[tuple[bytes, Publication]]:
        taken = [each for each in self.waiting if each[0] in keys]
        self.waiting = [each for each in self.waiting if each[0] not in keys]
        return taken

    def send(self, _: bytes, callback: Callable[[Any], None]) -> None:
        self.pings.append(callback)

    def publish(self, _: bytes, publication: Publication) -> None:
        self.sent.append(publication)

    def answer_pings(self) -> None:
        pings, self.pings = self.pings, []
        for callback in pings:
            callback(b"PONG")

    def store(self) -> list[str]:
        """Have all that was sent be stored; returns their names."""
        sent, self.sent = self.sent, []
        for number, publication in enumerate(sent):
            if self.stored is not None:
                self.stored(KEY, publication)
            publication.done(publication, MessageId.of(1, number))
        return [publication.room for publication in sent]


class Case:
    """A key that goes from one writer to another; publications are named by their rooms."""

    def __init__(self) -> None:
        self.old, self.new = Writer(), Writer()
        self.detours = Detours(lambda _: self.new)  # type: ignore[arg-type, return-value]
        self.outcomes: dict[str, Outcome] = {}

    def message(self, name: str, publisher: object = "publisher", key: str = "k") -> Publication:
        return Publication(name, (), publisher, self._done, 0, key or None)

    def _done(self, publication: Publication, outcome: Outcome) -> None:
        assert publication.room not in self.outcomes, "it ended twice"
        self.outcomes[publication.room] = outcome

    def returned(self, publication: Publication, *, one_by_one: bool = False) -> bool:
        old: Any = self.old
        return self.detours.returned(KEY, publication, old, one_by_one=one_by_one)


@pytest.fixture
async def case() -> Case:
    return Case()


async def test_in_order_once_all_has_come_back(case: Case) -> None:
    """First what was returned, then what waited at the old node's writer, then what is new."""
    one, two, three, four = map(case.message, ("one", "two", "three", "four"))
    case.old.waiting = [(KEY, three), (b"another", case.message("another"))]
    assert not case.detours.holds(KEY, case.message("before"))
    assert case.returned(one)
    assert case.detours.holds(KEY, four)
    assert case.returned(two)
    assert [each.room for each in case.detours.publications()] == ["one", "two", "three", "four"]
    assert not case.new.sent
    case.old.answer_pings()
    assert case.new.store() == ["one", "two", "three", "four"]
    assert not case.detours.publications()
    assert [key for key, _ in case.old.waiting] == [b"another"]
    assert not case.detours.holds(KEY, case.message("after"))


async def test_what_is_under_way_holds_up_what_is_new(case: Case) -> None:
    """Where it is learned otherwise that a key has gone: the old node may still store it."""
    old: Any = case.old
    case.detours.begin({KEY}, old)
    assert case.detours.holds(KEY, case.message("new"))
    case.old.answer_pings()
    assert case.new.store() == ["new"]
    case.detours.begin(set(), old)
    assert not case.old.pings


async def test_a_lane_that_is_lost_holds_nothing_up(case: Case) -> None:
    """The callback of the PING comes then as well; of a writer without a lane none is asked."""
    case.old.is_connected = False
    assert not case.returned(case.message("one"))
    assert not case.detours.holds(KEY, case.message("two"))


async def test_what_was_overtaken_is_refused(case: Case) -> None:
    """By one of its own publisher; another's may well be stored before it."""
    one, other = case.message("one"), case.message("other", "another")
    case.returned(one)
    case.returned(other)
    case.old.stored(KEY, case.message("later"))
    assert isinstance(case.outcomes["one"], Unavailable)
    case.old.answer_pings()
    assert case.new.store() == ["other"]


async def test_one_by_one_until_a_keyed_one_is_stored(case: Case) -> None:
    names = ["one", "two", "three", "four"]
    messages = [case.message(name, key="" if name == "one" else "k") for name in names]
    for message in messages:
        case.returned(message, one_by_one=True)
    case.old.answer_pings()
    await until(lambda: case.new.sent)
    assert case.new.store() == ["one"]
    await until(lambda: case.new.sent)
    assert case.new.store() == ["two"], "one without a key says nothing of those with one"
    await until(lambda: case.new.sent)
    assert case.new.store() == ["three", "four"]
    assert not case.detours.publications()


async def test_the_first_comes_back_before_the_others(case: Case) -> None:
    """And is the first again, once."""
    for name in ("one", "two"):
        case.returned(case.message(name), one_by_one=True)
    case.old.answer_pings()
    for _ in range(3):
        await until(lambda: case.new.sent)
        [one] = case.new.sent
        assert one.room == "one"
        case.new.sent = []
        new: Any = case.new
        assert case.detours.returned(KEY, one, new, one_by_one=True)
    await until(lambda: case.new.sent)
    assert case.new.store() == ["one"]
    await until(lambda: case.new.sent)
    assert case.new.store() == ["two"]


async def test_nothing_is_tried_for_ever(case: Case) -> None:
    """What is given up is given up with all that waits for it, and is told."""
    one, two = case.message("one"), case.message("two")
    one.attempts = MOST
    assert case.returned(one, one_by_one=True)
    assert case.outcomes.keys() == {"one"}
    assert not case.detours.holds(KEY, two)
    three, four = case.message("three"), case.message("four")
    three.attempts = MOST - 1
    case.returned(three, one_by_one=True)
    case.detours.holds(KEY, four)
    case.old.answer_pings()
    await until(lambda: case.new.sent)
    new: Any = case.new
    assert case.detours.returned(KEY, three, new, one_by_one=True)
    assert isinstance(case.outcomes["three"], Unavailable)
    assert isinstance(case.outcomes["four"], Unavailable)
    await asyncio.sleep(0)
    assert case.new.sent == [three]


async def test_a_node_that_is_not_connected_yet_is_waited_for(case: Case) -> None:
    case.new.is_connected = False
    case.returned(case.message("one"))
    case.old.answer_pings()
    await asyncio.sleep(0.05)
    assert not case.new.sent
    case.new.is_connected = True
    await until(lambda: case.new.sent)
    assert case.new.store() == ["one"]


async def test_an_end_ends_all(case: Case) -> None:
    case.returned(case.message("one"))
    case.detours.holds(KEY, case.message("two"))
    case.detours.close()
    assert [type(outcome) for outcome in case.outcomes.values()] == [Unavailable, Unavailable]
    assert not case.returned(case.message("three"))
    case.old.answer_pings()
    await asyncio.sleep(0)
    assert not case.new.sent
