"""One of several processes that serve clients on the same port; `workers` leads them.

The law of this file: a worker ends with its parent, whatever ended that. It listens on what it was
given, stops when its parent hands the signal on, and leaves the terminal's Ctrl-C to that.
"""

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

from streamcast.config import LogSettings, RelaySettings, ServerSettings, StreamSettings
from streamcast.server.accepting import Accepting
from streamcast.server.app import serve_clients
from streamcast.server.context import Context
from streamcast.server.listening import Listening, url_of
from streamcast.server.others import Others, Rows
from streamcast.streams.guardian import PR_SET_PDEATHSIG

READY = "ready"
FAILED = "failed "
"""What a worker says on its standard output, once: that it serves, or why it can't."""
WHILE_ENDING = {signal.SIGTERM, signal.SIGUSR1}


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is told.

    `row`: which of the workers' rows is its own. `sockets`, `memory`: descriptors that it was
    started with.
    """

    row: int
    sockets: tuple[int, ...]
    memory: int
    streams: StreamSettings
    messages: RelaySettings
    server: ServerSettings
    logs: LogSettings

    @property
    def number(self) -> int:
        """What it is called, from 1 on."""
        return self.row + 1


async def work(task: Task) -> None:
    """Serve until the parent says to stop. Raises StartError."""
    _end_with_parent()
    others = Others(task.row, Rows(task.server.workers, task.memory))

    async def begin(context: Context, stop: Callable[[], None]) -> Listening:
        sockets = [socket.socket(fileno=descriptor) for descriptor in task.sockets]
        # A second one is no haste: a service manager may tell all processes, and the parent too.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        accepting = Accepting(context, sockets)
        say(READY)
        return Listening(url_of(sockets), accepting.close)

    try:
        await serve_clients(task.streams, task.messages, task.server, begin, others)
    finally:
        # It has ended in order, even if the same signal comes from two sides.
        signal.pthread_sigmask(signal.SIG_BLOCK, WHILE_ENDING)


def say(line: str) -> None:
    """Tell the parent."""
    sys.stdout.write(" ".join(line.split()) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    """Have the kernel end this process with its parent; else standard input ends with that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), os._exit, 1)
