"""The inlet in C and the one in Python do the same, which is less than the library and no other."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Opcode

import streamcast.inlet
from streamcast.inlet import native, pure
from streamcast.server.parser import Parser
from tests.raw import MASK, frame, text

pytestmark = pytest.mark.one_cell

LIMIT = 300
UsualText = Callable[[memoryview, int, int], bytes | None]
each = pytest.mark.parametrize(
    "usual_text", [native.usual_text, pure.usual_text], ids=["native", "pure"]
)

# How a length is written in so many bytes.
HEADS = {1: lambda n: bytes((0x80 | n,)), 2: lambda n: bytes((0xFE, n >> 8, n & 0xFF))}
texts = st.one_of(
    st.text(st.characters(codec="ascii"), max_size=20),
    st.sampled_from([0, 7, 8, 9, 16, 125, 126, 127, LIMIT - 1, LIMIT, LIMIT + 1]).map("x".__mul__),
    st.text(max_size=20),
)
frames = st.one_of(
    texts.map(text),
    st.builds(
        lambda size, head, mask: bytes((0x81,)) + HEADS[head](size % 126) + mask + bytes(size),
        st.integers(0, 130),
        st.sampled_from([1, 2]),
        st.binary(min_size=4, max_size=4),
    ),
    st.builds(frame, st.sampled_from(list(Opcode)), st.binary(max_size=20)),
    st.builds(frame, st.just(Opcode.TEXT), st.just(b"a"), fin=st.just(False)),
    st.builds(frame, st.just(Opcode.TEXT), st.just(b"a"), masked=st.just(False)),
    st.builds(frame, st.just(Opcode.TEXT), st.just(b"a"), reserved=st.sampled_from([1, 2, 4])),
    st.binary(max_size=20),
)


@given(frames, st.binary(max_size=3), st.integers(0, 3))
@example(bytes((0x81, 0xFF)) + MASK + bytes(0x7F), b"", 0)
@example(bytes((0x81, 0x7F)) + MASK + bytes(0xFF), b"", 0)
@example(bytes((0x81, 0xFF, 0, 0)) + MASK, b"", 0)
@example(bytes((0x81, 0x05, 0, 0)) + MASK, b"", 0)
@example(bytes((0x81, 0xFE)) + MASK, b"", 0)
@example(bytes((0x81, 0xFE, 0)), b"", 0)
def test_it_says_what_the_library_says_or_nothing(data: bytes, behind: bytes, short: int) -> None:
    """Also where more has come, or less; what else is in the buffer means nothing."""
    data = (data + behind)[: len(data + behind) - short]
    buffer = memoryview(data + b"\x81\x80 else")
    said = native.usual_text(buffer, len(data), LIMIT)
    assert pure.usual_text(buffer, len(data), LIMIT) == said
    if said is None:
        return
    assert said.isascii()
    assert list(Parser(LIMIT).receive(data)) == [(said, True)]


@each
@pytest.mark.parametrize("size", [0, 1, 8, 17, 125, 126, LIMIT])
def test_usual_frames_are_taken(usual_text: UsualText, size: int) -> None:
    said = bytes(range(128)) * 3
    data = frame(Opcode.TEXT, said[:size])
    assert usual_text(memoryview(data), len(data), LIMIT) == said[:size]
    assert usual_text(memoryview(data), len(data), size - 1) is None
    assert usual_text(memoryview(data), len(data) - 1, LIMIT) is None
    for place in range(size):
        # Wherever it is, and whatever the rest is.
        other = bytearray(said[:size])
        other[place] |= 0x80
        assert usual_text(memoryview(frame(Opcode.TEXT, bytes(other))), len(data), LIMIT) is None


def test_where_there_is_a_compiler_the_one_in_c_is_used() -> None:
    assert streamcast.inlet.usual_text is native.usual_text


@each
def test_it_reads_no_more_than_there_is(usual_text: UsualText) -> None:
    given = memoryview(text("a"))
    with pytest.raises(ValueError, match="not so many"):
        usual_text(given, len(given) + 1, 9)
    assert usual_text(given, -1, 9) is None


def test_what_is_no_buffer_is_refused() -> None:
    given = memoryview(text("a"))
    for wrong in [(given, "7", 9), (given, 7, None), (7, 7, 9), (given, 7)]:
        with pytest.raises(TypeError):
            native.usual_text(*wrong)  # type: ignore[arg-type]
