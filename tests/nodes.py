"""What clusters, and primaries with replicas, are made of: stores with a file of settings.

They write to that file themselves, so that a node which is started again is what it was last.
"""

import random
import signal
import socket
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.stores import Store, eventually

PORTS = range(20_000, 32_000)
"""Below those that the kernel gives away, or a node's could be taken while it is down."""

# By default a primary waits 5 s before it sends all it has, and 1 s where another was served just
# now; and what it sends is looked at once a second.
SYNC_AT_ONCE = ["repl-diskless-sync no", "repl-diskless-load on-empty-db"]


class Node(Store):
    """A store that is told its settings in a file; `port` is where others find it."""

    def __init__(
        self, program: str, *lines: str, port: int, password: str = "", sentinel: bool = False
    ) -> None:
        super().__init__(program, port=port)
        file = self.folder / "settings"
        own = [f"unixsocket {self.path}", f"dir {self.folder}", 'save ""', "loglevel notice"]
        if password:
            own += [f"requirepass {password}"]
            own += [] if sentinel else [f"masterauth {password}"]
        file.write_text("\n".join([*own, *lines, ""]))
        self._command = [program, str(file), *(["--sentinel"] if sentinel else [])]
        self.password = password
        self.client: Any = redis.Redis(
            unix_socket_path=str(self.path),
            password=password or None,
            protocol=3,
            retry=Retry(NoBackoff(), 0),
        )

    def __repr__(self) -> str:
        return f"<node {self.port}>"

    @property
    def role(self) -> str:
        """What it believes to be: master, slave or sentinel."""
        role: bytes = self.client.execute_command("ROLE")[0]
        return role.decode()

    @property
    def can_answer(self) -> bool:
        return self._process is not None and not self.is_stopped()

    def pause(self) -> None:
        """Hold it still; it answers nobody, and closes nothing."""
        self.signal(signal.SIGSTOP)
        eventually(self.is_stopped)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
