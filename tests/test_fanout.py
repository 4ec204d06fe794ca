"""Handing out in turns, with a clock of the test's own."""

import asyncio
from collections.abc import Callable

import pytest

from streamcast.fanout import LONG_TURN, SLICE, TURN, FanOut


class Owner:
    """One who has a room, which does something where it hands out."""

    def __init__(self, hand_out: Callable[[int], bool]) -> None:
        self.queued = False
        self.hand_out = hand_out

    def broken(self) -> None:
        raise AssertionError


class FakeRoom:
    """Has news for so many members; handing out takes the clock's time."""

    def __init__(self, name: str, members: int, out: "Out") -> None:
        self.name = name
        self.left = members
        self._out = out

    def hand_out(self, limit: int) -> bool:
        count = min(limit, self.left)
        self.left -= count
        self._out.now += count * self._out.each
        self._out.log.append(f"{self.name}{count}")
        return self.left > 0


class Out:
    """The clock, and what was done; `each`: seconds that a member takes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.each = 1e-6
        self.log: list[str] = []
        self.fan_out = FanOut(lambda: self.now)

    def add(self, name: str, members: int) -> FakeRoom:
        room = FakeRoom(name, members, self)
        self.fan_out.add(Owner(room.hand_out))
        return room


@pytest.fixture
async def out() -> Out:
    return Out()


async def passes(out: Out) -> list[list[str]]:
    """What is done in each pass of the event loop, until nothing is left to do."""
    found: list[list[str]] = []
    while True:
        out.log = []
        await asyncio.sleep(0)
        if not out.log:
            return found
        found.append(out.log)


async def test_rooms_take_turns(out: Out) -> None:
    out.add("a", 3 * SLICE)
    out.add("b", 5)
    whole = f"a{SLICE}"
    assert await passes(out) == [[whole, "b5", whole, whole]]


async def test_a_turn_ends_when_its_time_is_over(out: Out) -> None:
    """Then the event loop runs, and what came meanwhile goes between two slices."""
    out.each = TURN / SLICE
    room = out.add("a", 4 * SLICE)
    await asyncio.sleep(0)
    assert out.log == [f"a{SLICE}"]
    out.add("b", 1)
    await asyncio.sleep(0)
    assert out.log == [f"a{SLICE}"] * 2
    assert await passes(out) == [["b1", f"a{SLICE}"], [f"a{SLICE}"]]
    assert not room.left


async def test_a_room_that_fails_parts_with_its_members_and_holds_up_nobody(out: Out) -> None:
    class Fails(Owner):
        def broken(self) -> None:
            out.log.append("broken")

    def fail(_: int) -> bool:
        raise ValueError

    room = Fails(fail)
    out.fan_out.add(room)
    out.add("b", 3)
    assert await passes(out) == [["broken", "b3"]]
    assert not room.queued


async def test_rooms_that_are_done_with_a_slice_have_a_longer_turn(out: Out) -> None:
    """The more are handed out in a pass of the event loop, the less each costs."""
    out.each = LONG_TURN / 4
    for name in "abcde":
        out.add(name, 1)
    assert await passes(out) == [["a1", "b1", "c1", "d1"], ["e1"]]


async def test_one_that_is_not_done_with_it_ends_a_long_turn(out: Out) -> None:
    """Others that are as large would come behind it, a slice of each."""
    out.each = TURN / 8
    for name in "abcdefgh":
        out.add(name, 1)
    out.add("large", SLICE + 1)
    out.add("z", 1)
    assert SLICE * out.each + TURN < LONG_TURN, "it is not the long turn that is over"
    small = [f"{name}1" for name in "abcdefgh"]
    assert await passes(out) == [[*small, f"large{SLICE}"], ["z1", "large1"]]


async def test_a_slice_that_takes_longer_is_still_handed_out(out: Out) -> None:
    out.each = 10 * TURN
    out.add("a", SLICE + 1)
    assert await passes(out) == [[f"a{SLICE}"], ["a1"]]


async def test_calls_go_behind_what_is_added_with_them(out: Out) -> None:
    """Also behind what comes after they were asked for, until it is their turn."""
    out.fan_out.behind(lambda: out.log.append("call"))
    out.add("a", SLICE + 1)
    assert await passes(out) == [[f"a{SLICE}", "call", "a1"]]


async def test_calls_wait_for_rooms_that_take_more_than_a_turn(out: Out) -> None:
    out.each = LONG_TURN / SLICE
    out.add("a", SLICE)
    out.add("b", SLICE)
    out.fan_out.behind(lambda: out.log.append("call"))
    await asyncio.sleep(0)
    out.add("c", SLICE)
    assert await passes(out) == [[f"b{SLICE}"], ["call", f"c{SLICE}"]]


async def test_calls_are_made_though_nothing_is_to_be_handed_out(out: Out) -> None:
    out.fan_out.behind(lambda: out.log.append("call"))
    assert await passes(out) == [["call"]]


async def test_a_fault_in_a_call_is_its_own(out: Out, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError

    out.each = TURN / SLICE
    out.add("a", 2 * SLICE)
    out.fan_out.behind(fail)
    out.fan_out.behind(lambda: out.log.append("call"))
    assert await passes(out) == [[f"a{SLICE}"], ["call", f"a{SLICE}"]]
    assert len(caplog.records) == 1
