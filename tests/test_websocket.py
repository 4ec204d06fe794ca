"""Frames that are read without the library's parser: whatever comes, and however it is cut, means
the same as to the library alone."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Opcode

from streamcast.server.parser import Parser, Received
from streamcast.server.websocket import SMALL, WebSocket
from streamcast.wire import Close
from streamcast.wire.close import Code
from tests.raw import MASK, close, frame, rest, text

LIMIT = 3 * SMALL

payloads = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([0, 1, 125, 126, 127, SMALL - 1, SMALL, SMALL + 1, LIMIT, LIMIT + 1]).map(
        lambda size: b"x" * size
    ),
    st.text(max_size=5).map(str.encode),
)
whole = st.builds(frame, st.sampled_from([Opcode.TEXT, Opcode.BINARY]), payloads)
fragmented = st.lists(payloads, min_size=1, max_size=3).map(
    lambda parts: b"".join(
        (
            frame(Opcode.BINARY, parts[0], fin=False),
            *(rest(part) for part in parts[1:]),
            rest(b"", fin=True),
        )
    )
)
control = st.builds(frame, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=130))
# A length that needs no two bytes, but is written in two.
long_written = st.builds(
    lambda opcode, data: (
        bytes((0x80 | opcode, 0x80 | 126, 0, len(data)))
        + MASK
        + bytes(byte ^ MASK[index % 4] for index, byte in enumerate(data))
    ),
    st.sampled_from([Opcode.TEXT, Opcode.PONG]),
    st.binary(max_size=100),
)
wrong = st.one_of(
    st.builds(frame, st.just(Opcode.TEXT), payloads, masked=st.just(False)),
    st.builds(frame, st.sampled_from(list(Opcode)), payloads, reserved=st.sampled_from([1, 4])),
    st.binary(min_size=1, max_size=12),
)
streams = (
    st.lists(
        st.one_of(
            whole, whole, whole, fragmented, control, long_written, wrong, st.just(close(1000))
        ),
        max_size=8,
    )
    .map(b"".join)
    .filter(bool)
)


def cut(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


def receive(peer: WebSocket, data: bytes) -> Sequence[Received | Close]:
    """As a connection does: what is usual in one step."""
    usual = peer.receive_usual(memoryview(data + b"behind it"), len(data))
    return peer.receive(data) if usual is None else [(usual, True)]


def heard(received: Sequence[Received | Close]) -> list[Received | Close]:
    """Up to the first close, behind which nobody listens."""
    for number, each in enumerate(received):
        if isinstance(each, Close):
            return [*received[: number + 1]]
    return [*received]


@given(streams, st.lists(st.integers(0, 20_000), max_size=12))
def test_it_is_the_same_as_the_library(data: bytes, cuts: list[int]) -> None:
    quick, library = WebSocket(LIMIT), Parser(LIMIT)
    quick.talked = False
    told: list[bytes] = []
    got: list[Received | Close] = []
    for piece in cut(data, cuts):
        got += receive(quick, piece)
        told += quick.data_to_send()
    expected = heard(list(library.receive(data)))
    assert heard(got) == expected
    if any(isinstance(each, Close) for each in expected):
        return
    assert b"".join(told) == b"".join(library.data_to_send())
    assert quick.answered == library.answered
    assert quick.is_broken == (library.parser_exc is not None)
    # Half a frame is a sign of life as well, of which the library tells only when it is whole.
    assert quick.talked >= library.talked


@pytest.mark.parametrize(
    "busy",
    [
        frame(Opcode.PING, b"x"),
        frame(Opcode.TEXT, b"a", fin=False) + rest(b"b", fin=True),
        text("x" * (SMALL + 1)),
    ],
    ids=["ping", "fragments", "large"],
)
def test_a_parser_is_there_only_as_long_as_it_is_needed(busy: bytes) -> None:
    peer = WebSocket(LIMIT)
    assert peer.receive(text("a") + frame(Opcode.PONG)) == [(b"a", True)]
    assert peer.parser is None
    for place in range(1, len(busy)):
        peer.receive(busy[:place])
        assert list(peer.data_to_send()) == []
        peer.receive(busy[place:])
        peer.data_to_send()
        assert peer.parser is None, place
    assert peer.receive(text("b")) == [(b"b", True)]


def test_half_a_frame_is_part_of_the_close() -> None:
    """What has come of it is not to be taken for the beginning of the next."""
    peer, half = WebSocket(LIMIT), text("abcdef")
    peer.receive(half[:8])
    peer.close(Close(Code.GOING_AWAY, "gone"))
    assert peer.receive(half[8:] + close(1001)) == [(b"abcdef", True)]
    assert peer.close_received is not None
