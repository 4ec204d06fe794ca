"""`serve` without `--redis`: a store of its own, of which nothing is left however it ends."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from streamcast.errors import StartError
from streamcast.streams import embedded
from tests.clients import Client
from tests.stores import Server, eventually
from tests.test_serve import can_not_start, run_serve


class Embedded(Server):
    """A server with an embedded store; `folder` is the store's temporary one."""

    def __init__(self, *options: str, **more: Any) -> None:
        super().__init__(*options, **more)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        self.path = line.removeprefix("Rooms are in an embedded Valkey: redis-cli -s ")
        self.folder = Path(self.path).parent
        self.client: Any = redis.Redis(unix_socket_path=self.path)

    def store_process(self) -> int:
        """The Valkey's process ID; 0 while it does not run."""
        return process_of(lambda words: words[0].endswith(f"unixsocket:{self.path}"))

    def guardian_process(self) -> int:
        return process_of(lambda words: "guardian.py" in words[3:4][0] and self.path in words)

    def is_gone(self) -> bool:
        """Whether neither process nor file is left of it."""
        here = str(self.folder)
        mentions = process_of(lambda words: any(here in word for word in words))
        return self.process.poll() is not None and not mentions and not self.folder.exists()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.client.close()
        if not self._logged.closed:
            self.stop()


def process_of(condition: Callable[[list[str]], bool]) -> int:
    """The first process whose command line is so; 0 if there is none."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            words = (
                (entry / "cmdline").read_bytes().decode().split("\0") if is_process(entry) else []
            )
            if len(words) > 1 and condition(words):
                return int(entry.name)
    return 0


def is_process(entry: Path) -> bool:
    return entry.name.isdecimal() and int(entry.name) != os.getpid()


@pytest.fixture
def start() -> Iterator[Callable[..., Embedded]]:
    started: list[Embedded] = []

    def make(*options: str, **more: Any) -> Embedded:
        started.append(Embedded(*options, **more))
        return started[-1]

    yield make
    for server in started:
        server.close()


def publish(client: Client, data: str) -> str:
    """Publish to `live`; returns the ID that it is stored under."""
    ack = client.ask(type="publish", room="live", data=data)
    assert ack["type"] == "ack", ack
    id_: str = ack["id"]
    return id_


@pytest.mark.skipif(
    not os.environ.get("CI") and not shutil.which("redis-cli"), reason="redis-cli is not installed"
)
def test_it_needs_nothing_and_its_socket_is_told(start: Callable[..., Embedded]) -> None:
    server = start()
    with Client(f"{server.url}/rooms/live") as client:
        assert client.told()["type"] == "joined"
        said = subprocess.run(
            ["redis-cli", "-s", server.path, "XADD", "streamcast:live", "*", "message", "hi"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert client.told()["id"] == said.stdout.strip()
    listening = json.loads(server.logged().splitlines()[0])
    assert listening["store"] == server.path
    mode = server.folder.stat().st_mode & 0o777
    assert mode == 0o700


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_leaves_nothing(
    start: Callable[..., Embedded], number: signal.Signals, tmp_path: Path
) -> None:
    for options in ([], ["--data", str(tmp_path)]):
        server = start(*options)
        with Client(f"{server.url}/rooms") as client:
            publish(client, "a")
        server.signal(number)
        assert server.ended()[0] == 0
        assert server.is_gone()


def test_ctrl_c_in_a_terminal(tmp_path: Path) -> None:
    """The terminal tells every process in its foreground; the store is none of them."""
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "streamcast", "serve", "--port", "0"]
    script = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    screen = ""

    def shows(text: str) -> bool:
        nonlocal screen
        screen += os.read(terminal, 4096).decode()
        return text in screen

    eventually(lambda: shows("valkey.sock"))
    url = screen.partition("Listening on ")[2].split()[0]
    folder = Path(screen.partition("redis-cli -s ")[2].split()[0]).parent
    with Client(f"{url}/rooms") as client:
        publish(client, "a")
        os.write(terminal, b"\x03")
        assert client.closed() == 1012
    assert process.wait(timeout=10) == 0
    assert not folder.exists()
    os.close(terminal)


def test_a_signal_to_all_processes_at_once(start: Callable[..., Embedded]) -> None:
    """As service managers send it: what was published is acknowledged all the same."""
    server = start()
    client = Client(f"{server.url}/rooms")
    publish(client, "first")
    processes = [server.process.pid, server.guardian_process(), server.store_process()]
    assert all(processes)
    os.kill(processes[2], signal.SIGSTOP)
    client.send('{"type":"publish","room":"live","data":"late","ref":1}')
    eventually(lambda: server.statistics()["unacknowledged"] > 0)
    for process in processes:
        os.kill(process, signal.SIGTERM)
    os.kill(processes[2], signal.SIGCONT)
    assert client.until(lambda told: told.get("ref") == 1)["type"] == "ack"
    assert client.closed() == 1012
    assert server.ended()[0] == 0
    assert server.is_gone()


def test_a_killed_server_leaves_nothing(start: Callable[..., Embedded]) -> None:
    server = start()
    assert server.store_process()
    server.kill()
    eventually(server.is_gone)


def test_a_server_killed_while_its_store_stands_still(start: Callable[..., Embedded]) -> None:
    server = start()
    os.kill(server.store_process(), signal.SIGSTOP)
    server.kill()
    eventually(server.is_gone, within=20)


@pytest.mark.parametrize("victim", ["guardian", "store"])
@pytest.mark.parametrize("kept", [False, True])
def test_a_killed_store_is_started_again(
    start: Callable[..., Embedded], tmp_path: Path, victim: str, *, kept: bool
) -> None:
    """With `--data` as it was; without, empty, and everybody is told."""
    server = start(*(["--data", str(tmp_path)] if kept else []))
    client = Client(f"{server.url}/rooms/live")
    client.told()
    first = publish(client, "first")
    assert client.told()["id"] == first
    before = server.store_process()
    os.kill(before if victim == "store" else server.guardian_process(), signal.SIGKILL)
    eventually(lambda: server.store_process() not in {0, before})
    eventually(lambda: server.logged().count('"store back", "lane"') == 1)
    if not kept:
        gap = client.told()
        assert (gap["type"], gap["after"], gap["earliest"]) == ("gap", first, None)
    second = publish(client, "second")
    message = client.until(lambda told: told["type"] != "ack")
    assert (message["type"], message["id"]) == ("message", second)
    stored = [id_.decode() for id_, _ in server.client.xrange("streamcast:live")]
    assert stored == ([first, second] if kept else [second])
    ended = [line for line in server.logged().splitlines() if "embedded store ended" in line]
    assert len(ended) == 1
    assert server.stop()[0] == 0
    assert server.is_gone()


def test_a_server_killed_while_its_store_is_down_leaves_nothing(
    start: Callable[..., Embedded],
) -> None:
    server = start()
    os.kill(server.store_process(), signal.SIGKILL)
    server.kill()
    eventually(server.is_gone)


def test_a_store_comes_back_though_its_folder_was_removed(
    start: Callable[..., Embedded], tmp_path: Path
) -> None:
    """As those who tidy up temporary folders do."""
    server = start("--data", str(tmp_path))
    with Client(f"{server.url}/rooms") as client:
        id_ = publish(client, "a")
        shutil.rmtree(server.folder)
        os.kill(server.store_process(), signal.SIGKILL)
        eventually(lambda: server.logged().count('"store back", "lane"') == 1)
        client.ask(type="join", room="live", after="0")
        assert client.told()["id"] == id_


def test_what_it_keeps_is_for_its_user_alone(
    start: Callable[..., Embedded], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with Client(f"{start('--data', str(data)).url}/rooms") as client:
        publish(client, "a")
    kept = [data, *data.rglob("*")]
    assert len(kept) > 3
    assert not any(path.stat().st_mode & 0o077 for path in kept)


def test_what_was_acknowledged_survives_the_end_of_everything(
    start: Callable[..., Embedded], tmp_path: Path
) -> None:
    data = str(tmp_path / "new" / "folder")
    server = start("--data", data)
    client = Client(f"{server.url}/rooms")
    for number in range(3000):
        client.send(json.dumps({"type": "publish", "room": "live", "data": str(number), "ref": 1}))
    acked = [client.told()["id"] for _ in range(500)]
    processes = [server.process.pid, server.guardian_process(), server.store_process()]
    for process in processes:
        os.kill(process, signal.SIGKILL)
    with suppress(Exception):
        while True:
            acked.append(client.told()["id"])
    server.process.wait()
    again = start("--data", data)
    with Client(f"{again.url}/rooms") as client:
        assert client.ask(type="join", room="live", after="0")["type"] == "joined"
        stored = [client.told() for _ in range(again.client.xlen("streamcast:live"))]
    ids = [told["id"] for told in stored]
    assert ids == sorted(ids, key=lambda id_: tuple(map(int, id_.split("-"))))
    assert set(acked) <= set(ids)
    assert 500 <= len(acked) <= 3000
    # Nobody was left who could have removed it.
    assert server.folder.exists()
    (server.folder / "log").unlink()
    (server.folder / "valkey.sock").unlink()
    server.folder.rmdir()


def test_a_folder_has_one_server(start: Callable[..., Embedded], tmp_path: Path) -> None:
    server = start("--data", str(tmp_path))
    can_not_start(
        run_serve("--data", str(tmp_path)), str(tmp_path), "in use", str(server.process.pid)
    )
    with Client(f"{server.url}/rooms") as client:
        publish(client, "unharmed")


def test_a_server_that_comes_right_after_a_killed_one(
    start: Callable[..., Embedded], tmp_path: Path
) -> None:
    """It waits for the store to end instead of refusing to start."""
    server = start("--data", str(tmp_path))
    with Client(f"{server.url}/rooms") as client:
        id_ = publish(client, "a")
    store = server.store_process()
    os.kill(store, signal.SIGSTOP)
    server.kill()
    waking = subprocess.Popen(["sh", "-c", f"sleep 1; kill -CONT {store}"])
    again = start("--data", str(tmp_path))
    assert waking.poll() is not None, "the folder was free before the store had ended"
    with Client(f"{again.url}/rooms") as client:
        client.ask(type="join", room="live", after="0")
        assert client.told()["id"] == id_


def test_folders_that_can_not_be_used(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    can_not_start(run_serve("--data", str(file)), str(file))
    can_not_start(run_serve("--data", str(tmp_path), "--redis", "redis://x"), "--data", "--redis")
    broken = tmp_path / "broken"
    (broken / "appendonlydir").mkdir(parents=True)
    (broken / "appendonlydir" / "appendonly.aof.manifest").write_text("rubbish\n")
    can_not_start(run_serve("--data", str(broken)), "embedded store", "manifest")


def test_a_long_temporary_folder(start: Callable[..., Embedded], tmp_path: Path) -> None:
    """A unix socket's path is short; there is always /tmp."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    server = start(environment={"TMPDIR": str(long)})
    with Client(f"{server.url}/rooms") as client:
        publish(client, "a")
    assert list(long.iterdir()) == []


def test_no_wheel_for_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StartError, match="pass --redis"):
        embedded.find_program()
