"""Rooms, cursors and proof against a store that is a list (hypothesis)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

import streamcast.proof
import streamcast.room
from streamcast.cursor import Mark
from streamcast.joining import Need, Placed, locate
from streamcast.message import ZERO, Gap, MessageId
from streamcast.proof import Progress, Read, Reply
from streamcast.room import Room
from streamcast.window import BEFORE, Window
from streamcast.wire import Start
from tests.model import Member, Remembers, Stream, check

WHICH = st.integers(0, 7)
MOST = 4000
"""Examples in which a mutant is found; which are tried hangs on the code that they are tried on."""


class RoomMachine(RuleBasedStateMachine):
    """A room in one server: reads on their way, rounds in slices, members that stall."""

    @initialize(
        limit=st.sampled_from([0, 700, 2000, 100_000]),
        before=st.integers(0, 6),
        kept=st.integers(0, 6),
    )
    def open(self, limit: int, before: int, kept: int) -> None:
        self.stream = Stream()
        self.stream.grow_old()
        for _ in range(before):
            self.stream.add()
        self.stream.trim(kept)
        self.lossless = True
        self.room = Room("room", self.stream.info(), limit)
        self.dialects = [Remembers(), Remembers()]
        self.members: list[Member] = []
        self.gone: list[Member] = []
        # Redis' own mark, set by a read and cleared by the push it causes.
        self.tracked = True
        self.marked: bool | None = None
        self.sent: Read | None = None
        self.replied: tuple[Read, Reply] | None = None
        self.pages: list[tuple[Member, Mark, int, Reply]] = []

    # Other people's doing

    def _changed(self) -> None:
        if self.tracked:
            self.tracked, self.marked = False, True

    @rule(count=st.integers(1, 5))
    def add(self, count: int) -> None:
        for _ in range(count):
            self.stream.add()
            self._changed()

    @rule(length=st.integers(0, 3))
    def trim(self, length: int) -> None:
        self.lossless = False
        self.stream.trim(length)
        self._changed()

    @precondition(lambda self: self.stream.entries)
    @rule(index=WHICH)
    def delete_entry(self, index: int) -> None:
        self.lossless = False
        self.stream.delete_entry(-1 - index % len(self.stream.entries))
        self._changed()

    @rule()
    def grow_old(self) -> None:
        self.lossless = False
        self.stream.grow_old()
        self._changed()

    # Counts tell histories apart, so a history as short as what was read of the one before could
    # pass for it: streams that are reset here have grown old.

    @precondition(lambda self: (self.room.position.added or 0) >= 1000)
    @rule(id=st.one_of(st.none(), st.integers(1, 12)))
    def reset(self, id: int | None) -> None:
        """Another history, perhaps an empty one; it may give out the same IDs again."""
        self.lossless = False
        self.stream.delete()
        self._changed()
        if id is not None:
            self.stream.add(MessageId.of(id, 0))

    @precondition(lambda self: len(self.stream.entries) > 3)
    @rule(count=st.integers(1, 3), more=st.integers(0, 4))
    def roll_back(self, count: int, more: int) -> None:
        """A failover: the connection is new, so every position is proved again, at once."""
        self.lossless = False
        self.stream.roll_back(count)
        for _ in range(more):
            self.stream.add()
        self.sent, self.replied, self.pages = None, None, []
        self.marked = False
        self.read_all()

    # The room's reads

    @precondition(lambda self: self.marked is not None and not (self.sent or self.replied))
    @rule()
    def send(self) -> None:
        assert self.marked is not None
        self.sent = self.room.next_read(announced=self.marked)
        assert (self.sent is not None) == self.room.has_room
        if self.sent is not None:
            self.marked = None

    @precondition(lambda self: self.sent)
    @rule()
    def answer(self) -> None:
        assert self.sent is not None
        self.replied = self.sent, self.stream.answer(self.sent)
        self.sent, self.tracked = None, True

    @precondition(lambda self: self.replied)
    @rule()
    def receive(self) -> None:
        assert self.replied is not None
        read, reply = self.replied
        self.replied = None
        if self.room.received(read, reply):
            self.marked = bool(self.marked)

    @rule()
    def read_all(self) -> None:
        steps = iter(range(1000))
        while self.sent or self.replied or self.marked is not None:
            assert next(steps, None) is not None, "reading never ends"
            if self.replied:
                self.receive()
            elif self.sent:
                self.answer()
            elif self.room.has_room:
                self.send()
            else:
                self.room.hand_out(99)

    def _read_again(self) -> None:
        """Read once more, behind what was asked of the store for a member."""
        if self.sent:
            self.answer()
        if self.replied:
            self.receive()
        self.marked = bool(self.marked)
        while not self.room.has_room:
            self.room.hand_out(99)
        proved = False
        while not proved:
            self.send()
            self.answer()
            self.receive()
            proved = not self.room.is_proving

    @rule(limit=st.integers(1, 2))
    def hand_out(self, limit: int) -> None:
        self.room.hand_out(limit)

    # Members

    @precondition(lambda self: len(self.members) < 6)
    @rule(
        start=st.one_of(
            st.just(Start()),
            st.just(Start(everything=True)),
            st.integers(0, 8).map(lambda last: Start(last=last)),
            st.integers(0, 14).map(lambda ms: Start(after=MessageId.of(ms, 0))),
        )
    )
    def join(self, start: Start) -> None:
        member = Member(self.dialects[len(self.members) % 2], self.room.pause)
        placed = self._find(start)
        member.start_told = placed.mark.told == ZERO or start.everything or bool(start.last)
        self.members.append(member)
        if placed.resumed:
            assert start.after is not None
            # Behind it where what lay between was deleted by name.
            assert placed.mark.id >= start.after
            assert placed.gap is None
        self.room.add(member.cursor, placed.mark)
        member.joined(member.cursor, placed.mark.id, resumed=placed.resumed)
        if placed.gap is not None:
            member.log.append(placed.gap)
        self._catch_up(member)

    def _find(self, start: Start) -> Placed:
        fresh = False
        while True:
            place = locate(self.room, start, fresh=fresh)
            if isinstance(place, Placed):
                return place
            if place is Need.FRESH:
                self.read_all()
                while self.room.hand_out(99):
                    pass
                fresh = True
            elif place is Need.OLDER:
                floor, count = self.room.window.floor, self.room.count + 1
                history, older = self.room.history, self.stream.before(floor, count)
                self._read_again()
                self.room.older(floor, history, older, count)
            elif start.after is not None:
                return Placed(Mark(BEFORE, start.after, None, self.room.history))
            else:
                return Placed(self._before_last(start.last or 0))

    def _before_last(self, last: int) -> Mark:
        found = self.stream.before(self.room.tip.id, last + 1)
        if len(found) > last:
            return Mark(BEFORE, found[last].id, found[last].fingerprint, self.room.history)
        return Mark(BEFORE, ZERO, None, self.room.history, told=ZERO)

    def _catch_up(self, member: Member) -> None:
        read = self.room.catch_up(member.cursor)
        if read is not None:
            assert member.cursor.mark is not None
            reply = self.stream.answer(read)
            self.pages.append((member, member.cursor.mark, self.room.history, reply))

    @precondition(lambda self: self.pages)
    @rule(which=WHICH)
    def page(self, which: int) -> None:
        member, mark, history, reply = self.pages.pop(which % len(self.pages))
        self._read_again()
        self.room.caught(member.cursor, mark, history, reply)
        self._catch_up(member)

    @precondition(lambda self: self.members)
    @rule(which=WHICH, writes=st.integers(0, 3))
    def pause(self, which: int, writes: int) -> None:
        member = self.members[which % len(self.members)]
        member.pauses_after = writes
        if writes == 0:
            member.pause()

    @precondition(lambda self: self.members)
    @rule(which=WHICH, writes=st.one_of(st.just(10**9), st.integers(1, 3)))
    def resume(self, which: int, writes: int) -> None:
        self._resume(self.members[which % len(self.members)], writes)

    def _resume(self, member: Member, writes: int = 10**9) -> None:
        member.pauses_after, member.writable = writes, True
        if not any(entry[0] is member for entry in self.pages):
            self._catch_up(member)

    @precondition(lambda self: self.members)
    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        member = self.members.pop(which % len(self.members))
        self.room.remove(member.cursor)
        self.pages = [entry for entry in self.pages if entry[0] is not member]
        self.gone.append(member)

    @rule()
    def shrink(self) -> None:
        self.room.shrink()

    # What must hold

    @invariant()
    def who_is_live_sits_once(self) -> None:
        if not hasattr(self, "room"):
            return
        rows = self.room._rows
        sitting = [cursor for row in rows for cursor in row.cursors if cursor is not None]
        live = [member.cursor for member in self.members if self.room.is_live(member.cursor)]
        assert sorted(map(id, sitting)) == sorted(map(id, live))
        assert all(member.writable or member.cursor not in live for member in self.members)
        for row in rows:
            assert row._empty == row.cursors.count(None)
            assert all(
                cursor is None or row.cursors[cursor.seat] is cursor for cursor in row.cursors
            )

    def teardown(self) -> None:
        if not hasattr(self, "stream"):
            return
        for member in self.members:
            self._resume(member)
        # An audit, so that what nobody announced is found.
        self.marked = bool(self.marked)
        steps = iter(range(1000))
        more = True
        while self.marked is not None or more or self.pages:
            assert next(steps, None) is not None, "catching up never ends"
            self.read_all()
            more = self.room.hand_out(99)
            for member in self.members:
                self._resume(member)
            if self.pages:
                self.page(0)
        for member in self.gone:
            check(self.stream, member, finished=False)
        for member in self.members:
            assert self.room.is_live(member.cursor)
            check(self.stream, member, finished=True)
        if self.lossless:
            for member in self.members + self.gone:
                # One who asks for a position that never was is told so first.
                told = member.log[1:]
                assert not any(isinstance(item, Gap) for item in told), "nothing was lost"


@contextmanager
def small_pages() -> Iterator[None]:
    """Pages and reads of a few messages, so that every boundary is met."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streamcast.room, "MAX_COUNT", 3)
        patch.setattr(streamcast.room, "PAGE_BYTES", 600)
        patch.setattr(streamcast.room, "READ_BYTES", 2400)
        patch.setattr(streamcast.room, "PIECE_BYTES", 400)
        yield


def run(examples: int, *, shrink: bool = True) -> None:
    with small_pages():
        run_state_machine_as_test(
            RoomMachine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
                print_blob=False,
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_every_member_sees_all_or_is_told() -> None:
    run(400)


def test_mutant_without_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    def believe(at, read, reply, known):
        if reply.info is None or read.known is not None:
            return progress(at, read, reply, known)
        entries = [entry for entry in reply.entries if entry.id > at.id]
        position = replace(at, added=reply.info.added)
        if entries:
            position = replace(position, id=entries[-1].id, fingerprint=entries[-1].fingerprint)
        return Progress(entries, position, more=not reply.complete)

    progress = streamcast.proof.progress
    monkeypatch.setattr(streamcast.room, "progress", believe)
    with pytest.raises(AssertionError):
        run(MOST, shrink=False)


def test_mutant_that_resumes_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(self, id, fingerprint=None):
        found = right(self, id, fingerprint)
        return found if found is None else min(found + 1, self.end)

    right = Window.find
    monkeypatch.setattr(Window, "find", find)
    with pytest.raises(AssertionError):
        run(MOST, shrink=False)


def test_mutant_that_is_live_one_step_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    def catch_up(self, cursor):
        tip = self.tip
        with monkeypatch.context() as patch:
            early = lambda self, index, told=None: (  # noqa: E731
                tip if index >= tip.index - 1 else right_at(self, index, told=told)
            )
            patch.setattr(Room, "mark_at", early)
            return right(self, cursor)

    right, right_at = Room.catch_up, Room.mark_at
    monkeypatch.setattr(Room, "catch_up", catch_up)
    with pytest.raises(AssertionError):
        run(MOST, shrink=False)
