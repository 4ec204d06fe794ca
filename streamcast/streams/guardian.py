"""The guardian of an embedded store: starts it again when it ends, and ends it with the server.

The law of this file: the store never outlives its guardian, nor the guardian its server. The
server holds the other end of this process's standard input, which the kernel closes even after a
kill -9. Run as a script, on the standard library alone:

    guardian.py FOLDER SOCKET PROGRAM [ARGUMENT …]

It runs PROGRAM, a Valkey that listens at SOCKET. On standard output it says `ready` each time that
answers, and `failed` and why each time it ends. When the server has ended, it removes FOLDER.
Signals that a terminal or a service manager sends to all processes at once end neither it nor the
store: the server is still finishing what was published, and needs them.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TO_ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What a terminal or a service manager sends to all processes of a program."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds before the store is started again: the first time, and at most."""
LIVED = 60.0
"""Seconds after which a store counts as one that had started well."""
SHUTDOWN_TIMEOUT = 5.0
"""Seconds that the store has to end in order."""
ANSWER_TIMEOUT = 2.0
LOOK_EVERY = 0.01
PR_SET_PDEATHSIG = 1


class Guardian:
    """See above. `folder` also holds the store's log."""

    def __init__(self, folder: Path, path: str, command: list[str]) -> None:
        self._folder = folder
        self._path = path
        self._command = command
        self._server_ended = False
        self._woken, wake = os.pipe()
        for end in (self._woken, wake):
            os.set_blocking(end, False)
        # So that the end of the store is waited for beside that of the server.
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in TO_ALL:
            signal.signal(number, signal.SIG_IGN)

    def run(self) -> None:
        """Run the store until the server has ended."""
        pause = FIRST_PAUSE
        while not self._server_ended:
            began = time.monotonic()
            reason = self._run_once()
            if time.monotonic() - began > LIVED:
                pause = FIRST_PAUSE
            say(f"failed {reason}")
            self._wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run_once(self) -> str:
        """Run the store until it ends. Returns why it did."""
        # One that outlived its guardian where the kernel does not end it.
        shut_down(self._path)
        try:
            store = self._start()
        except OSError as error:
            return str(error)
        ready, kill_at = False, 0.0
        while store.poll() is None:
            if self._server_ended:
                kill_at = kill_at or time.monotonic() + SHUTDOWN_TIMEOUT
                # It may have to be asked again: while it starts, it does not listen yet.
                shut_down(self._path)
                if time.monotonic() > kill_at:
                    store.kill()
            elif not ready and answers(self._path):
                ready = True
                say("ready")
            self._wait(None if ready and not self._server_ended else LOOK_EVERY)
        return _reason(store.returncode, self._folder / "log")

    def _start(self) -> "subprocess.Popen[bytes]":
        # Whoever tidies up temporary folders may have removed it.
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with (self._folder / "log").open("wb") as output:
            return subprocess.Popen(  # noqa: S603 - the server chose the program
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                close_fds=False,  # it holds the lock on its data too
                preexec_fn=_prepare_store,  # noqa: PLW1509 - there are no threads
            )

    def _wait(self, seconds: float | None) -> None:
        """Wait for the end of the server or of the store, at most so long."""
        if self._server_ended:
            select.select([self._woken], [], [], seconds)
        else:
            ready, _, _ = select.select([sys.stdin, self._woken], [], [], seconds)
            # Nothing is ever written there, so this is its end.
            self._server_ended = sys.stdin in ready
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 1000)


def _prepare_store() -> None:
    """Between fork and exec: signals to all are not for it, and it dies with its guardian.

    What it writes is for this user alone.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, TO_ALL)
    os.umask(0o077)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def say(line: str) -> None:
    """Tell the server, if it still listens."""
    # Nothing is buffered: it would be written once more at the end, and fail loudly.
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), f"{line}\n".encode())


def answers(path: str) -> bool:
    """Whether a store at the socket has loaded its data."""
    return _ask(path, b"PING\r\n").startswith(b"+PONG")


def shut_down(path: str) -> None:
    """Have the store at the socket end in order, if there is one."""
    # An append-only file is written as it goes; there is nothing else to save.
    _ask(path, b"SHUTDOWN NOSAVE FORCE\r\n")


def _ask(path: str, command: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ANSWER_TIMEOUT)
        try:
            sock.connect(path)
            sock.sendall(command)
            return sock.recv(1000)
        except OSError:
            return b""


def _reason(code: int, log: Path) -> str:
    """Return why the store ended: the signal, or what it logged last."""
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    # Process, role, time and level stand before the text.
    return lines[-1].rpartition(" # ")[2].strip() if lines else f"it ended with code {code}"


if __name__ == "__main__":
    Guardian(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]).run()
