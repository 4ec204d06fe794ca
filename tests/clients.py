"""Clients that we did not write: websockets' for Python, npm's ws for Node."""

import json
import queue
import subprocess
import threading
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

from tests.stores import node

PATIENCE = 8.0
JSON = "streamcast.v1"


class Client:
    """A blocking client; `protocol` is what it offers."""

    def __init__(self, url: str, protocol: str | None = JSON, **more: Any) -> None:
        offered: Any = None if protocol is None else [protocol]
        more.setdefault("max_size", None)
        opening = connect(url, subprotocols=offered, compression=None, proxy=None, **more)
        self.socket: ClientConnection = opening.__enter__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: str | bytes) -> None:
        self.socket.send(data)

    def receive(self, timeout: float = PATIENCE) -> str | bytes:
        return self.socket.recv(timeout=timeout)

    def request(self, request: dict[str, Any]) -> None:
        self.send(json.dumps(request))

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request; return the reply, which carries its ref."""
        request["ref"] = ref = str(id(request))
        self.send(json.dumps(request))
        return self.until(lambda told: told.get("ref") == ref)

    def told(self, timeout: float = PATIENCE) -> dict[str, Any]:
        received: dict[str, Any] = json.loads(self.receive(timeout))
        return received

    def until(self, condition: Any) -> dict[str, Any]:
        """Return the first object for which a condition holds; others are passed over."""
        while not condition(told := self.told()):
            pass
        return told

    def data(self, count: int) -> list[str]:
        """Return the data of the next messages, which nothing else may interrupt."""
        told = [self.told() for _ in range(count)]
        assert {each["type"] for each in told} <= {"message"}, told
        return [each["data"] for each in told]

    def silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for a while."""
        try:
            self.receive(seconds)
        except TimeoutError:
            return True
        return False

    def closed(self) -> int:
        """Wait until the server closes; returns the code."""
        try:
            while True:
                self.receive()
        except TimeoutError:
            raise
        except Exception:  # noqa: BLE001 - any way of ending is told by the code
            code = self.socket.close_code
            assert code is not None
            return code


class NodeClient:
    """npm's ws as a process of its own; what it tells comes as objects."""

    def __init__(self, url: str, subprotocol: str = "") -> None:
        self.process = subprocess.Popen(
            [*node("client.mjs"), url, *([subprotocol] if subprotocol else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._told: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        assert self.told() == {"open": subprotocol}

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._told.put(json.loads(line))

    def told(self) -> dict[str, Any]:
        return self._told.get(timeout=PATIENCE)

    def text(self) -> str:
        text: str = self.told()["text"]
        return text

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=PATIENCE)
        self.process.stdout.close()
