"""The article's walkthrough, on real stores, with npm's ws."""

import os
import pty
import select
import subprocess
from pathlib import Path

import pytest

from tests.clients import NodeClient
from tests.stores import Store, eventually, lanes

NODE_MODULES = Path(__file__).parent / "node" / "node_modules"

pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and not NODE_MODULES.is_dir(), reason="npm's ws is not installed"
)


@pytest.fixture
def node_dialect(dialect: str) -> str:
    return {"plain": "", "json": "streamcast.v1"}[dialect]


def test_two_clients_two_servers_and_redis_cli(store: Store, serve, notifier: str) -> None:
    """What one types all see, the sender too; so do clients of another server; so is an XADD."""
    one = serve(store, "--prefix", "", "--default-room", "mystream")
    other = serve(store, "--prefix", "", "--default-room", "mystream")
    clients = [NodeClient(one.url), NodeClient(one.url), NodeClient(other.url)]
    eventually(lambda: store.lanes() == sorted(2 * lanes(notifier, 1)))
    clients[0].send("aaa")
    assert [client.text() for client in clients] == ["aaa"] * 3
    clients[2].send("bbb")
    assert [client.text() for client in clients] == ["bbb"] * 3
    store.client.xadd("mystream", {"aaa": "1234"})
    assert [client.text() for client in clients] == ["1234"] * 3
    for client in clients:
        client.close()


def test_a_stream_that_was_there_stays_whole(store: Store, serve, node_dialect: str) -> None:
    """With an empty prefix the streams may be somebody else's: never trimmed, never expired."""
    pipe = store.client.pipeline(transaction=False)
    for number in range(60_000):
        pipe.xadd("mystream", {"n": number})
    pipe.execute()
    server = serve(store, "--prefix", "", "--default-room", "mystream")
    client = NodeClient(server.url, node_dialect)
    if node_dialect:
        assert '"joined"' in client.text()
    for number in range(250):
        message = f"message {number}"
        if node_dialect:
            message = f'{{"type":"publish","room":"mystream","data":"{message}"}}'
        client.send(message)
    eventually(lambda: store.client.xlen("mystream") == 60_250)
    assert store.client.ttl("mystream") == -1
    client.close()


class Wscat:
    """npm's wscat, at a terminal, as a person uses it."""

    def __init__(self, url: str) -> None:
        self.terminal, theirs = pty.openpty()
        command = [str(NODE_MODULES / ".bin" / "wscat"), "--no-color", "-c", url]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.screen = ""
        self.shows("Connected")

    def shows(self, text: str) -> None:
        """Wait until it shows a text."""

        def seen() -> bool:
            if select.select([self.terminal], [], [], 0)[0]:
                self.screen += os.read(self.terminal, 4096).decode()
            return text in self.screen

        eventually(seen)

    def type(self, line: str) -> None:
        os.write(self.terminal, line.encode() + b"\r")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


def test_wscat(store: Store, serve) -> None:
    """The article's own walkthrough: two wscats, and an XADD."""
    server = serve(store, "--prefix", "", "--default-room", "mystream")
    wscats = [Wscat(server.url), Wscat(server.url)]
    wscats[0].type("aaa")
    for wscat in wscats:
        wscat.shows("< aaa")
    store.client.xadd("mystream", {"aaa": "1234"})
    for wscat in wscats:
        wscat.shows("< 1234")
        wscat.close()
