"""Every command and the program in the README do what it says, as they stand there."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.restarts import free_port
from tests.stores import Store
from tests.test_walkthrough import NODE_MODULES, Wscat

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PATIENCE = 20

pytestmark = [
    pytest.mark.one_cell,
    pytest.mark.skipif(
        not os.environ.get("CI")
        and not (NODE_MODULES.is_dir() and shutil.which("redis-cli") is not None),
        reason="npm's wscat or redis-cli is not installed",
    ),
]


def blocks(section: str, language: str) -> list[str]:
    """The blocks of a language in a section."""
    text = README.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(section: str) -> list[str]:
    return [line for block in blocks(section, "sh") for line in block.splitlines()]


class Reader:
    """One who follows the README; ports and paths are those of this run."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.port = free_port()
        self.socket = ""
        self._running: list[subprocess.Popen[str]] = []

    @property
    def _environment(self) -> dict[str, str]:
        url = f"ws://127.0.0.1:{self.port}"
        return os.environ | {"STREAMCAST_PORT": str(self.port), "STREAMCAST_URL": url}

    def here(self, text: str) -> str:
        for there, here in (
            ("/tmp/streamcast-…/valkey.sock", self.socket),
            ("-p 6379", f"-s {self.store.path}"),
            ("redis://127.0.0.1:6379", self.store.url),
            ("scripts/streamcast", f"{sys.executable} -m streamcast"),
            ("localhost:8080", f"127.0.0.1:{self.port}"),
            ("127.0.0.1:8080", f"127.0.0.1:{self.port}"),
        ):
            text = text.replace(there, here)
        return text

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start what goes on until it is stopped."""
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {self.here(command)}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            cwd=ROOT,
            env=self._environment,
        )
        self._running.append(process)
        return process

    def serve(self, command: str) -> None:
        server = self.start(command)
        assert line_of(server).startswith("Listening on ws://127.0.0.1:")
        if "--redis" not in command:
            self.socket = line_of(server).rpartition(" ")[2].strip()

    def run(self, command: str) -> str:
        """Run what ends by itself, well; returns what it printed."""
        ended = subprocess.run(
            ["/bin/sh", "-c", self.here(command)],
            capture_output=True,
            text=True,
            errors="replace",
            cwd=ROOT,
            env=self._environment,
            timeout=PATIENCE,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        return ended.stdout

    def stop(self) -> None:
        for process in self._running:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def reader(any_store: Store) -> Iterator[Reader]:
    any_store.empty()
    following = Reader(any_store)
    yield following
    following.stop()


def test_start(reader: Reader) -> None:
    serve, tail, publish, wscat, add = commands("Start")
    reader.serve(serve)
    said = reader.start(f"{tail} --last 1")  # that it has joined shows by what it finds
    reader.run(publish)
    assert line_of(said) == "hello\n"
    one = Wscat(reader.here(wscat.removeprefix("npx wscat -c ")))
    one.type("from wscat")
    assert line_of(said) == "from wscat\n"
    reader.run(add)
    assert line_of(said) == "hello from redis-cli\n"
    one.shows("< hello from redis-cli")
    one.close()


def test_on_a_real_redis(reader: Reader) -> None:
    serve, add, relay, add_foreign = commands("On a real Redis")
    reader.serve(serve)
    reader.run(add)
    assert reader.run("scripts/streamcast tail live --all --wait 0.2s") == "hello from redis-cli\n"
    reader.stop()
    reader.serve(relay)
    client = Wscat(reader.here("ws://localhost:8080"))
    reader.run(add_foreign)
    client.shows("< 1234")
    client.close()


def test_commands(reader: Reader) -> None:
    reader.serve("scripts/streamcast serve --redis redis://127.0.0.1:6379")
    hello, lines, whole, ticks, binary, tail, all_kept, newest, *_benches = commands("Commands")
    assert re.fullmatch(r"\d+-\d+\n", reader.run(hello))
    assert reader.run(lines) == ""
    assert json.loads(reader.run(whole))["type"] == "ack"
    assert len(reader.run(ticks).splitlines()) == 3
    newest_ids = [json.loads(line)["id"] for line in reader.run(newest).splitlines()]
    assert len(newest_ids) == 3
    assert reader.run(all_kept) == ""
    assert re.fullmatch(r"\d+-\d+\n", reader.run(binary))
    following = reader.start(tail)
    assert len([line_of(following) for _ in range(10)]) == 10


def test_bench(reader: Reader, tmp_path: Path) -> None:
    plain, page, checked = commands("Commands")[-3:]
    assert plain == "scripts/streamcast bench"
    short = f"--duration 0.5s --warmup 0.1s --redis {reader.store.url}"
    assert "0 lost" in reader.run(f"{plain} {short}")
    html, report = tmp_path / "report.html", tmp_path / "report.json"
    reader.run(f"{page.replace('report.html', str(html))} {short}")
    assert html.read_text().startswith("<!doctype html>")
    reader.run(f"{checked.replace('report.json', str(report))} {short}")
    told = json.loads(report.read_text())
    section = README.partition("## The bench's JSON")[2].partition("\n## ")[0]
    assert set(told) == set(re.findall(r"`([a-z0-9_]+)`", section)) & set(told)
    assert told["schema"] == 1


def test_the_client(reader: Reader, tmp_path: Path) -> None:
    reader.serve("scripts/streamcast serve --redis redis://127.0.0.1:6379")
    [example] = blocks("The Python client", "python")
    program = tmp_path / "example.py"
    program.write_text(reader.here(example))
    running = reader.start(f"{sys.executable} -u {program}")
    id = line_of(running).removeprefix("stored as ").strip()
    assert line_of(running) == f"{id} hello from Python\n"
    reader.run("scripts/streamcast publish live next")
    assert line_of(running).endswith(" next\n")
    subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(program)], check=True, cwd=ROOT, timeout=60
    )


def test_nothing_else_is_in_it() -> None:
    """Each block that can be run is in a section that is tried here; `scripts/test` is this.

    `scripts/faults` plays what tests/faults plays once.
    """
    sections = re.findall(r"^## (.*)$", README, re.MULTILINE)
    tried = {"Start", "On a real Redis", "Commands", "The Python client", "How fast"}
    assert commands("How fast") == ["scripts/compare"]
    found = {name for name in sections if blocks(name, "sh") or blocks(name, "python")}
    assert found == tried | {"Develop"}
    developing = [line.split("#")[0].strip() for line in commands("Develop")]
    assert developing == ["scripts/test", "scripts/faults --minutes 30"]
