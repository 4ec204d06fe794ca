"""The guardian of an embedded store: ends it when the server ends, however the server ends.

The law of this file: the store never outlives its guardian, nor the guardian its server. The
server holds the other end of this process's standard input, which the kernel closes even after a
kill -9. Run as a script, on the standard library alone:

    guardian.py FOLDER SOCKET PROGRAM [ARGUMENT …]

It starts PROGRAM, a Valkey that listens at SOCKET, says `ready` on standard output once that
answers, or `failed` and why; it removes FOLDER when the server has ended. Signals that a terminal
or a service manager sends to all processes at once end neither it nor the store: the server is
still finishing what was published, and needs them.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

TO_ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What a terminal or a service manager sends to all processes of a program."""
SHUTDOWN_TIMEOUT = 5.0
"""Seconds that the store has to end in order."""
ANSWER_TIMEOUT = 2.0
LOOK_EVERY = 0.01
PR_SET_PDEATHSIG = 1


def main(folder: Path, path: str, command: list[str]) -> None:
    """Run the store until it ends or the server does."""
    for number in TO_ALL:
        signal.signal(number, signal.SIG_IGN)
    # One that outlived its guardian where the kernel does not end it.
    shut_down(path)
    log = folder / "log"
    server_ended = threading.Event()
    with log.open("wb") as output:
        store = subprocess.Popen(  # noqa: S603 - the server chose the program
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            close_fds=False,  # it holds the lock on its folder too
            preexec_fn=_prepare_store,  # noqa: PLW1509 - there are no threads yet
        )
    threading.Thread(target=_end_with_server, args=(store, path, server_ended), daemon=True).start()
    while store.poll() is None and not answers(path):
        time.sleep(LOOK_EVERY)
    if store.poll() is None:
        say("ready")
    store.wait()
    if server_ended.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        say(f"failed {_reason(store.returncode, log)}")


def say(line: str) -> None:
    """Tell the server, if it still listens."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _prepare_store() -> None:
    """Between fork and exec: signals to all are not for it, and it dies with its guardian."""
    signal.pthread_sigmask(signal.SIG_BLOCK, TO_ALL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_server(
    store: "subprocess.Popen[bytes]", path: str, server_ended: threading.Event
) -> None:
    sys.stdin.buffer.read()
    server_ended.set()
    end = time.monotonic() + SHUTDOWN_TIMEOUT
    # It may have to be asked again: while it starts, it does not listen yet.
    while store.poll() is None:
        shut_down(path)
        if time.monotonic() > end:
            store.kill()
        time.sleep(LOOK_EVERY)


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
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
    # The thread may still wait for the server; it has nothing left to do.
    os._exit(0)
