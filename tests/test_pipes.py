"""Standard input and output, whatever they are: files, pipes, sockets, terminals."""

import asyncio
import contextlib
import errno
import os
import pty
import select
import socket
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from streamcast.cli.pipes import FULL, Output, lines_of
from streamcast.errors import TooBig

pytestmark = pytest.mark.one_cell

LONGEST = 100_000
Ends = Callable[[str], tuple[int, int]]
"""Makes two ends: where is read, and where is written."""
Open = Callable[[Path | str, int], int]
WriteTo = Callable[[int], Output]
SPLIT = [
    (b"", []),
    (b"\n", [b""]),
    (b"a", [b"a"]),
    (b"a\n", [b"a"]),
    (b"a\nb", [b"a", b"b"]),
    (b"\n\na\n\n", [b"", b"", b"a", b""]),
    (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
    (b"\r", [b"\r"]),
    (b"\x00\xff\x0b\x0c\x1c\x85\xe2\x80\xa8\n", [b"\x00\xff\x0b\x0c\x1c\x85\xe2\x80\xa8"]),
]


@pytest.fixture
def open_ends() -> Iterator[Ends]:
    """Makes connected ends; a test may close them itself."""
    with contextlib.ExitStack() as stack:

        def make(kind: str) -> tuple[int, int]:
            if kind == "pipe":
                read, write = os.pipe()
            elif kind == "socket":
                read, write = (end.detach() for end in socket.socketpair())
            else:
                read, write = pty.openpty()
                tty.setraw(write)
            for fd in (read, write):
                stack.callback(close, fd)
            return read, write

        yield make


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens files, for reading or writing."""
    with contextlib.ExitStack() as stack:

        def open_file(path: Path | str, how: int) -> int:
            fd = os.open(path, how)
            stack.callback(close, fd)
            return fd

        yield open_file


def close(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)


@pytest.fixture
async def write_to() -> AsyncIterator[WriteTo]:
    outputs = []

    def make(fd: int) -> Output:
        outputs.append(Output(fd))
        return outputs[-1]

    yield make
    for output in outputs:
        output.close()


async def lines(fd: int, longest: int = LONGEST) -> list[bytes]:
    return [line async for line in lines_of(fd, longest)]


async def read(fd: int, size: int) -> bytes:
    """Read so many bytes, in a thread."""

    def work() -> bytes:
        data = b""
        while len(data) < size and (piece := os.read(fd, size - len(data))):
            data += piece
        return data

    return await asyncio.wait_for(asyncio.to_thread(work), 10)


# Input


@pytest.mark.parametrize(("data", "expected"), SPLIT)
@pytest.mark.parametrize("step", [1, 1000])
async def test_lines_from_a_pipe(
    open_ends: Ends, data: bytes, expected: list[bytes], step: int
) -> None:
    source, sink = open_ends("pipe")
    reading = asyncio.create_task(lines(source))
    for start in range(0, len(data), step):
        os.write(sink, data[start : start + step])
        # Each piece is read before the next is written.
        while await asyncio.to_thread(has_something, source):
            await asyncio.sleep(0)
    os.close(sink)
    assert await reading == expected


def has_something(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


@pytest.mark.parametrize(("data", "expected"), SPLIT)
async def test_lines_from_a_file(
    tmp_path: Path, opened: Open, data: bytes, expected: list[bytes]
) -> None:
    (tmp_path / "file").write_bytes(data)
    assert await lines(opened(tmp_path / "file", os.O_RDONLY)) == expected


async def test_lines_over_many_chunks(tmp_path: Path, opened: Open) -> None:
    expected = [b"%d" % number * (number % 7 * 3000) for number in range(200)]
    (tmp_path / "file").write_bytes(b"\n".join(expected))
    assert await lines(opened(tmp_path / "file", os.O_RDONLY)) == expected


async def test_nothing_to_read(opened: Open) -> None:
    assert await lines(opened("/dev/null", os.O_RDONLY)) == []


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
async def test_a_line_is_there_before_the_next_is_written(open_ends: Ends, kind: str) -> None:
    source, sink = open_ends(kind)
    coming = lines_of(source, LONGEST)
    for line in (b"first", b"second"):
        os.write(sink, line + b"\n")
        assert await asyncio.wait_for(anext(coming), 5) == line


async def test_waiting_for_input_holds_up_nothing(open_ends: Ends) -> None:
    source, sink = open_ends("pipe")
    reading = asyncio.create_task(lines(source))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not reading.done()
    os.close(sink)
    assert await reading == []


async def test_a_socket_that_broke_can_not_be_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours:
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        theirs.close()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(lines(ours.fileno()), 5)


async def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "file").write_bytes(b"a\nb\n" + bytes(300_000))
    coming = lines_of(opened(tmp_path / "file", os.O_RDONLY), LONGEST)
    assert [await anext(coming), await anext(coming)] == [b"a", b"b"]
    with pytest.raises(TooBig, match="100000 bytes"):
        await anext(coming)


async def test_a_line_may_be_as_long_as_the_longest(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "file").write_bytes(bytes(LONGEST))
    assert await lines(opened(tmp_path / "file", os.O_RDONLY)) == [bytes(LONGEST)]


# Output


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
async def test_what_is_written_arrives_whole_and_in_order(
    open_ends: Ends, write_to: WriteTo, kind: str
) -> None:
    source, sink = open_ends(kind)
    output = write_to(sink)
    pieces = [b"%d," % number * (number % 50) for number in range(2000)]
    for piece in pieces:
        output.write(piece)
    reading = asyncio.create_task(read(source, len(b"".join(pieces))))
    await output.drained()
    assert await reading == b"".join(pieces)
    assert not output.closed.is_set()


async def test_a_file(tmp_path: Path, opened: Open, write_to: WriteTo) -> None:
    output = write_to(opened(tmp_path / "file", os.O_WRONLY | os.O_CREAT))
    for piece in (b"a" * FULL, b"", b"b" * FULL):
        output.write(piece)
    await output.drained()
    assert (tmp_path / "file").read_bytes() == b"a" * FULL + b"b" * FULL


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
async def test_a_reader_who_reads_nothing_holds_up_nothing(
    open_ends: Ends, write_to: WriteTo, kind: str
) -> None:
    source, sink = open_ends(kind)
    output = write_to(sink)
    output.write(bytes(2 * FULL))
    draining = asyncio.create_task(output.drained())
    for _ in range(100):
        await asyncio.sleep(0.001)
    assert not draining.done()
    assert output.is_full
    assert await read(source, 2 * FULL) == bytes(2 * FULL)
    await draining
    assert not output.is_full


@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_a_reader_who_goes_is_noticed_with_nothing_to_write(
    open_ends: Ends, write_to: WriteTo, kind: str
) -> None:
    source, sink = open_ends(kind)
    output = write_to(sink)
    output.write(b"a")
    await output.drained()
    assert not output.closed.is_set()
    os.close(source)
    await asyncio.wait_for(output.closed.wait(), 5)
    assert output.error is None


@pytest.mark.parametrize("kind", ["pipe", "socket"])
async def test_a_reader_who_goes_while_much_waits(
    open_ends: Ends, write_to: WriteTo, kind: str
) -> None:
    source, sink = open_ends(kind)
    output = write_to(sink)
    output.write(bytes(2 * FULL))
    await asyncio.sleep(0.01)
    os.close(source)
    await asyncio.wait_for(output.drained(), 5)
    await asyncio.wait_for(output.closed.wait(), 5)
    assert output.error is None
    output.write(b"to nobody")
    assert not output.is_full


async def test_a_reader_who_says_something_stays_a_reader(
    open_ends: Ends, write_to: WriteTo
) -> None:
    source, sink = open_ends("socket")
    output = write_to(sink)
    os.write(source, b"hello")
    await asyncio.sleep(0.02)
    assert not output.closed.is_set()


async def test_a_pipe_that_is_open_for_reading_too_has_no_reader_to_lose(
    tmp_path: Path, opened: Open, write_to: WriteTo
) -> None:
    os.mkfifo(tmp_path / "pipe")
    both = opened(tmp_path / "pipe", os.O_RDWR)
    output = write_to(both)
    for piece in (b"a", b"b"):
        output.write(piece)
        await output.drained()
        await asyncio.sleep(0.02)
        assert not output.closed.is_set()
    assert os.read(both, 10) == b"ab"


async def test_a_disk_that_is_full_is_an_error(opened: Open, write_to: WriteTo) -> None:
    output = write_to(opened("/dev/full", os.O_WRONLY))
    output.write(b"a")
    await output.drained()
    assert output.closed.is_set()
    assert output.error is not None
    assert output.error.errno == errno.ENOSPC


async def test_after_the_close_nothing_is_under_way(open_ends: Ends, write_to: WriteTo) -> None:
    _, sink = open_ends("pipe")
    before = asyncio.all_tasks()
    output = write_to(sink)
    output.write(bytes(2 * FULL))
    await asyncio.sleep(0.01)
    output.close()
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
async def test_descriptors_stay_as_they_are_for_those_who_share_them(
    open_ends: Ends, write_to: WriteTo, kind: str
) -> None:
    source, sink = open_ends(kind)
    coming = lines_of(source, LONGEST)
    output = write_to(sink)
    output.write(b"a\n")
    assert await anext(coming) == b"a"
    assert os.get_blocking(source)
    assert os.get_blocking(sink)
