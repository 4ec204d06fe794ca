"""The server under load: one that runs already, or one of the bench's own and what that uses."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

import psutil
import redis

from streamcast.bench.sockets import Address
from streamcast.errors import BadUrl, StreamcastError

READS = ("xread", "xrange", "xrevrange")
STOP_WITHIN = 15.0
"""Seconds in which it has to end in order."""


def address_of(url: str) -> Address:
    """Return where a URL `ws://host:port` leads. Raises BadUrl."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if host is None or parts.scheme != "ws" or parts.path.rstrip("/") or parts.query:
        raise BadUrl(f"{url!r} is not a URL for a load; write one like ws://127.0.0.1:8080.")
    return Address(host, port)


@dataclass(frozen=True, slots=True)
class Use:
    """What a process had used at a moment: seconds of CPU in all, bytes of memory just then."""

    cpu: float
    memory: int


class OwnServer:
    """`streamcast serve` on a free port; `url` is where."""

    def __init__(self, process: "subprocess.Popen[str]", url: str, store: str) -> None:
        self.url = url
        self._process = psutil.Process(process.pid)
        self._store: Any = redis.Redis.from_url(store)

    def store_reads(self) -> int | None:
        """Return how many reads of streams the store has answered so far, as it counts them.

        None: it does not say.
        """
        try:
            told: dict[str, dict[str, int]] = self._store.info("commandstats")
        except redis.RedisError:
            return None
        return sum(told.get(f"cmdstat_{name}", {}).get("calls", 0) for name in READS)

    def use(self) -> Use:
        """Return what it has used so far. Its embedded store is not counted."""
        with self._process.oneshot():
            times = self._process.cpu_times()
            return Use(times.user + times.system, self._process.memory_info().rss)


@contextmanager
def own_server(store: str | None) -> Iterator[OwnServer]:
    """Start a server, and stop it at the end. Raises StreamcastError in the server's own words."""
    command = [sys.executable, "-m", "streamcast", "serve", "--port", "0"]
    command += ["--max-connections", "1000000", "--log-level", "warning", "--log-format", "text"]
    command += ["--redis", store] if store is not None else []
    with TemporaryFile("w+") as said:
        # In a session of its own: Ctrl-C is for the bench, which stops it when it has its figures.
        process = subprocess.Popen(  # noqa: S603 - our own program
            command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("Listening on "):
                process.wait()
                said.seek(0)
                raise StreamcastError(said.read().strip() or "The server ended at once.")
            url = line.removeprefix("Listening on ").strip()
            if store is None:
                store = f"unix://{process.stdout.readline().rpartition(' ')[2].strip()}"
            yield OwnServer(process, url, store)
        finally:
            process.terminate()
            try:
                process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
