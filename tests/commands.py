"""`streamcast publish` and `tail`, and any command, run as a user runs them."""

import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Self

import redis

from streamcast.message import MessageId
from tests.stores import Store

PATIENCE = 15.0
PROGRAM = (sys.executable, "-m", "streamcast")


def environment(**variables: str) -> dict[str, str]:
    """That of the tests, without what would change what commands do."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STREAMCAST_", "_STREAMCAST")) and name not in {"NO_COLOR", "TERM"}
    }
    return inherited | {"TERM": "xterm-256color"} | variables


def finish(
    *arguments: str, input: bytes = b"", **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end; `input` comes through a pipe."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        input=input,
        capture_output=True,
        timeout=PATIENCE,
        env=environment(**variables),
        check=False,
    )


def in_bash(script: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script in which $STREAMCAST is the program; it fails where a part of a pipe does."""
    return subprocess.run(
        ["bash", "--norc", "-o", "pipefail", "-c", script],
        input=b"",
        capture_output=True,
        timeout=PATIENCE,
        env=environment(STREAMCAST=" ".join(PROGRAM), **variables),
        check=False,
    )


class Command:
    """A command that runs. What it prints is read line by line; stdin and stdout are pipes."""

    def __init__(
        self,
        *arguments: str,
        stdin: int = subprocess.PIPE,
        stdout: int = subprocess.PIPE,
        **variables: str,
    ) -> None:
        self._told = tempfile.TemporaryFile()  # noqa: SIM115 - the end of the context closes it
        self.process = _start(arguments, stdin, stdout, self._told.fileno(), variables)
        if self.process.stdout is not None:
            self.out = self.process.stdout.fileno()
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self._told):
            if file is not None:
                file.close()

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def line(self) -> bytes:
        """The next line that it prints, without its end."""
        while b"\n" not in self._read:
            piece = self.piece()
            assert piece, f"it ended in the middle of a line: {self._read!r}, {self.told()}"
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return line

    def lines(self, count: int) -> list[bytes]:
        return [self.line() for _ in range(count)]

    def rest(self) -> bytes:
        """All that it prints until it ends."""
        while piece := self.piece():
            self._read += piece
        rest, self._read = self._read, b""
        return rest

    def piece(self) -> bytes:
        """What can be read now, or comes next; nothing at the end."""
        ready, _, _ = select.select([self.out], [], [], PATIENCE)
        assert ready, f"nothing came: {self.told()}"
        try:
            return os.read(self.out, 64 * 1024)
        except OSError:
            return b""  # as a terminal says it

    def close_output(self) -> None:
        """Go away as its reader."""
        assert self.process.stdout is not None
        self.process.stdout.close()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def ended(self) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(timeout=PATIENCE)

    def told(self) -> str:
        """What it has said on stderr."""
        file = self._told.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode()


class AtTerminal(Command):
    """A command whose stdout is a terminal, 80 columns wide."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self.out, theirs = pty.openpty()
        super().__init__(*arguments, stdin=subprocess.DEVNULL, stdout=theirs, **variables)
        os.close(theirs)

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        os.close(self.out)

    def line(self) -> bytes:
        return super().line().removesuffix(b"\r")


def _start(
    arguments: Sequence[str], stdin: int, stdout: int, stderr: int, variables: dict[str, str]
) -> "subprocess.Popen[bytes]":
    # Whoever runs the tests may ignore Ctrl-C, and what it starts would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,
            env=environment(**variables),
        )
    finally:
        signal.signal(signal.SIGINT, before)


def ids(printed: bytes) -> list[MessageId]:
    """The IDs in what publish printed, one a line."""
    return [MessageId.parse(line.decode()) for line in printed.splitlines()]


def stored(store: Store, room: str, prefix: str = "streamcast:") -> list[tuple[str, bytes]]:
    """What a room's stream holds: the field, `message` or `binary`, and the payload."""
    entries = store.client.xrange(prefix + room)
    return [
        (name, fields[name.encode()])
        for _, fields in entries
        for name in ("message", "binary")
        if name.encode() in fields
    ]


def texts(store: Store, room: str, prefix: str = "streamcast:") -> list[bytes]:
    """The payloads that a room's stream holds, all of them text."""
    entries = stored(store, room, prefix)
    assert {name for name, _ in entries} <= {"message"}
    return [payload for _, payload in entries]


def add(store: Store, room: str, *payloads: str | bytes) -> list[str]:
    """Add messages, as another program does; returns their IDs."""
    client: redis.Redis = store.client
    return [
        client.xadd(f"streamcast:{room}", {"message": payload}).decode()  # type: ignore[union-attr]
        for payload in payloads
    ]


def wait_until(moment: float) -> None:
    """Let time pass, for one who takes his time."""
    time.sleep(max(0.0, moment - time.monotonic()))
