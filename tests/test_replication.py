"""Acknowledgements that wait for replicas, with a store that the test itself answers for."""

from collections.abc import Callable
from typing import Any

import hiredis
import pytest

from streamcast.errors import NotReplicated, Unknown
from streamcast.message import MessageId
from streamcast.streams import Publication
from streamcast.streams.interface import Outcome
from streamcast.streams.replication import Replication


class Case:
    """Two replicas are wanted."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.waits: list[Callable[[Any], None]] = []
        self.replication = Replication(2, 0.5, self._send, self._ended)
        self.stored = 0

    def _send(self, command: bytes, callback: Callable[[Any], None] | None) -> None:
        assert command == b"*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$3\r\n500\r\n"
        assert callback is not None
        self.waits.append(callback)

    def _ended(self, publication: Publication, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def store(self) -> None:
        self.stored += 1
        publication = Publication("room", (), self, self._ended, 0)
        self.replication.stored(publication, MessageId.of(self.stored, 0))

    def answer(self, reply: object) -> None:
        [callback], self.waits = self.waits, []
        callback(reply)


def test_one_wait_for_a_batch() -> None:
    """What is stored while one is under way waits for the next."""
    case = Case()
    for _ in range(3):
        case.store()
    assert len(case.waits) == 1
    case.answer(2)
    assert case.outcomes == [MessageId.of(1, 0)]
    case.answer(3)
    assert case.outcomes == [MessageId.of(1, 0), MessageId.of(2, 0), MessageId.of(3, 0)]
    assert not case.waits


def test_too_few_in_time() -> None:
    case = Case()
    case.store()
    case.answer(1)
    [told] = case.outcomes
    assert isinstance(told, NotReplicated)
    assert told.id == "1-0"
    assert str(told) == "It is stored as 1-0, but 1 of 2 replicas have it."


@pytest.mark.parametrize("reply", [hiredis.ReplyError("ERR no WAIT here"), None])
def test_a_store_that_can_not_say(reply: object) -> None:
    case = Case()
    case.store()
    case.answer(reply)
    assert [type(outcome) for outcome in case.outcomes] == [Unknown]


def test_a_lane_that_is_lost() -> None:
    """Those that are waited for and those that come after, once; then all begins anew."""
    case = Case()
    case.store()
    case.store()
    case.replication.disconnected()
    assert [type(outcome) for outcome in case.outcomes] == [Unknown, Unknown]
    case.answer(hiredis.ReplyError("lost"))
    assert len(case.outcomes) == 2
    case.store()
    case.answer(2)
    assert case.outcomes[-1] == MessageId.of(3, 0)
