"""What a client publishes, against servers that fail in any way (hypothesis)."""

import asyncio
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from streamcast.client.outbox import OVERHEAD, UNDER_WAY, Outbox, Publication
from streamcast.errors import BadRequest, CodedError, Unavailable, Unknown
from streamcast.message import MessageId

ROOMS = ("a", "b")
SIZES = st.sampled_from([10, 1000, UNDER_WAY // 3, UNDER_WAY])
Answer = tuple[int, MessageId | CodedError]


class Store:
    """Streams that know the keys of what they have: here the refs."""

    def __init__(self) -> None:
        self.rooms: dict[str, list[int]] = {room: [] for room in ROOMS}

    def add(self, publication: Publication) -> MessageId:
        stored = self.rooms[publication.room]
        if publication.ref not in stored:
            stored.append(publication.ref)
        return MessageId.of(1, publication.ref)


class OutboxMachine(RuleBasedStateMachine):
    """A client, connections one after another, and a store that is there or not.

    A server goes on with what it got of a connection that the client has lost already.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.outbox = Outbox()
        self.store = Store()
        self.all: list[Publication] = []
        self.cancelled: set[int] = set()
        self.requests: deque[Publication] = deque()
        self.answers: deque[Answer] = deque()
        self.lost: list[deque[Publication]] = []
        # Refused by the store at some time; and the newest that the client knows to be stored.
        self.refused: set[int] = set()
        self.heard = dict.fromkeys(ROOMS, 0)
        self.now = 0.0

    def teardown(self) -> None:
        try:
            self.settle()
            self.check()
        finally:
            for publication in self.all:
                if publication.answer.done() and not publication.answer.cancelled():
                    publication.answer.exception()
            self.loop.close()

    # The client

    @rule(room=st.sampled_from(ROOMS), size=SIZES)
    def publish(self, room: str, size: int) -> None:
        answer: asyncio.Future[MessageId] = self.loop.create_future()
        publication = Publication(room, len(self.all) + 1, b"x" * size, size, self.now + 10, answer)
        self.all.append(publication)
        self.outbox.add(publication)

    @rule()
    def send(self) -> None:
        publication = self.outbox.next()
        if publication is not None:
            assert publication not in self.requests
            assert publication.ref > self.heard[publication.room], "it would come too late"
            self.requests.append(publication)
        if len(self.requests) > 1:
            assert sum(each.size for each in self.requests) <= UNDER_WAY

    @precondition(lambda self: self.all)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        publication = data.draw(st.sampled_from(self.all))
        if publication.answer.cancel():
            self.cancelled.add(publication.ref)

    @rule()
    def release(self) -> None:
        self.outbox.release()

    @rule(seconds=st.sampled_from([1.0, 5.0]))
    def expire(self, seconds: float) -> None:
        self.now += seconds
        self.outbox.expire(self.now)
        assert all(each.answer.done() for each in self.all if each.deadline <= self.now)

    @rule()
    def disconnect(self) -> None:
        self.lost.append(self.requests)
        self.requests, self.answers = deque(), deque()
        self.outbox.disconnected()

    # The servers

    @precondition(lambda self: self.requests)
    @rule(outcome=st.sampled_from(["stored", "stored", "unavailable", "unknown", "lost", "bad"]))
    def serve(self, outcome: str) -> None:
        publication = self.requests.popleft()
        ref, stored = publication.ref, self.store.rooms[publication.room]
        if outcome == "bad" and not publication.uncertain and ref not in stored:
            self.answers.append((ref, BadRequest("no")))
        elif outcome == "unavailable":
            self.answers.append((ref, Unavailable("no")))
        elif outcome == "lost":
            self.answers.append((ref, Unknown("?")))
        else:
            id = self.store.add(publication)
            self.answers.append((ref, Unknown("?") if outcome == "unknown" else id))
        if outcome != "stored":
            self.refused.add(ref)

    @precondition(lambda self: any(self.lost))
    @rule(data=st.data(), store=st.booleans())
    def serve_what_was_lost(self, data: st.DataObject, store: bool) -> None:
        requests = data.draw(st.sampled_from([each for each in self.lost if each]))
        publication = requests.popleft()
        if store:
            self.store.add(publication)
        else:
            requests.clear()  # that server was killed

    @precondition(lambda self: self.answers)
    @rule()
    def hear(self) -> None:
        ref, answer = self.answers.popleft()
        if isinstance(answer, MessageId):
            room = self.all[ref - 1].room
            self.heard[room] = max(self.heard[room], ref)
            self.outbox.acked(ref, answer)
        else:
            self.outbox.failed(ref, answer)

    # What holds

    def settle(self) -> None:
        """Let everything work from now on: nothing may be left over."""
        for _ in range(len(self.all) * 3 + 3):
            while self.answers:
                self.hear()
            self.outbox.release()
            while (publication := self.outbox.next()) is not None:
                self.requests.append(publication)
            while self.requests:
                self.serve("stored")
        assert all(publication.answer.done() for publication in self.all)
        assert self.outbox.next() is None
        assert self.outbox.deadline is None
        assert not self.outbox.has_held

    def check(self) -> None:
        acked: dict[str, list[int]] = {room: [] for room in ROOMS}
        for publication in self.all:
            if publication.answer.cancelled():
                continue
            error = publication.answer.exception()
            if error is None:
                assert publication.answer.result() == MessageId.of(1, publication.ref)
                if publication.ref not in self.refused:
                    acked[publication.room].append(publication.ref)
            elif isinstance(error, Unavailable | BadRequest):
                assert publication.ref not in self.store.rooms[publication.room]
                assert not any(publication in requests for requests in self.lost)
        for room, refs in acked.items():
            order = [ref for ref in self.store.rooms[room] if ref in set(refs)]
            assert order == refs, "what was acknowledged is stored in the order published"


def test_whatever_fails() -> None:
    """Acknowledged: stored once, in order. "Not stored": it never is. Nothing is forgotten."""
    run_state_machine_as_test(
        OutboxMachine, settings=settings(max_examples=300, stateful_step_count=40, deadline=None)
    )


# By hand: what the machine would hardly tell apart


class Client:
    """An outbox, and what was published through it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.outbox = Outbox()
        self.refs = 0

    def publish(self, room: str = "a", size: int = 10, deadline: float = 10.0) -> Publication:
        self.refs += 1
        answer: asyncio.Future[MessageId] = self.loop.create_future()
        publication = Publication(room, self.refs, b"x" * size, size, deadline, answer)
        self.outbox.add(publication)
        return publication

    def sent(self) -> list[int]:
        """What is sent now, by ref."""
        refs = []
        while (publication := self.outbox.next()) is not None:
            refs.append(publication.ref)
        return refs


@pytest.fixture
def client() -> Iterator[Client]:
    made = Client()
    yield made
    made.loop.close()


def test_rooms_are_served_in_turn(client: Client) -> None:
    for room in "aaabbb":
        client.publish(room)
    assert client.sent() == [1, 4, 2, 5, 3, 6]


def test_what_is_under_way_is_bounded(client: Client) -> None:
    fit = UNDER_WAY // (1000 + OVERHEAD)
    for _ in range(fit + 5):
        client.publish(size=1000)
    assert client.sent() == list(range(1, fit + 1))
    client.outbox.acked(1, MessageId.of(1, 1))
    assert client.sent() == [fit + 1]


def test_a_lost_connection_has_nothing_under_way(client: Client) -> None:
    for room in "abc":
        client.publish(room, size=UNDER_WAY // 3 - OVERHEAD)
    for _ in range(2):
        assert client.sent() == [1, 2, 3]
        client.outbox.disconnected()


def test_one_that_is_larger_than_the_bound_goes_alone(client: Client) -> None:
    client.publish(size=2 * UNDER_WAY)
    client.publish()
    assert client.sent() == [1]
    client.outbox.acked(1, MessageId.of(1, 1))
    assert client.sent() == [2]


def test_after_a_refusal_one_at_a_time_until_one_is_stored(client: Client) -> None:
    for _ in range(4):
        client.publish()
    assert client.sent() == [1, 2, 3, 4]
    client.outbox.failed(1, Unavailable("no"))
    client.publish()
    client.outbox.release()
    assert client.sent() == [], "three are still under way"
    for ref in (2, 3, 4):
        client.outbox.failed(ref, Unavailable("no"))
    assert client.sent() == []
    client.outbox.release()
    assert client.sent() == [1]
    client.outbox.acked(1, MessageId.of(1, 1))
    assert client.sent() == [2, 3, 4, 5]


def test_another_room_goes_on_meanwhile(client: Client) -> None:
    client.publish("a")
    client.sent()
    client.outbox.failed(1, Unavailable("no"))
    client.publish("a")
    client.publish("b")
    assert client.sent() == [3]


def test_what_would_come_too_late_is_told(client: Client) -> None:
    first, second = client.publish(), client.publish()
    client.sent()
    client.outbox.failed(first.ref, Unknown("?"))
    client.outbox.acked(second.ref, MessageId.of(1, 2))
    client.outbox.release()
    assert isinstance(first.answer.exception(), Unknown)
    assert client.sent() == []


def test_given_up_says_whether_it_was_sent(client: Client) -> None:
    sent, refused, waiting = (client.publish(room, deadline=5.0) for room in "abb")
    client.outbox.next(), client.outbox.next()
    client.outbox.failed(refused.ref, Unavailable("no"))
    client.outbox.expire(4.9)
    assert not sent.answer.done()
    client.outbox.expire(5.0)
    assert isinstance(sent.answer.exception(), Unknown)
    assert isinstance(refused.answer.exception(), Unavailable)
    assert isinstance(waiting.answer.exception(), Unavailable)


def test_rooms_are_not_remembered(client: Client) -> None:
    for number in range(100):
        client.publish(f"room {number}")
    for ref in client.sent():
        client.outbox.acked(ref, MessageId.of(1, ref))
    assert client.outbox._lanes == {}
