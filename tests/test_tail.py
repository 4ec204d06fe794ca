"""`streamcast tail`."""

import fcntl
import json
import re
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from streamcast.cli.app import app
from tests.clients import Client
from tests.commands import AtTerminal, Command, add, finish, in_bash, wait_until
from tests.stores import Server, Store, eventually

pytestmark = pytest.mark.one_cell

DEAD = "ws://127.0.0.1:1"
LIMIT = 64 * 1024
BIG = 50_000


@pytest.fixture
def room() -> str:
    return f"room-{uuid4().hex}"


def objects(printed: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


def bodies(command: Command, count: int) -> list[Any]:
    return [json.loads(line)["data"] for line in command.lines(count)]


# What is printed


def test_prints_exactly_what_is_published_through_a_crash_of_the_server(
    run: Callable[..., Server], any_store: Store, room: str
) -> None:
    """Each loss and each return of the connection is told once."""
    lines = [b"%d" % number for number in range(5000)]
    server = run("--redis", any_store.url, "--history", "0")
    place = ["--url", server.url]
    with (
        Command("tail", room, "--all", "--count", str(len(lines)), *place) as tail,
        Command("publish", room, "--lines", "--quiet", *place) as publish,
    ):
        publish.write(b"".join(line + b"\n" for line in lines[:2500]))
        printed = tail.lines(500)
        server.process.kill()
        server.process.wait()
        eventually(lambda: "Interrupted" in tail.told())
        run("--redis", any_store.url, "--history", "0", "--port", str(server.port))
        publish.write(b"".join(line + b"\n" for line in lines[2500:]))
        publish.end_input()
        assert publish.ended() == 0, publish.told()
        printed += tail.rest().splitlines()
        assert tail.ended() == 0
        told = tail.told().splitlines()
    assert printed == lines
    assert [line.partition(":")[0] for line in told] == ["Interrupted", "Connected again to ws"]


def test_only_what_is_new(any_server: Server, any_store: Store, room: str) -> None:
    add(any_store, room, "old")
    with Command("tail", room, "--url", any_server.url, "--count", "1") as tail:
        # When it has joined nobody tells.
        while tail.process.poll() is None:
            add(any_store, room, "new")
            time.sleep(0.05)
        assert tail.rest() == b"new\n"


def test_where_it_begins(any_server: Server, any_store: Store, room: str) -> None:
    first, *_ = add(any_store, room, "a", "b", "c")
    place = ["--wait", "300ms", "--url", any_server.url]
    with (
        Command("tail", room, "--last", "0", *place) as none,
        Command("tail", room, "--last", "2", *place) as last,
        Command("tail", room, "--last", "99", *place) as more,
        Command("tail", room, "--after", first, *place) as after,
        Command("tail", room, "--after", "0", *place) as zero,
        Command("tail", room, "--all", *place) as all_,
    ):
        assert none.rest() == b""
        assert last.rest() == after.rest() == b"b\nc\n"
        assert more.rest() == zero.rest() == all_.rest() == b"a\nb\nc\n"
        for command in (none, last, more, after, zero, all_):
            assert command.ended() == 0
            assert command.told() == ""


def test_payloads_are_printed_as_they_are(any_server: Server, any_store: Store, room: str) -> None:
    add(any_store, room, "", "\x1b[31mred\r", "grüße")
    any_store.client.xadd(f"streamcast:{room}", {"binary": b"\x00\xff\n"})
    ended = finish("tail", room, "--all", "--count", "4", "--url", any_server.url)
    assert ended.returncode == 0
    assert ended.stdout == b"\n\x1b[31mred\r\n" + "grüße\n".encode() + b"\x00\xff\n\n"


def test_an_object_a_line(any_server: Server, any_store: Store, room: str) -> None:
    """Messages, what another program added, what is too big; the last is told on stderr too."""
    key = f"streamcast:{room}"
    [id] = add(any_store, room, "hello")
    any_store.client.xadd(key, {"binary": b"\xff", "meta": "m"})
    any_store.client.xadd(key, {"temperature": "21", "raw": b"\xfe"})
    skipped = any_store.client.xadd(key, {"message": bytes(LIMIT + 1)}).decode()
    add(any_store, room, "\x9b\u202e\n")
    ended = finish("tail", room, "--all", "--json", "--count", "4", "--url", any_server.url)
    assert ended.returncode == 0
    hello, binary, foreign, too_big, controls = objects(ended.stdout)
    assert hello["time"].endswith("Z")
    hello.pop("time")
    assert hello == {"type": "message", "room": room, "id": id, "data": "hello"}
    assert (binary["data"], binary["encoding"], binary["meta"]) == ("/w==", "base64", "m")
    assert foreign["fields"] == {"temperature": "21", "raw": {"data": "/g==", "encoding": "base64"}}
    assert (too_big["type"], too_big["id"]) == ("skipped", skipped)
    assert too_big["size"] == LIMIT + 1
    assert controls["data"] == "\x9b\u202e\n"
    assert not re.search("[\x7f-\x9f\u202e]", ended.stdout.decode())
    [told] = ended.stderr.decode().splitlines()
    assert skipped in told
    assert "left out" in told


def test_several_rooms(any_server: Server, any_store: Store, room: str) -> None:
    rooms = [f"{room}-{name}" for name in "ab"]
    for name in rooms:
        add(any_store, name, f"old in {name}")
    options = ["--all", "--json", "--count", "4", "--url", any_server.url]
    with Command("tail", *rooms, rooms[0], *options) as tail:
        told = objects(b"\n".join(tail.lines(2)))
        for name in rooms:
            add(any_store, name, f"new in {name}")
        told += objects(tail.rest())
        assert tail.ended() == 0
    for name in rooms:
        data = [each["data"] for each in told if each["room"] == name]
        assert data == [f"old in {name}", f"new in {name}"]
    assert len(told) == 4


def test_a_lone_surrogate_in_meta_ends_nothing(
    any_server: Server, any_store: Store, room: str
) -> None:
    with Client(f"{any_server.url}/rooms") as client:
        client.request({"type": "publish", "room": room, "data": "a", "meta": "\ud800", "ref": 1})
        client.told()
        client.ask(type="publish", room=room, data="b")
    with Command("tail", room, "--all", "--json", "--url", any_server.url) as tail:
        data = None
        while data != "b":
            [data] = bodies(tail, 1)


# Gaps


def test_a_gap_is_told(any_server: Server, any_store: Store, room: str) -> None:
    """On stderr, and as an object where messages are."""
    key = f"streamcast:{room}"
    for number in range(1, 6):
        any_store.client.xadd(key, {"message": str(number)}, id=f"{number}-0")
    any_store.client.xtrim(key, maxlen=2, approximate=False)
    options = ["--after", "1-0", "--count", "2", "--url", any_server.url]
    with (
        Command("tail", room, *options) as plain,
        Command("tail", room, *options, "--json") as with_json,
    ):
        assert plain.rest() == b"4\n5\n"
        gap, *messages = objects(with_json.rest())
        for command in (plain, with_json):
            assert command.ended() == 0
            sentence = f"{room}: messages between 1-0 and 4-0 may be missing.\n"
            assert command.told() == sentence
    assert gap == {"type": "gap", "room": room, "after": "1-0", "earliest": "4-0", "latest": "5-0"}
    assert [each["data"] for each in messages] == ["4", "5"]


def test_a_gap_behind_which_nothing_is_kept(
    any_server: Server, any_store: Store, room: str
) -> None:
    key = f"streamcast:{room}"
    any_store.client.xadd(key, {"message": "a"}, id="7-0")
    any_store.client.xtrim(key, maxlen=0, approximate=False)
    options = ["--after", "1-0", "--json", "--count", "1", "--url", any_server.url]
    with Command("tail", room, *options) as tail:
        [gap] = objects(tail.line())
        add(any_store, room, "b")
        [message] = objects(tail.rest())
        assert tail.told() == f"{room}: messages behind 1-0 may be missing; none of them is kept.\n"
    assert gap == {"type": "gap", "room": room, "after": "1-0", "earliest": None, "latest": "7-0"}
    assert message["data"] == "b"


# Where it ends


def test_waiting_begins_anew_with_each_message(
    any_server: Server, any_store: Store, room: str
) -> None:
    add(any_store, room, "first")
    with Command("tail", room, "--all", "--wait", "1s", "--url", any_server.url) as tail:
        for number in range(5):
            tail.line()
            wait_until(time.monotonic() + 0.25)
            add(any_store, room, str(number))
        assert tail.rest() == b"4\n"
        assert tail.ended() == 0


def test_waiting_does_not_count_while_the_output_is_held_up(
    any_server: Server, any_store: Store, room: str
) -> None:
    payloads = [b"%03d" % number + b"x" * BIG for number in range(40)]
    add(any_store, room, *payloads)
    with Command("tail", room, "--all", "--wait", "300ms", "--url", any_server.url) as tail:
        printed = b""
        for _ in range(6):
            # Taken now and then, and never all that is there.
            printed += tail.piece()
            wait_until(time.monotonic() + 0.15)
        printed += tail.rest()
        assert tail.ended() == 0
        assert tail.told() == ""
    assert printed.split() == payloads


def test_waiting_does_not_count_while_there_is_no_server(
    run: Callable[..., Server], any_store: Store, room: str
) -> None:
    server = run("--redis", any_store.url)
    add(any_store, room, "a")
    with Command("tail", room, "--all", "--wait", "300ms", "--url", server.url) as tail:
        tail.line()
        server.process.kill()
        server.process.wait()
        eventually(lambda: "Interrupted" in tail.told())
        wait_until(time.monotonic() + 0.5)
        assert tail.process.poll() is None
        add(any_store, room, "b")
        run("--redis", any_store.url, "--port", str(server.port))
        assert tail.rest() == b"b\n"
        assert tail.ended() == 0


def test_waiting_does_not_count_before_the_room_is_joined(
    run: Callable[..., Server], own_store: Callable[..., Store], room: str
) -> None:
    """A store that is away is not a room without messages."""
    store = own_store()
    add(store, room, "a")
    server = run("--redis", store.url)
    place = ["--url", server.url]
    store.signal(signal.SIGSTOP)
    try:
        with Command("tail", room, "--all", "--wait", "300ms", *place) as tail:
            eventually(lambda: server.statistics()["connections"] == 1)
            wait_until(time.monotonic() + 0.5)
            assert tail.process.poll() is None
            store.signal(signal.SIGCONT)
            assert tail.rest() == b"a\n"
            assert tail.ended() == 0
    finally:
        store.signal(signal.SIGCONT)


def test_a_slow_reader_gets_all_in_order(any_server: Server, any_store: Store, room: str) -> None:
    """More than the pipe, the client and its server hold."""
    count = 100
    with Command("tail", room, "--all", "--count", str(count), "--url", any_server.url) as tail:
        payloads = [b"%03d" % number + b"x" * BIG for number in range(count)]
        add(any_store, room, *payloads)
        # Nothing is read until the pipe is full and the others had time to fill.
        eventually(lambda: waiting_in(tail) >= 60_000)
        wait_until(time.monotonic() + 0.3)
        assert tail.rest().split() == payloads
        assert tail.ended() == 0
        assert tail.told() == ""


def waiting_in(command: Command) -> int:
    """How many bytes lie in the pipe that it writes to."""
    waiting: int = struct.unpack("i", fcntl.ioctl(command.out, termios.FIONREAD, bytes(4)))[0]
    return waiting


def test_it_ends_at_once_when_its_reader_goes(
    any_server: Server, any_store: Store, room: str
) -> None:
    add(any_store, room, "a")
    with Command("tail", room, "--all", "--url", any_server.url) as tail:
        tail.line()
        tail.close_output()
        assert tail.ended() == 0
        assert tail.told() == ""


def test_it_ends_at_once_when_its_reader_was_never_there(any_server: Server, room: str) -> None:
    with (
        Command("tail", room, "--url", any_server.url) as tail,
        Command("tail", room, "--json", "--url", any_server.url) as with_json,
    ):
        for command in (tail, with_json):
            command.close_output()
        for command in (tail, with_json):
            assert command.ended() == 0
            assert command.told() == ""


def test_it_ends_at_once_when_the_other_end_of_a_socket_is_closed(
    any_server: Server, any_store: Store, room: str
) -> None:
    add(any_store, room, "a")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        end = theirs.fileno()
        with Command("tail", room, "--all", "--url", any_server.url, stdout=end) as tail:
            theirs.close()
            assert ours.recv(100) == b"a\n"
            ours.close()
            assert tail.ended() == 0
            assert tail.told() == ""


def test_it_ends_when_its_reader_goes_while_there_is_no_server(
    run: Callable[..., Server], any_store: Store, room: str
) -> None:
    server = run("--redis", any_store.url)
    add(any_store, room, "a")
    with Command("tail", room, "--all", "--url", server.url) as tail:
        tail.line()
        server.process.kill()
        server.process.wait()
        eventually(lambda: "Interrupted" in tail.told())
        tail.close_output()
        assert tail.ended() == 0
        # However often it tried.
        assert len(tail.told().splitlines()) == 1


def test_head_behind_it(any_server: Server, any_store: Store, room: str) -> None:
    rooms = [f"{room}-a", f"{room}-b"]
    add(any_store, rooms[0], "a", "b")
    add(any_store, rooms[1], "c", "d")
    script = f"$STREAMCAST tail {' '.join(rooms)} --all --json | head -3"
    ended = in_bash(script, STREAMCAST_URL=any_server.url)
    assert ended.returncode == 0
    assert ended.stderr == b""
    assert len(objects(ended.stdout)) == 3


def test_ctrl_c(any_server: Server, any_store: Store, room: str) -> None:
    add(any_store, room, "a")
    with Command("tail", room, "--all", "--url", any_server.url) as tail:
        assert tail.line() == b"a"
        tail.interrupt()
        assert tail.ended() == 130
        assert tail.told() == ""


def test_ctrl_c_while_the_output_is_held_up(
    any_server: Server, any_store: Store, room: str
) -> None:
    add(any_store, room, *[b"x" * BIG] * 20)
    with Command("tail", room, "--all", "--url", any_server.url) as tail:
        eventually(lambda: waiting_in(tail) >= 60_000)
        tail.interrupt()
        assert tail.ended() == 130
        assert tail.told() == ""


def test_a_disk_that_is_full(any_server: Server, any_store: Store, room: str) -> None:
    add(any_store, room, "a")
    script = f"$STREAMCAST tail {room} --all > /dev/full"
    ended = in_bash(script, STREAMCAST_URL=any_server.url)
    assert ended.returncode == 1
    assert ended.stderr == b"Standard output can't be written: No space left on device.\n"


def test_an_output_that_is_closed(any_server: Server, room: str) -> None:
    ended = in_bash(f"$STREAMCAST tail {room} >&-", STREAMCAST_URL=any_server.url)
    assert ended.returncode == 1
    assert ended.stderr == b"There is no standard output.\n"


# At a terminal


def at_terminal(
    server: Server, store: Store, room: str, *options: str, **variables: str
) -> tuple[list[str], str]:
    """What it shows of two messages, and what it tells of one that is too big."""
    add(store, room, "hello", "\x1b[31mred\x9b\u202e\n")
    add(store, room, "x" * (LIMIT + 1))
    arguments = [room, "--all", "--count", "2", *options, "--url", server.url]
    with AtTerminal("tail", *arguments, **variables) as tail:
        lines = [line.decode() for line in tail.lines(2)]
        assert tail.ended() == 0
        return lines, tail.told()


ESCAPED = r"\x1b[31mred\x9b\u202e\n"


def test_at_a_terminal_it_shows_time_room_and_payload(
    any_server: Server, any_store: Store, room: str
) -> None:
    lines, told = at_terminal(any_server, any_store, room, NO_COLOR="1")
    for line, payload in zip(lines, ["hello", ESCAPED], strict=True):
        shown_time, shown_room, shown = line.split("  ")
        assert re.fullmatch(r"\d\d:\d\d:\d\d", shown_time)
        assert (shown_room, shown) == (room, payload)
    assert "\x1b" not in told


def test_at_a_terminal_it_has_colours(any_server: Server, any_store: Store, room: str) -> None:
    lines, _ = at_terminal(any_server, any_store, room)
    assert all(line.startswith("\x1b[2m") and line.count("\x1b") == 4 for line in lines), lines
    assert lines[1].endswith(f"  {ESCAPED}")


def test_a_dumb_terminal_has_none(any_server: Server, any_store: Store, room: str) -> None:
    lines, _ = at_terminal(any_server, any_store, room, TERM="dumb")
    assert "\x1b" not in "".join(lines)


def test_raw_at_a_terminal_is_the_payload_without_control_characters(
    any_server: Server, any_store: Store, room: str
) -> None:
    assert at_terminal(any_server, any_store, room, "--raw")[0] == ["hello", ESCAPED]


def test_json_at_a_terminal_is_json_without_control_characters(
    any_server: Server, any_store: Store, room: str
) -> None:
    lines, _ = at_terminal(any_server, any_store, room, "--json")
    assert json.loads(lines[1])["data"] == "\x1b[31mred\x9b\u202e\n"
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202e]", lines[1])


# Wrong usage, and nobody there


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a b"],
        ["a", "b/c"],
        ["a", "--last", "1", "--all"],
        ["a", "--last", "1", "--after", "1-0"],
        ["a", "--after", "1-0", "--all"],
        ["a", "--json", "--raw"],
        ["a", "--last", "-1"],
        ["a", "--last", "10001"],
        ["a", "--last", "all"],
        ["a", "--after", "yesterday"],
        ["a", "--after", "99999999999999999999"],
        ["a", "--count", "0"],
        ["a", "--wait", "long"],
        ["a", "--url", "http://127.0.0.1:8080"],
        ["a", "--dance"],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str]) -> None:
    ended = CliRunner().invoke(app, ["tail", *arguments], prog_name="streamcast")
    assert ended.exit_code == 2, ended.output
    assert ended.stdout == ""
    assert "Traceback" not in ended.output
    assert "int()" not in ended.output


def test_nobody_there() -> None:
    with (
        Command("tail", "a", "--url", DEAD) as server,
        Command("tail", "a", "--redis", "redis://127.0.0.1:1") as store,
    ):
        assert (server.ended(), server.rest()) == (1, b"")
        assert server.told() == f"{DEAD} can't be reached: Connection refused.\n"
        assert (store.ended(), store.rest()) == (1, b"")
        [told] = store.told().splitlines()
        assert told.startswith("Redis at 127.0.0.1:1 can't be reached")


def test_what_answers_is_no_server_of_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        with Command("tail", "a", "--url", url) as tail:
            asked, _ = listener.accept()
            with asked:
                asked.recv(4096)
                head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n"
                asked.sendall(head + b"Content-Length: 8\r\n\r\n\x1b[31mred")
                assert tail.ended() == 1
            told = tail.told()
    assert told == f"{url} answers with HTTP status 400: \\x1b[31mred.\n"


def test_another_server_takes_over(run: Callable[..., Server], any_store: Store, room: str) -> None:
    first, second = (run("--redis", any_store.url) for _ in range(2))
    add(any_store, room, "a")
    place = ["--url", first.url, "--url", second.url]
    with Command("tail", room, "--all", "--count", "2", *place) as tail:
        tail.line()
        first.process.kill()
        add(any_store, room, "b")
        assert tail.rest() == b"b\n"
        assert tail.ended() == 0
        interrupted, again = tail.told().splitlines()
    assert interrupted == (
        f"Interrupted: {first.url}: the connection broke off. Connecting again …"
    )
    assert again == f"Connected again to {second.url}."


def test_straight_to_a_store(any_store: Store, room: str) -> None:
    """What is old and what is new, until Ctrl-C; what is kept stays."""
    key = f"mine:{room}"
    any_store.client.xadd(key, {"message": "a"})
    with Command("tail", room, "--all", "--redis", any_store.url, "--prefix", "mine:") as tail:
        assert tail.line() == b"a"
        any_store.client.xadd(key, {"message": "b"})
        assert tail.line() == b"b"
        tail.interrupt()
        assert tail.ended() == 130
        assert tail.told() == ""
    assert any_store.client.ttl(key) == -1
    assert any_store.client.xlen(key) == 2


def test_a_key_that_is_no_stream(any_server: Server, any_store: Store, room: str) -> None:
    any_store.client.set(f"streamcast:{room}", "mine")
    ended = finish("tail", room, "--url", any_server.url)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert len(ended.stderr.decode().splitlines()) == 1


def test_a_store_that_goes_and_comes_is_told_once_each(own_store: Callable[..., Store]) -> None:
    store = own_store()
    with Command("tail", "live", "--all", "--json", "--redis", store.url) as tail:
        store.client.xadd("streamcast:live", {"message": "before"})
        assert json.loads(tail.line())["data"] == "before"
        store.kill()
        eventually(lambda: "Interrupted: Redis at " in tail.told())
        store.start()
        eventually(lambda: "Connected again to Redis at " in tail.told())
        store.client.xadd("streamcast:live", {"message": "after"})
        told = json.loads(tail.line())
        while told["type"] == "gap":
            told = json.loads(tail.line())
        assert told["data"] == "after"
        tail.interrupt()
        assert tail.ended() == 130
        lines = [line for line in tail.told().splitlines() if "may be missing" not in line]
        assert len(lines) == 2
