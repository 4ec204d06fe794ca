"""Taking clients in: alone, or beside other workers, evenly.

The law of this file: all workers listen on the same sockets, and a client goes to the one that has
the fewest. Left alone, the kernel wakes all, and whoever is the quickest takes all that wait: of
1,000 clients one of two workers got up to 770. So one that has more than another leaves what comes
to that one for a moment, and then takes what is left, so that nobody waits for a worker that hangs.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Sequence

from streamcast import log
from streamcast.server.context import Context
from streamcast.server.head import Head

MOMENT = 0.005
"""Seconds that others have to be quicker."""
AT_ONCE = 16
"""How many clients are taken in before the event loop runs; so uneven may it be."""
WITHOUT_FILES = 1.0
"""Seconds between two warnings that the system gives no more files; and until it is tried again,
where others may have some, or there is none even to cut a client off."""
NO_FILES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Accepting:
    """Accepts clients until it is closed."""

    def __init__(self, context: Context, sockets: Sequence[socket.socket]) -> None:
        self._context = context
        self._sockets = sockets
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._closed = False
        # Given up for a moment where the system gives no more, to cut off who comes then.
        self._spare = _spare_file()
        self._warned = -WITHOUT_FILES
        self._tell()
        for sock in sockets:
            self._watch(sock)

    def close(self) -> None:
        """Listen no more."""
        self._closed = True
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._give_up_spare()
        self._context.others.accept_none()

    def _tell(self) -> None:
        """Let the others know how many clients there are here, before it is compared."""
        context = self._context
        clients = len(context.heads) + len(context.connections) + len(self._opening)
        context.others.clients = clients

    def _watch(self, sock: socket.socket) -> None:
        self._loop.add_reader(sock, self._woken, sock)

    def _pause(self, sock: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(sock)
        fewest = self._context.others.fewest
        self._loop.call_later(seconds, self._take_what_is_left, sock, fewest)

    def _woken(self, sock: socket.socket) -> None:
        others = self._context.others
        for _ in range(AT_ONCE):
            self._tell()
            if others.clients > others.fewest:
                self._pause(sock, MOMENT)
                return
            if not self._take(sock):
                return

    def _take_what_is_left(self, sock: socket.socket, before: int) -> None:
        """Go on after a pause; `before`: the fewest clients that a worker had then."""
        if self._closed:
            return
        self._watch(sock)
        for _ in range(AT_ONCE):
            self._tell()
            if self._is_for_others(before) or not self._take(sock):
                return

    def _is_for_others(self, before: int) -> bool:
        """Whether others are still to go first: who would only be refused here, or is too many."""
        others = self._context.others
        ahead = others.clients - others.fewest
        if others.clients >= self._context.capacity:
            return ahead > 0
        return ahead > AT_ONCE and others.fewest > before

    def _take(self, sock: socket.socket) -> bool:
        """Accept a client; return whether there may be more."""
        try:
            client, _ = sock.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            # Anything else is about this client, who is gone (accept(2)).
            return error.errno not in NO_FILES or self._without_files(sock, error)
        if self._spare is None:
            self._spare = _spare_file()
        client.setblocking(False)
        opening = self._loop.create_task(
            self._loop.connect_accepted_socket(lambda: Head(self._context, client), client)
        )
        self._opening.add(opening)
        opening.add_done_callback(self._opened)
        return True

    def _without_files(self, sock: socket.socket, why: OSError) -> bool:
        """Leave clients to others; alone, cut one off. Returns whether there may be more."""
        if self._loop.time() - self._warned >= WITHOUT_FILES:
            self._warned = self._loop.time()
            log.warning("can't accept", reason=why.strerror)
        if self._context.others.count > 1 or self._spare is None:
            self._pause(sock, WITHOUT_FILES)
            return False
        return self._cut_off(sock)

    def _cut_off(self, sock: socket.socket) -> bool:
        """Accept a client only to close it, so that none waits for files that may never come."""
        self._give_up_spare()
        try:
            sock.accept()[0].close()
        except OSError:
            # There was none left: the system looks for a file first.
            return False
        finally:
            self._spare = _spare_file()
        self._context.refused += 1
        return True

    def _give_up_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _opened(self, opening: asyncio.Task[object]) -> None:
        self._opening.discard(opening)
        log.fault_of(opening, "accepting")


def _spare_file() -> int | None:
    """Open a file that can be given up, if there is one to be had."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
