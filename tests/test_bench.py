"""The meter, against a server whose faults are known: the report shows exactly those."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from typer.testing import CliRunner

from streamcast.bench import knee
from streamcast.bench import run as leading
from streamcast.bench.load import Progress
from streamcast.bench.plan import Plan, broadcast, live
from streamcast.bench.reception import Faults as Wrong
from streamcast.bench.report import Report, make
from streamcast.bench.run import measure
from streamcast.bench.target import address_of
from streamcast.cli import benching
from streamcast.cli.app import app
from streamcast.config import LoadSettings, ReportSettings, TargetSettings
from tests.commands import Command
from tests.faulty import FINE, Fault, Faults, faulty_server
from tests.stores import Server, Store, eventually

pytestmark = pytest.mark.one_cell

SUBSCRIBERS = 4
MESSAGES = 100
DURATION = 0.25


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come is not waited for: it was lost on purpose."""
    monkeypatch.setattr(leading, "QUIET", 0.3)
    monkeypatch.setattr(leading, "START_IN", 0.1)


class Unseen:
    """Looks on, and keeps nothing."""

    def begin(self) -> None:
        pass

    def progress(self, seconds: float, progress: Sequence[Progress]) -> None:
        pass

    def end(self) -> None:
        pass


def report_of(plan: Plan, processes: int = 1) -> Report:
    measured = measure(plan, processes, Unseen())
    settings = {"size": plan.size, "listeners_per_message": max(plan.listeners.values())}
    return make(measured, settings, {}, None)


def bench(faults: Faults, *, processes: int = 1, size: int = 100) -> Report:
    """Broadcast 100 messages in a quarter of a second to four subscribers."""
    members = broadcast(
        "room",
        subscribers=SUBSCRIBERS,
        publishers=1,
        rate=MESSAGES / DURATION,
        duration=DURATION,
    )
    with faulty_server(faults) as url:
        return report_of(Plan(address_of(url), "plain", size, 0.0, DURATION, members), processes)


@pytest.mark.parametrize("processes", [1, 2])
def test_nothing_wrong(processes: int) -> None:
    report = bench(lambda _listener, _message: FINE, processes=processes)
    assert report.faults == Wrong()
    assert report.is_whole
    assert report.published == MESSAGES
    assert report.deliveries == report.latency.count == SUBSCRIBERS * MESSAGES
    assert report.last.count == MESSAGES
    assert len(report.load) == processes


@pytest.mark.parametrize("listener", [0, 2])
def test_lost(listener: int) -> None:
    """By the first subscriber, who leads, or by one that compares."""
    lost = {5, 50, 51, 99}
    report = bench(lambda who, what: Fault(times=who != listener or what not in lost))
    assert report.faults == Wrong(lost=len(lost))
    assert not report.is_whole
    assert report.deliveries == SUBSCRIBERS * MESSAGES - len(lost)
    assert report.last.count == MESSAGES - len(lost), "what one lost, the last never had"


def test_lost_by_all() -> None:
    report = bench(lambda _who, what: Fault(times=what != 30))
    assert report.faults == Wrong(lost=SUBSCRIBERS)


@pytest.mark.parametrize("listener", [0, 3])
def test_repeated(listener: int) -> None:
    report = bench(lambda who, what: Fault(times=3 if who == listener and what == 40 else 1))
    assert report.faults == Wrong(duplicate=2)
    assert report.deliveries == SUBSCRIBERS * MESSAGES


@pytest.mark.parametrize("listener", [0, 3])
def test_swapped_within_one_read(listener: int) -> None:
    report = bench(lambda who, what: Fault(swap=who == listener and what in {10, 60}))
    assert report.faults == Wrong(out_of_order=2)


def test_another_byte() -> None:
    """What comes is not what was published: it is unknown, and the one that was is lost."""
    report = bench(lambda who, what: Fault(other=who == 1 and what == 7))
    assert report.faults == Wrong(lost=1, unknown=1)


def test_everything_at_once_by_two_processes() -> None:
    def faults(who: int, what: int) -> Fault:
        if who == 0:
            return Fault(times=0 if what == 3 else 2 if what == 4 else 1)
        return Fault(swap=who == 3 and what == 9)

    report = bench(faults, processes=2)
    assert report.faults == Wrong(lost=1, duplicate=1, out_of_order=1)


def test_cut() -> None:
    report = bench(lambda who, what: Fault(cut=who == 2 and what == 60))
    assert report.disconnected == 1
    assert report.faults == Wrong(lost=40)


def test_all_are_cut() -> None:
    """There is nothing to wait for: the run ends, although its time is not over."""
    members = broadcast("room", subscribers=2, publishers=1, rate=100, duration=3600)
    with faulty_server(lambda _who, what: Fault(times=what != 10, end=what == 10)) as url:
        report = report_of(Plan(address_of(url), "plain", 100, 0.0, 3600, members))
    assert report.disconnected == 3
    assert report.deliveries == 2 * 10
    assert report.faults == Wrong(lost=2 * (report.published - 10))


def test_the_first_listener_is_cut() -> None:
    """With whom the others compared."""
    report = bench(lambda who, what: Fault(cut=who == 0 and what == 60))
    assert report.disconnected == 1
    assert report.faults == Wrong(lost=40)
    assert report.deliveries == SUBSCRIBERS * MESSAGES - 40


def test_a_delay_shows_as_what_it_is() -> None:
    """Of one listener: in the worst one's p99, and in the time until the last has a message."""
    report = bench(lambda who, _what: Fault(delay=0.2 if who == 1 else 0.0))
    assert report.is_whole
    assert report.latency.percentiles["p50"] < 200
    assert report.latency.percentiles["p90"] >= 200
    assert report.last.percentiles["p50"] >= 200
    assert report.worst >= 200
    # No more than what was late on its way, which some were hardly.
    assert min(time for time, _ in report.buckets if time >= 200) < 250
    assert min(time for time, _ in report.buckets) < 50


def test_a_stall_is_not_hidden() -> None:
    """What was due while the server stood still is late, each by what was left of the stall."""
    report = bench(lambda who, what: Fault(stall=0.2 if who == 0 and what == 30 else 0.0))
    late = sum(count for time, count in report.buckets if time >= 100)
    assert late >= 0.35 * MESSAGES * SUBSCRIBERS, "40 of 100 were due in its first 100 ms"


def test_large_messages() -> None:
    report = bench(lambda _who, _what: FINE, size=70_000)
    assert report.is_whole
    assert report.deliveries == SUBSCRIBERS * MESSAGES


@pytest.mark.parametrize("dialect", ["json", "plain"])
@pytest.mark.parametrize("processes", [1, 2])
def test_rooms_of_a_real_server(any_server: Server, dialect: str, processes: int) -> None:
    members = live(f"{dialect}-{processes}", rooms=10, players=5, rate=16, duration=DURATION)
    plan = Plan(address_of(any_server.url), dialect, 100, 0.0, DURATION, members)
    report = report_of(plan, processes)
    assert report.is_whole
    assert report.deliveries == 5 * report.published
    assert report.published == sum(each.schedule.count for each in members if each.schedule)


# The command


def command(*options: str) -> subprocess.CompletedProcess[str]:
    short = ["--duration", "300ms", "--warmup", "100ms", "--subscribers", "3"]
    return subprocess.run(
        [sys.executable, "-m", "streamcast", "bench", *short, *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_needs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    ended = command("--json", str(file))
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert "0 lost" in ended.stdout
    report = json.loads(file.read_text())
    assert report["deliveries"] == 3 * 30
    assert report["server"]["memory_bytes"] > 0


def test_loss_fails_the_command() -> None:
    with faulty_server(lambda who, what: Fault(times=who != 1 or what != 3)) as url:
        plain = ["--url", url, "--dialect", "plain"]
        ended = command(*plain)
        assert ended.returncode == 1
        assert "1 lost" in ended.stdout
        ended = command(*plain, "--allow-loss", "--fail-if", "lost>0", "--fail-if", "p99<1us")
        assert ended.returncode == 99
        assert ended.stderr == "lost>0: it is 1.\n"


def test_loss_may_be_allowed() -> None:
    """Without a process: what a run that lost something exits with."""
    lossy = Wrong(lost=1)
    report = replace(bench(lambda _who, _what: FINE), faults=lossy)
    load, target = LoadSettings(), TargetSettings(url="ws://127.0.0.1:1")
    for allow, code in ((False, 1), (True, 0)):
        with mock.patch.object(benching, "_measure", return_value=report):
            assert benching.run(load, target, ReportSettings(json="-", allow_loss=allow)) == code


def test_ctrl_c_reports_what_there_is(any_store: Store, tmp_path: Path) -> None:
    any_store.empty()
    file = tmp_path / "report.json"
    place = ["--redis", any_store.url, "--json", str(file)]
    options = ["--subscribers", "3", "--duration", "1h", "--warmup", "0s", *place]
    with Command("bench", *options) as running:
        eventually(lambda: any(any_store.client.xlen(key) > 20 for key in streams(any_store)))
        running.interrupt()
        assert running.ended() == 130
        assert "Interrupted: this is what there was so far." in running.rest().decode()
        assert running.told() == ""
    report = json.loads(file.read_text())
    assert report["interrupted"]
    assert report["deliveries"] >= 3 * 20
    assert set(report["faults"].values()) == {0}


def streams(store: Store) -> list[bytes]:
    return [key for key in store.client.keys("*") if store.client.type(key) == b"stream"]


def test_straight_to_stdout_is_nothing_but_json(any_store: Store) -> None:
    ended = command("--json", "-", "--redis", any_store.url)
    assert json.loads(ended.stdout)["faults"]["lost"] == 0


# Other profiles


@pytest.mark.parametrize("messages", [2 * MESSAGES, 1])
def test_a_storm(any_server: Server, messages: int) -> None:
    """All who listen are cut off at one moment, and come back: nothing is missed.

    Where nothing is published meanwhile, nothing more is to be waited for.
    """
    rate = messages / (2 * DURATION)
    members = broadcast(
        f"storm-{messages}", subscribers=20, publishers=1, rate=rate, duration=2 * DURATION
    )
    plan = Plan(
        address_of(any_server.url), "json", 100, 0.0, 2 * DURATION, members, cut_at=DURATION
    )
    report = report_of(plan, 2)
    assert report.is_whole
    assert report.published == messages
    assert report.deliveries == 20 * report.published
    assert report.caught_up is not None
    assert report.caught_up.count == 20
    assert report.behind == 0


def test_the_command_knows_all_profiles(any_store: Store) -> None:
    """A storm asks the store for few reads, whoever comes back; idle measures its whole time."""
    place = ["--redis", any_store.url, "--json", "-"]
    storm = json.loads(command("--profile", "storm", "--duration", "1s", *place).stdout)
    assert storm["caught_up_ms"]["count"] == 3
    assert 0 < storm["store_reads"] < 3 * storm["published"]
    idle = json.loads(command("--profile", "idle", "--connections", "50", *place).stdout)
    assert idle["deliveries"] == 0
    assert idle["connections_per_s"] > 0
    assert idle["seconds"] == 0.3
    live = json.loads(command("--profile", "live", "--rooms", "2", "--rate", "10", *place).stdout)
    assert live["settings"]["connections"] == 10
    assert live["deliveries"] == 5 * 10 * 3


def test_the_highest_rate(
    any_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bound that never breaks would be raised for ever; one that always does is told so."""
    monkeypatch.setattr(knee, "STEPS", 1)
    html = tmp_path / "report.html"
    options = ["--find-max", "p50<1us", "--html", str(html), "--duration", "200ms"]
    ended = CliRunner().invoke(app, ["bench", "--url", any_server.url, "--warmup", "0s", *options])
    assert ended.exit_code == 0
    assert "100/s: p50" in ended.stderr
    assert "50/s: p50" in ended.stderr
    assert "p50<1us holds up to 0 messages a second." in ended.stderr
    page = html.read_text()
    assert page.startswith("<!doctype html>")
    assert "rate 50.0" in page, "where it never holds, the lowest rate is told of"


def test_a_server_that_is_full(run: Callable[..., Server], any_store: Store) -> None:
    server = run("--redis", any_store.url, "--max-connections", "2")
    ended = command("--url", server.url)
    assert ended.returncode == 1
    assert ended.stderr == ("The server closed a connection at once: 1013 this server is full.\n")


def test_wrong_usage() -> None:
    for options in (
        ["--url", "ws://127.0.0.1:1", "--redis", "redis://127.0.0.1:1"],
        ["--url", "wss://127.0.0.1:1"],
        ["--fail-if", "p98>1ms"],
        ["--size", "10B"],
        ["--profile", "storm", "--dialect", "plain"],
        ["--profile", "idle", "--find-max", "p99<1ms"],
        ["--find-max", "p99>1ms"],
    ):
        assert CliRunner().invoke(app, ["bench", *options]).exit_code == 2, options
    ended = command("--url", "ws://127.0.0.1:1")
    assert (ended.returncode, ended.stderr) == (
        1,
        "127.0.0.1:1 can't be reached: Connection refused.\n",
    )
