"""The bench's figures: pure, by hand and by hypothesis."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamcast.bench.frames import (
    BINARY,
    PING,
    TEXT,
    behind,
    client_frame,
    next_frame,
    whole_text,
)
from streamcast.bench.histogram import Histogram
from streamcast.bench.html import page
from streamcast.bench.knee import Knee
from streamcast.bench.limits import Limit
from streamcast.bench.plan import broadcast, live
from streamcast.bench.reception import SOME, Faults, Receiver, Shapes, Stream, judge
from streamcast.bench.report import Report, Second, Times
from streamcast.bench.schedule import FILLING, Mark, Schedule, mark_of, payload

TIMES = st.lists(st.floats(2e-6, 100, allow_nan=False), min_size=1, max_size=200)


@given(TIMES, st.sampled_from([50.0, 90.0, 99.0, 99.99]))
def test_percentiles_are_off_by_one_percent_at_most(times: list[float], percent: float) -> None:
    histogram = Histogram()
    for time in times:
        histogram.add(time)
    rank = max(1, -(-len(times) * percent // 100))
    exact = sorted(times)[int(rank) - 1]
    assert abs(histogram.percentile(percent) - exact) <= 0.01 * exact
    assert histogram.longest == max(times)
    assert histogram.total == len(times)


@given(TIMES, TIMES)
def test_merging_is_the_same_as_counting_all(one: list[float], other: list[float]) -> None:
    parts = [Histogram(), Histogram()]
    whole = Histogram()
    for part, times in zip(parts, (one, other), strict=True):
        for time in times:
            part.add(time)
            whole.add(time)
    parts[0].merge(parts[1])
    assert parts[0].counts == whole.counts
    assert parts[0].longest == whole.longest


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**9), st.integers(48, 500))
def test_a_payload_says_what_it_is(publisher: int, number: int, due: int, size: int) -> None:
    mark = Mark(publisher, number, due)
    data = payload(mark, size)
    assert len(data) == size
    assert mark_of(data, size) == mark
    assert mark_of(data[1:], size) is None
    assert mark_of(data[:-1], size) is None
    assert mark_of(data.replace(b"x", b"y", 1), size) is (None if b"x" in data else mark)


def test_what_is_due_does_not_depend_on_what_came() -> None:
    schedule = Schedule(publisher=3, rate=4.0, offset=0.1, duration=2.0)
    assert [schedule.due(number) for number in range(3)] == [0.1, 0.35, 0.6]
    assert schedule.count == 8
    assert schedule.mark(2) == Mark(3, 2, 600_000)
    all_due = sorted(
        member.schedule.due(number)
        for member in broadcast("r", subscribers=1, publishers=3, rate=10, duration=1.0)
        if member.schedule is not None
        for number in range(member.schedule.count)
    )
    assert all_due == pytest.approx([number / 10 for number in range(10)])


def test_players_are_spread_evenly() -> None:
    members = live("r", rooms=3, players=2, rate=1.0, duration=2.0)
    first = sorted(each.schedule.due(0) for each in members if each.schedule is not None)
    assert first == pytest.approx([number / 6 for number in range(6)])
    assert {each.room for each in members} == {"r-0", "r-1", "r-2"}


@given(st.binary(max_size=300), st.sampled_from([TEXT, BINARY]))
def test_frames_come_in_any_pieces(data: bytes, opcode: int) -> None:
    server = server_frame(opcode, data)
    for end in range(len(server)):
        assert next_frame(server[:end], 0) is None
    frame = next_frame(server + b"more", 0)
    assert frame is not None
    assert (frame.opcode, frame.data, frame.end) == (opcode, data, len(server))


@given(st.data())
def test_frames_at_the_front_that_mean_nothing_are_passed_over(data: st.DataObject) -> None:
    """What is left is what a reader of all frames finds behind them."""
    said = [b"ack", b"ack" + bytes(200), b"ack" + bytes(65_536), b"other", b"", b"a"]
    parts = data.draw(st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), st.sampled_from(said))))
    whole = b"".join(server_frame(opcode, text) for opcode, text in parts)
    whole = whole[: data.draw(st.integers(0, len(whole)))]
    at = 0
    while (frame := next_frame(whole, at)) and frame.opcode == TEXT:
        if not frame.data.startswith(b"ack") or len(frame.data) > 65_535:
            break
        at = frame.end
    assert behind(whole, b"ack") == whole[at:]


def test_large_frames_and_masked_ones_are_for_another_reader() -> None:
    assert whole_text(server_frame(TEXT, bytes(65_535)), 0) == (4, 65_539)
    assert whole_text(server_frame(TEXT, bytes(65_536)), 0) is None
    assert whole_text(client_frame(TEXT, b"masked") + bytes(200), 0) is None


def server_frame(opcode: int, data: bytes) -> bytes:
    """A client's frame without its mask, which is zero."""
    frame = bytearray(client_frame(opcode, data))
    mask = len(frame) - len(data) - 4
    del frame[mask : mask + 4]
    frame[1] &= 0x7F
    return bytes(frame)


def test_a_frame_that_no_server_sends() -> None:
    with pytest.raises(ValueError, match="frame"):
        next_frame(client_frame(TEXT, b"x"), 0)


class Pair:
    """A subscriber that leads and one that compares, in plain frames."""

    def __init__(self, keeps: Shapes | None = None) -> None:
        self._keeps = keeps
        stream = Stream()
        self.first = self._make(stream, compares=False)
        self.other = self._make(stream, compares=True)

    def _make(self, stream: Stream, *, compares: bool) -> Receiver:
        def plain(opcode: int, data: bytes) -> bytes | None:
            return data if opcode == TEXT else None

        return Receiver(
            stream,
            plain,
            50,
            lambda *_: None,
            leads=not compares,
            compares=compares,
            keeps=self._keeps,
        )


WRONG = -1
"""Stands for a message that looks like those of a load, and is none."""
PINGED = -2
"""Stands for a ping."""


def frames(*numbers: int) -> bytes:
    parts = []
    for number in numbers:
        if number == PINGED:
            parts.append(server_frame(PING, b""))
        else:
            data = b"xx" if number == WRONG else payload(Mark(0, number, number * 1000), 50)
            parts.append(server_frame(TEXT, data))
    return b"".join(parts)


def verdict(receiver: Receiver, published: int) -> tuple[Faults, list[float]]:
    receiver.give_up_comparing()
    receiver.take_apart_kept()
    judged = judge(receiver.arrivals(), [published], {0: 0}, 0.0)
    judged.faults.unknown += receiver.unknown
    return judged.faults, [round(latency, 6) for _, latency in judged.latencies]


@given(st.data())
def test_comparing_finds_the_same_as_taking_apart(data: st.DataObject) -> None:
    """In whatever pieces it comes, before or behind the first subscriber, right or wrong."""
    numbers = data.draw(st.lists(st.integers(PINGED, 9), max_size=12))
    whole, truth = frames(*data.draw(st.sampled_from([range(10), numbers]))), frames(*numbers)
    pair = Pair(data.draw(st.sampled_from([None, Shapes(FILLING, None)])))
    alone = Pair().first
    keeping = Pair(Shapes(FILLING, None)).first
    cuts = sorted(data.draw(st.lists(st.integers(0, len(truth)), max_size=4)))
    pieces = [truth[a:b] for a, b in zip([0, *cuts], [*cuts, len(truth)], strict=True) if a < b]
    ahead = data.draw(st.integers(0, len(pieces)))
    for time, piece in enumerate(pieces):
        if time == ahead:
            pair.first.receive(0.0, whole)
        pair.other.receive(float(time), piece)
        alone.receive(float(time), piece)
        keeping.receive(float(time), piece)
    pair.other.catch_up()
    pair.first.take_apart_kept()
    assert verdict(pair.other, 10) == verdict(alone, 10) == verdict(keeping, 10)


@pytest.mark.parametrize("keeps", [None, Shapes(FILLING, None)])
def test_the_last_message_is_known_however_it_was_read(keeps: Shapes | None) -> None:
    """One who comes back asks for what is behind it."""
    receiver = Pair(keeps).first
    assert receiver.last_frame == b""
    receiver.receive(0.0, frames(0, 1))
    assert receiver.last_frame == frames(1)
    receiver.receive(0.0, frames(PINGED, 2, PINGED))
    receiver.newest()
    assert receiver.last_frame == frames(2)
    receiver.receive(0.0, frames(3))
    assert receiver.last_frame == frames(3)


def test_the_newest_are_told_while_it_runs_but_not_all_of_many() -> None:
    receiver = Pair(Shapes(FILLING, None)).first
    receiver.receive(0.0, frames(0, 1))
    assert [mark.number for _, mark in receiver.newest()] == [0, 1]
    assert receiver.newest() == []
    receiver.receive(1.0, frames(*range(2, 1002)))
    told = [mark.number for _, mark in receiver.newest()]
    assert told[0] == 2
    assert told == sorted(told)
    assert SOME // 2 < len(told) <= SOME
    assert told[-1] > 950


@pytest.mark.parametrize("keeps", [None, Shapes(FILLING, None)])
def test_latency_counts_from_when_it_was_due(keeps: Shapes | None) -> None:
    pair = Pair(keeps)
    pair.first.receive(0.010, frames(0, 1))
    pair.other.receive(0.020, frames(0, 1))
    assert pair.other.compared == 2
    assert verdict(pair.first, 2) == (Faults(), [0.010, 0.009])
    assert verdict(pair.other, 2) == (Faults(), [0.020, 0.019])


def test_a_knee_is_found() -> None:
    knee, tried = Knee(100), []
    while (rate := knee.next) is not None:
        tried.append(rate)
        knee.tried(held=rate <= 730)
    assert tried[:4] == [100, 200, 400, 800]
    assert 700 <= knee.best <= 730
    never = Knee(100)
    while (rate := never.next) is not None:
        never.tried(held=False)
    assert never.best == 0


def report(**more: Any) -> Report:
    times = Times(10, {"p50": 1.0, "p75": 2.0, "p90": 3.0, "p95": 4.0, "p99": 50.0}, 60.0)
    made: dict[str, Any] = {
        "settings": {"profile": "<b>", "size": 100, "connections": 2, "listeners_per_message": 1},
        "published": 10,
        "deliveries": 10,
        "seconds": 2.0,
        "latency": times,
        "last": times,
        "worst": 55.0,
        "faults": Faults(lost=1),
        "connections_per_s": 10.0,
        "caught_up": None,
        "behind": 0,
        "store_reads": None,
        "refused": 0,
        "disconnected": 0,
        "load": [0.5],
        "load_per_delivery": 1.0,
        "over_time": [Second(0, 5, 1.0, 2.0, 3.0), Second(1, 5, 1.0, 2.0, 60.0)],
        "buckets": [(1.0, 5), (2.0, 4), (50.0, 1)],
    }
    return Report(**(made | more))


def test_bounds() -> None:
    whole = report()
    for text, holds in (
        ("p99>49ms", True),
        ("p99>50ms", False),
        ("p99 >= 0.05s", True),
        ("last_p50<1100us", True),
        ("max<59ms", False),
        ("worst>50ms", True),
        ("lost>0", True),
        ("duplicate>0", False),
        ("deliveries_per_s<10", True),
        ("deliveries_per_s<5", False),
    ):
        assert Limit.parse(text).holds_for(whole) is holds, text


@pytest.mark.parametrize(
    "text", ["", "p99", "p99>50", "p98>1ms", "lost>1ms", "lost=0", "p99>ms", "p99>1.2.3ms", "x<1"]
)
def test_what_is_no_bound(text: str) -> None:
    with pytest.raises(ValueError, match=r"bound|figure|unit|time|number"):
        Limit.parse(text)


def test_the_schema_of_the_json() -> None:
    told = report().as_object()
    assert json.loads(json.dumps(told)) == told
    assert set(told) == {
        "schema",
        "about",
        "settings",
        "interrupted",
        "published",
        "deliveries",
        "seconds",
        "rates",
        "latency_ms",
        "last_receiver_ms",
        "worst_receiver_p99_ms",
        "connections_per_s",
        "caught_up_ms",
        "behind",
        "store_reads",
        "faults",
        "load",
        "server",
        "over_time",
        "histogram_ms",
    }
    assert told["schema"] == 1
    assert set(told["rates"]) == {"messages_per_s", "deliveries_per_s", "mb_per_s"}
    assert told["rates"] == {"messages_per_s": 5.0, "deliveries_per_s": 5.0, "mb_per_s": 0.0005}
    assert set(told["faults"]) == {
        "lost",
        "duplicate",
        "out_of_order",
        "unknown",
        "refused",
        "disconnected",
    }


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_page_needs_nothing_else_and_escapes() -> None:
    text = page(report())
    parsed = Page()
    parsed.feed(text)
    assert parsed.links == []
    assert parsed.tags.count("svg") == 2
    assert "b" not in parsed.tags
    assert "1 lost" in text
    assert "url(" not in text
    stormy = page(report(caught_up=Times(2, {"p50": 1.0}, 12.3), store_reads=4711))
    assert "12.3 ms" in stormy
    assert "4,711" in stormy
    assert "Nothing was measured." in page(report(buckets=[], over_time=[]))
