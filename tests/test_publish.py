"""`streamcast publish`."""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from streamcast.cli.app import app
from tests.commands import AtTerminal, Command, finish, ids, in_bash, stored, texts
from tests.stores import Server, Store, eventually

pytestmark = pytest.mark.one_cell

DEAD = "ws://127.0.0.1:1"
LIMIT = 64 * 1024
Finish = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def room() -> str:
    return f"room-{uuid4().hex}"


@pytest.fixture
def publish(any_server: Server, room: str) -> Finish:
    """Publishes in the room, through the server, to its end."""

    def run(*arguments: str, input: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return finish("publish", room, *arguments, "--url", any_server.url, input=input)

    return run


def published(ended: "subprocess.CompletedProcess[bytes]", count: int) -> list[str]:
    """All went well; returns the IDs, which grow."""
    assert ended.returncode == 0, ended
    assert ended.stderr == b""
    printed = ids(ended.stdout)
    assert len(printed) == count
    assert printed == sorted(set(printed))
    return [str(id) for id in printed]


def failed(ended: "subprocess.CompletedProcess[bytes]", code: int = 1) -> str:
    """It ended with this code and one line on stderr; returns the line."""
    assert ended.returncode == code, ended
    [line] = ended.stderr.decode().splitlines()
    return line


# What is published


def test_an_argument_is_the_message(publish: Finish, any_store: Store, room: str) -> None:
    [id] = published(publish("grüße"), 1)
    assert any_store.client.xrange(f"streamcast:{room}") == [
        (id.encode(), {b"message": "grüße".encode()})
    ]


@pytest.mark.parametrize("payload", [b"", b"x" * LIMIT])
def test_standard_input_is_one_message(
    publish: Finish, any_store: Store, room: str, payload: bytes
) -> None:
    published(publish(input=payload), 1)
    assert texts(any_store, room) == [payload]


def test_standard_input_may_be_a_file_or_nothing(
    any_server: Server, any_store: Store, room: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"a\nb\n")
    script = f'$STREAMCAST publish {room} < file && $STREAMCAST publish {room} "$@" < /dev/null'
    ended = in_bash(f"cd '{tmp_path}'; {script}", STREAMCAST_URL=any_server.url, PYTHONPATH=here())
    published(ended, 2)
    assert texts(any_store, room) == [b"a\nb\n", b""]


def here() -> str:
    """Where the package is that is tested."""
    return os.fspath(Path(__file__).parent.parent)


def test_standard_input_may_be_closed(any_server: Server, any_store: Store, room: str) -> None:
    variables = {"STREAMCAST_URL": any_server.url}
    ended = in_bash(f"$STREAMCAST publish {room} --lines <&-", **variables)
    assert failed(ended) == "There is no standard input."
    published(in_bash(f"$STREAMCAST publish {room} hello <&-", **variables), 1)
    assert texts(any_store, room) == [b"hello"]


def test_an_empty_argument_is_an_empty_message(
    publish: Finish, any_store: Store, room: str
) -> None:
    published(publish("", input=b"not this"), 1)
    assert texts(any_store, room) == [b""]


def test_more_than_a_server_takes(publish: Finish, any_store: Store, room: str) -> None:
    told = failed(publish(input=bytes(LIMIT + 1)))
    assert "not stored" in told
    assert "65536" in told
    assert "65537" in told
    assert texts(any_store, room) == []


def test_binary_may_be_anything(publish: Finish, any_store: Store, room: str) -> None:
    published(publish("--lines", "--binary", input=b"\xff\x00\nhello"), 2)
    assert stored(any_store, room) == [("binary", b"\xff\x00"), ("binary", b"hello")]


def test_an_argument_that_is_not_utf_8(any_server: Server, any_store: Store, room: str) -> None:
    script = f"$STREAMCAST publish {room} --binary $'\\xff'"
    published(in_bash(script, STREAMCAST_URL=any_server.url), 1)
    assert stored(any_store, room) == [("binary", b"\xff")]


# Lines


def test_each_line_is_a_message(publish: Finish, any_store: Store, room: str) -> None:
    published(publish("--lines", input=b"a\n\nb\r\n  c\n\nlast"), 6)
    assert texts(any_store, room) == [b"a", b"", b"b\r", b"  c", b"", b"last"]


def test_no_lines_are_no_messages(publish: Finish, any_store: Store, room: str) -> None:
    published(publish("--lines"), 0)
    assert texts(any_store, room) == []


def test_lines_are_published_as_they_come(any_server: Server, room: str) -> None:
    with Command("publish", room, "--lines", "--url", any_server.url) as command:
        command.write(b"first\nsec")
        [first] = ids(command.line())
        command.write(b"ond\nlast")
        [second] = ids(command.line())
        command.end_input()
        [last] = ids(command.rest())
        assert first < second < last
        assert command.ended() == 0


def test_lines_that_can_not_be_stored_hold_up_no_others(
    publish: Finish, any_store: Store, room: str
) -> None:
    big = b"x" * (LIMIT + 1)
    ended = publish("--lines", input=b"\n".join([b"a", b"b", big, b"c", b"\xff", b"d"]))
    told = failed(ended)
    assert told.startswith("4 of 6 messages were acknowledged.")
    assert "first that was not is number 3." in told
    assert "It was not stored: A message has at most 65536 bytes" in told
    assert len(ids(ended.stdout)) == 4
    assert texts(any_store, room) == [b"a", b"b", b"c", b"d"]


def test_a_line_without_an_end_is_not_waited_for(
    any_server: Server, any_store: Store, room: str
) -> None:
    script = f"(echo a; cat /dev/zero) | $STREAMCAST publish {room} --lines"
    ended = in_bash(f"set +o pipefail; {script}", STREAMCAST_URL=any_server.url)
    assert len(ids(ended.stdout)) == 1
    told = failed(ended)
    assert told.startswith("A line has more than 16777216 bytes")
    assert texts(any_store, room) == [b"a"]


# What is printed


def test_an_object_a_message(publish: Finish, room: str) -> None:
    ended = publish("--lines", "--json", input=b"a\n\xff\nb\n")
    assert "number 2." in failed(ended)
    first, second, third = map(json.loads, ended.stdout.splitlines())
    assert list(first) == list(third) == ["type", "room", "id", "time"]
    assert (first["type"], first["room"], third["type"]) == ("ack", room, "ack")
    assert first["time"].endswith("Z")
    assert first["id"] != third["id"]
    assert second["type"] == "error"
    assert second["room"] == room
    assert second["code"] == "bad_request"
    assert "--binary" in second["message"]


def test_quiet(publish: Finish, any_store: Store, room: str) -> None:
    ended = publish("--lines", "--quiet", input=b"a\n\xff\nb\n")
    assert "number 2. It was not stored" in failed(ended)
    assert ended.stdout == b""
    assert texts(any_store, room) == [b"a", b"b"]


def test_at_a_terminal_it_prints_the_same(any_server: Server, room: str) -> None:
    with AtTerminal("publish", room, "hello", "--url", any_server.url) as command:
        assert len(ids(command.line())) == 1
        assert command.ended() == 0


def test_ids_that_can_not_be_written_are_an_error(any_server: Server, room: str) -> None:
    script = f"$STREAMCAST publish {room} hello"
    ended = in_bash(f"{script} > /dev/full", STREAMCAST_URL=any_server.url)
    assert failed(ended) == "Standard output can't be written: No space left on device."
    quiet = in_bash(f"{script} --quiet > /dev/full", STREAMCAST_URL=any_server.url)
    assert quiet.returncode == 0


def test_it_ends_when_nobody_reads_the_ids(any_server: Server, room: str) -> None:
    with Command("publish", room, "--lines", "--url", any_server.url) as command:
        command.write(b"a\n")
        command.line()
        command.close_output()
        assert command.ended() == 1
        assert command.told() == "Nobody reads the IDs any more.\n"


def test_nobody_needs_to_read_if_nothing_is_printed(
    any_server: Server, any_store: Store, room: str
) -> None:
    with Command("publish", room, "--lines", "--quiet", "--url", any_server.url) as command:
        command.write(b"a\n")
        eventually(lambda: texts(any_store, room) == [b"a"])
        command.close_output()
        command.write(b"b\n")
        eventually(lambda: texts(any_store, room) == [b"a", b"b"])
        command.end_input()
        assert command.ended() == 0
        assert command.told() == ""


def test_one_socket_for_input_and_output(any_server: Server, any_store: Store, room: str) -> None:
    """As inetd and socat run programs: what comes over it is input, and all of it."""
    ours, theirs = socket.socketpair()
    lines = [b"%d" % number for number in range(500)]
    with ours, theirs:
        end = theirs.fileno()
        arguments = ["publish", room, "--lines", "--url", any_server.url]
        with Command(*arguments, stdin=end, stdout=end) as command:
            theirs.close()
            for line in lines:
                ours.sendall(line + b"\n")
            ours.shutdown(socket.SHUT_WR)
            with ours.makefile("rb") as printed:
                assert len(ids(printed.read())) == len(lines)
            assert command.ended() == 0, command.told()
    assert texts(any_store, room) == lines


# Count, interval, key


def test_count(publish: Finish, any_store: Store, room: str) -> None:
    published(publish("--count", "3", "--interval", "1ms", input=b"hello"), 3)
    assert texts(any_store, room) == [b"hello"] * 3


def test_the_interval_lies_between_messages(
    any_server: Server, any_store: Store, room: str
) -> None:
    options = ["--lines", "--interval", "1h", "--url", any_server.url]
    with Command("publish", room, *options) as command:
        command.write(b"a\nb\n")
        command.line()
        command.interrupt()
        assert command.ended() == 130
    assert texts(any_store, room) == [b"a"]


def test_a_key_is_stored_once_and_has_one_id(publish: Finish, any_store: Store, room: str) -> None:
    first = published(publish("hello", "--key", "k"), 1)
    assert published(publish("again", "--key", "k"), 1) == first
    assert texts(any_store, room) == [b"hello"]


# Wrong usage


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a b", "x"],
        ["a/b", "x"],
        ["", "x"],
        ["a", "x", "y"],
        ["a", "x", "--lines"],
        ["a", "--lines", "--count", "2"],
        ["a", "x", "--key", "k", "--count", "2"],
        ["a", "--key", "k", "--lines"],
        ["a", "x", "--count", "0"],
        ["a", "x", "--interval", "soon"],
        ["a", "x", "--interval", "-1s"],
        ["a", "x", "--url", "127.0.0.1:8080"],
        ["a", "x", "--url", "http://127.0.0.1:8080"],
        ["a", "x", "--url", "ws://"],
        ["a", "x", "--url", ""],
        ["a", "x", "--max-message", "0"],
        ["a", "x", "--dance"],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str]) -> None:
    ended = CliRunner().invoke(app, ["publish", *arguments], prog_name="streamcast")
    assert ended.exit_code == 2, ended.output
    assert ended.stdout == ""
    assert "Traceback" not in ended.output


def test_wrong_usage_that_only_a_store_knows() -> None:
    ended = finish("publish", "a", "x", "--redis", "redis://127.0.0.1:1", "--prefix", "{x}")
    assert ended.returncode == 2
    assert ended.stdout == b""
    assert b"--prefix" in ended.stderr


# Where the rooms are


def test_a_server_that_is_not_there() -> None:
    assert failed(finish("publish", "a", "x", "--url", DEAD)) == (
        f"{DEAD} can't be reached: Connection refused."
    )


def test_a_redis_that_is_not_there() -> None:
    told = failed(finish("publish", "a", "x", "--redis", "redis://127.0.0.1:1"))
    assert told.startswith("Redis at 127.0.0.1:1 can't be reached")


def test_the_variable_may_name_several_servers(
    any_server: Server, any_store: Store, room: str
) -> None:
    """There is none for --redis."""
    urls = f"{DEAD} {any_server.url}"
    ended = finish("publish", room, "hello", STREAMCAST_URL=urls, STREAMCAST_REDIS="unix:///none")
    published(ended, 1)
    assert texts(any_store, room) == [b"hello"]


def test_straight_to_a_store_nothing_is_trimmed_and_nothing_expires(
    any_store: Store, room: str
) -> None:
    key = f"streamcast:{room}"
    old = [b"old %d" % number for number in range(1500)]
    pipeline = any_store.client.pipeline()
    for number, payload in enumerate(old, 1):
        pipeline.xadd(key, {"message": payload}, id=f"{number}-0")
    pipeline.execute()
    new = [b"%d" % number for number in range(300)]
    options = ["--lines", "--redis", any_store.url]
    published(finish("publish", room, *options, input=b"\n".join(new)), len(new))
    assert texts(any_store, room) == old + new
    assert any_store.client.ttl(key) == -1


def test_straight_to_a_store_the_prefix_may_be_another(any_store: Store, room: str) -> None:
    """And a time to live that there is stays."""
    any_store.client.xadd(f"mine:{room}", {"message": "old"})
    any_store.client.expire(f"mine:{room}", 100)
    published(finish("publish", room, "new", "--redis", any_store.url, "--prefix", "mine:"), 1)
    assert texts(any_store, room, "mine:") == [b"old", b"new"]
    assert 0 < any_store.client.ttl(f"mine:{room}") <= 100
    assert not any_store.client.exists(f"streamcast:{room}")


def test_straight_to_a_store_the_largest_message_may_be_another(
    any_store: Store, room: str
) -> None:
    options = ["--lines", "--redis", any_store.url, "--max-message", "3B"]
    told = failed(finish("publish", room, *options, input=b"abc\nabcd\n"))
    assert told.startswith("1 of 2 messages were acknowledged.")
    assert "at most 3 bytes" in told


def test_a_key_that_is_no_stream(publish: Finish, any_store: Store, room: str) -> None:
    any_store.client.set(f"streamcast:{room}", "mine")
    told = failed(publish("hello"))
    assert "not stored" in told


# Ctrl-C, and servers that go away


def test_ctrl_c_ends_it_while_it_waits_for_input(any_server: Server, room: str) -> None:
    with Command("publish", room, "--lines", "--url", any_server.url) as command:
        command.write(b"a\n")
        command.line()
        command.interrupt()
        assert command.ended() == 130
        assert command.told() == ""


def test_ctrl_c_with_the_server_gone_tells_what_was_not_stored(
    run: Callable[..., Server], any_store: Store, room: str
) -> None:
    server = run("--redis", any_store.url)
    with Command("publish", room, "--lines", "--url", server.url) as command:
        command.write(b"a\n")
        command.line()
        server.process.kill()
        server.process.wait()
        # What it sends before it knows may have been stored.
        eventually(command.told)
        command.write(b"b\nc\n")
        eventually(lambda: nothing_left(command))
        command.interrupt()
        assert command.ended() == 130
        told = command.told()
    interrupted, summary = told.splitlines()
    assert interrupted.startswith("Interrupted: ")
    assert summary.startswith(
        "1 of 3 messages were acknowledged. The first that was not is number 2"
    )
    assert "It was not stored:" in summary
    assert texts(any_store, room) == [b"a"]


def nothing_left(command: Command) -> bool:
    """Whether a command has read its input, and taken it in: it sleeps."""
    assert command.process.stdin is not None
    left = fcntl.ioctl(command.process.stdin, termios.FIONREAD, bytes(4))
    state = Path(f"/proc/{command.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return struct.unpack("i", left) == (0,) and state == "S"


def test_ctrl_c_without_an_answer_tells_that_it_may_have_been_stored(
    run: Callable[..., Server], any_store: Store, room: str
) -> None:
    server = run("--redis", any_store.url)
    with Command("publish", room, "hello", "--url", server.url) as command:
        any_store.signal(signal.SIGSTOP)
        try:
            eventually(lambda: server.statistics()["unacknowledged"] > 0)
            command.interrupt()
            assert command.ended() == 130
        finally:
            any_store.signal(signal.SIGCONT)
        assert command.told().startswith("It may have been stored: ")


def test_a_server_that_is_killed_and_comes_back_loses_and_doubles_nothing(
    run: Callable[..., Server], any_store: Store, room: str
) -> None:
    lines = [b"%d" % number for number in range(4000)]
    server = run("--redis", any_store.url, "--history", "0")
    with ExitStack() as stack:
        place = ["--url", server.url]
        command = stack.enter_context(Command("publish", room, "--lines", *place))
        command.write(b"".join(line + b"\n" for line in lines[:2000]))
        printed = command.lines(100)
        server.process.kill()
        server.process.wait()
        run("--redis", any_store.url, "--history", "0", "--port", str(server.port))
        command.write(b"".join(line + b"\n" for line in lines[2000:]))
        command.end_input()
        printed += command.rest().splitlines()
        assert command.ended() == 0, command.told()
        interrupted, connected = command.told().splitlines()
        assert interrupted.startswith("Interrupted: ")
        assert connected.startswith("Connected again")
    assert texts(any_store, room) == lines
    assert printed == [id for id, _ in any_store.client.xrange(f"streamcast:{room}")]
