"""Standard input and output, read and written without holding up the event loop.

The law of this file: the descriptors may be shared with other programs, so they stay as they are
(O_NONBLOCK would be everybody's); instead nothing is read or written before the kernel says that it
won't wait.
"""

import asyncio
import errno
import fcntl
import os
import select
import stat
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self

from streamcast.errors import StreamcastError, TooBig

CHUNK = 64 * 1024
PIPE_BUF = select.PIPE_BUF
"""A pipe that takes anything takes so many bytes at once (POSIX)."""
TERMINAL_BUF = 256
"""A terminal that takes anything takes about so many."""
FULL = 256 * 1024
"""How many bytes wait for a slow reader."""


async def chunks_of(fd: int) -> AsyncIterator[bytes]:
    """Read until the end, piece by piece, as they come. Raises OSError."""
    loop = asyncio.get_running_loop()
    while True:
        await _ready(fd, loop.add_reader, loop.remove_reader)
        chunk = os.read(fd, CHUNK)
        if not chunk:
            return
        yield chunk


async def lines_of(fd: int, longest: int) -> AsyncIterator[bytes]:
    """Read line by line, as they come, without their ends; the last one may have none.

    Raises OSError, and TooBig where a line has more than `longest` bytes.
    """
    start = bytearray()
    async for chunk in chunks_of(fd):
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield bytes(start) + end
            start.clear()
        start += rest
        if len(start) > longest:
            raise TooBig(f"A line has more than {longest} bytes, which no server takes.")
    if start:
        yield bytes(start)


class Output:
    """A descriptor that is written to.

    `closed` is set when nobody reads it any more, or, with an `error`, when it can't be written to.
    Without `watch` that is noticed by writing only, and nothing that comes over it is taken.
    """

    def __init__(self, fd: int, *, watch: bool = True) -> None:
        self.closed = asyncio.Event()
        self.error: OSError | None = None
        self._fd = fd
        self._piece = TERMINAL_BUF if os.isatty(fd) else PIPE_BUF
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._flushing: asyncio.Task[None] | None = None
        if watch:
            self._watch()

    @classmethod
    def standard(cls, *, watch: bool = True) -> Self:
        """Return standard output. Raises StreamcastError."""
        if sys.stdout is None:
            # Then the number is somebody else's by now.
            raise StreamcastError("There is no standard output.")
        return cls(sys.stdout.fileno(), watch=watch)

    @property
    def fault(self) -> str | None:
        """What keeps it from being written to, in a sentence."""
        if self.error is None:
            return None
        return f"Standard output can't be written: {self.error.strerror}."

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be written that `drained` is to be awaited."""
        return self._size > FULL

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be written."""
        return self._flushing is None

    def write(self, data: bytes) -> None:
        """Write soon."""
        if self.closed.is_set():
            return
        self._waiting.append(data)
        self._size += len(data)
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())

    async def drained(self) -> None:
        """Wait until all is written, or nobody reads."""
        if self._flushing is not None:
            await asyncio.shield(self._flushing)

    def close(self) -> None:
        """Write no more."""
        if self._flushing is not None:
            self._flushing.cancel()
        asyncio.get_running_loop().remove_reader(self._fd)

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                data = memoryview(b"".join(self._waiting))
                self._waiting.clear()
                self._size = len(data)
                while data:
                    if not _takes_more(self._fd):
                        await _ready(self._fd, loop.add_writer, loop.remove_writer)
                    written = os.write(self._fd, data[: self._piece])
                    data = data[written:]
                    self._size -= written
        except OSError as error:
            self._end(None if error.errno == errno.EPIPE else error)
        finally:
            self._flushing = None

    def _end(self, error: OSError | None = None) -> None:
        self.error = error
        self._waiting.clear()
        self._size = 0
        self.closed.set()

    def _watch(self) -> None:
        """Notice that the reader goes away, also while there is nothing to write."""
        mode = os.fstat(self._fd).st_mode
        loop = asyncio.get_running_loop()
        if stat.S_ISFIFO(mode):
            # The end that is written to becomes ready to be read when the other is closed; one that
            # is both, when there is something to read.
            if fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
                loop.add_reader(self._fd, self._gone)
        elif stat.S_ISSOCK(mode):
            loop.add_reader(self._fd, self._peek)

    def _gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        self._end()

    def _peek(self) -> None:
        """Take what comes over a socket that is only written to; nothing: it was closed."""
        try:
            data = os.read(self._fd, CHUNK)
        except OSError:
            data = b""
        if not data:
            self._gone()


def _takes_more(fd: int) -> bool:
    """Whether a write would not wait."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


async def _ready(fd: int, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    """Wait until a descriptor is ready; one that can't be waited for, as a file, always is."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def is_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    try:
        add(fd, is_ready)
    except PermissionError:
        return
    try:
        await ready
    finally:
        remove(fd)
