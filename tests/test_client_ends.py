"""The Python client at its edges: closing at any moment, what it holds, what it refuses."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from streamcast.backoff import Backoff
from streamcast.client import Client, ConnectionEvent, Interrupted, Message, connect, dial, exchange
from streamcast.client.outbox import Outbox, Publication
from streamcast.errors import (
    BadUrl,
    Disconnected,
    StreamcastError,
    TooBig,
    Unavailable,
    Unreachable,
)
from streamcast.message import MessageId
from tests.clients import PATIENCE
from tests.scripted import Scripted, ScriptedServer
from tests.stores import Server, Store

pytestmark = pytest.mark.one_cell


@pytest.fixture
async def client(any_server: Server) -> AsyncIterator[Client]:
    async with connect(any_server.url) as made:
        yield made


async def members(server: Server) -> int:
    return int((await asyncio.to_thread(server.statistics))["members"])


# Closing


async def test_closed_at_once_it_leaves_no_connection() -> None:
    """The task that would close it is cancelled before its first step."""
    closed = asyncio.Event()

    async def script(server: Scripted) -> None:
        await server.socket.wait_closed()
        closed.set()

    async with ScriptedServer(script) as server:
        async with connect(server.url):
            pass
        await asyncio.wait_for(closed.wait(), 3)


async def test_closed_twice_it_leaves_no_connection() -> None:
    """The second `cancel` ends the cleaning up of the first."""
    closed = asyncio.Event()

    async def script(server: Scripted) -> None:
        await server.ack("1-0")
        await server.socket.wait_closed()
        closed.set()

    async with ScriptedServer(script) as server:
        client = connect(server.url)
        await client.open()
        await client.publish("live", "x")
        first = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        await asyncio.wait([first, asyncio.create_task(client.close())])
        await asyncio.wait_for(closed.wait(), 3)


async def test_a_fault_in_the_first_callback_leaves_no_connection() -> None:
    closed = asyncio.Event()

    async def script(server: Scripted) -> None:
        await server.socket.wait_closed()
        closed.set()

    def on_connection(_: object) -> None:
        raise ZeroDivisionError

    async with (
        ScriptedServer(script) as server,
        connect(server.url, on_connection=on_connection) as client,
    ):
        with pytest.raises(Unavailable, match="failed"):
            await client.publish("live", "x")
        await asyncio.wait_for(closed.wait(), 3)


async def test_a_wait_for_a_join_that_never_is_raises() -> None:
    async def script(server: Scripted) -> None:
        await server.request("join")
        await asyncio.Event().wait()

    async with ScriptedServer(script) as server:
        client = connect(server.url)
        await client.open()
        waiting = asyncio.create_task(client.subscribe("live").wait_joined())
        await asyncio.sleep(0.1)
        await client.close()
        with pytest.raises(Disconnected):
            await waiting


# Messages that no server takes


async def test_too_big_a_message_at_once_ends_nothing(any_server: Server) -> None:
    """What the server takes is known from the handshake, not a loop turn later."""
    async with connect(any_server.url) as client:
        with pytest.raises(TooBig):
            await client.publish("live", "x" * 1_000_000)
        await client.publish("live", "x")


async def test_the_largest_message_with_the_largest_meta_ends_nothing(client: Client) -> None:
    """Control characters are six bytes in JSON, those of meta and key too."""
    with pytest.raises(TooBig, match="escaped"):
        await client.publish("live", "\x01" * 65_536, meta="\x01" * 1024)
    await client.publish("live", "\x01" * 65_536)


# Memory


async def test_what_is_acknowledged_is_not_held(client: Client) -> None:
    for _ in range(10):
        await asyncio.gather(*[client.publish("live", "x" * 1000) for _ in range(100)])
    assert len(client._exchange._outbox._open) <= 100


async def test_what_is_given_up_while_away_is_not_held() -> None:
    loop = asyncio.get_running_loop()
    outbox = Outbox()
    for ref in range(100):
        answer: asyncio.Future[MessageId] = loop.create_future()
        outbox.add(Publication("live", ref + 1, b"x", 1, 1.0, answer))
    outbox.expire(2.0)
    for publication in list(outbox._lanes["live"].waiting) if outbox._lanes else []:
        publication.answer.exception()
    assert outbox._lanes == {}


async def test_a_quiet_room_that_nobody_holds_is_left(client: Client, any_server: Server) -> None:
    before = await members(any_server)
    subscription = client.subscribe("quiet")
    await subscription.wait_joined()
    del subscription
    async with asyncio.timeout(PATIENCE):
        while await members(any_server) != before:
            await asyncio.sleep(0.05)


# Servers


async def test_one_of_several_that_refuses_for_good_is_passed_over() -> None:
    """As it is when the client is entered."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def first(server: Scripted) -> None:
        await server.join()
        await server.socket.close(1012)

    async def second(server: Scripted) -> None:
        await server.join()
        await server.message("5-0")
        await asyncio.Event().wait()

    async with (
        await asyncio.start_server(refuse, "127.0.0.1", 0) as bad,
        ScriptedServer(first, second) as good,
        connect(good.url, f"ws://127.0.0.1:{bad.sockets[0].getsockname()[1]}") as client,
    ):
        item = await asyncio.wait_for(anext(client.subscribe("live")), PATIENCE)
        assert isinstance(item, Message)


@pytest.mark.parametrize("url", ["ws://a..b:9", f"ws://{'a' * 64}:9"])
async def test_a_host_that_can_not_be_is_told(url: str) -> None:
    with pytest.raises(StreamcastError):
        await connect(url).open()


async def test_a_proxy_that_can_not_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "foo://127.0.0.1:1")
    with pytest.raises(StreamcastError):
        await connect("ws://example.invalid").open()


# Positions


async def test_the_position_of_what_was_not_joined_yet_is_where_it_begins() -> None:
    """Else whoever keeps `position` for another time begins with what is new, and misses all."""
    async with ScriptedServer(forever) as server, connect(server.url) as client:
        assert client.subscribe("live", after="7-0").position == MessageId.of(7, 0)


async def forever(_: Scripted) -> None:
    await asyncio.Event().wait()


# Servers that come and go


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Lets pauses be short, and notes how long they would have been."""
    asked: list[float] = []
    real = Backoff.pause

    def pause(self: Backoff) -> float:
        asked.append(real(self))
        return 0.01

    monkeypatch.setattr(Backoff, "pause", pause)
    return asked


async def test_pauses_grow_while_no_server_answers(quick: list[float]) -> None:
    async def once(server: Scripted) -> None:
        await server.join()

    events: list[ConnectionEvent] = []
    async with ScriptedServer(once) as server:
        client = connect(server.url, on_connection=events.append)
        await client.open()
        live = client.subscribe("live")
        while len(events) < 2:
            await asyncio.sleep(0.01)
    while len(events) < 12:
        await asyncio.sleep(0.01)
    await client.close()
    failed = [each for each in events if isinstance(each, Interrupted)]
    assert live.room == "live"
    assert all("Connection refused" in each.reason for each in failed[2:])
    assert len(quick) >= 10
    assert quick[9] > 10 * quick[0], "they grow"
    assert len(set(quick)) == len(quick), "and are jittered"


async def test_servers_are_tried_in_turn(quick: list[float]) -> None:
    """The other one first: the one that ended the connection may be on its way down."""

    async def first(server: Scripted) -> None:
        await server.join()
        await server.socket.close(1012)

    async def second(server: Scripted) -> None:
        await server.join()
        await server.message("1-0")
        await asyncio.Event().wait()

    async with ScriptedServer(first) as one, ScriptedServer(second) as other:
        async with connect(one.url, "ws://127.0.0.1:1", other.url) as client:
            assert isinstance(await asyncio.wait_for(anext(client.subscribe("live")), 8), Message)
        assert (one.connections, other.connections) == (1, 1)


async def test_a_server_that_will_do_later_is_tried_again(quick: list[float]) -> None:
    """Behind a proxy without a server, or in a handshake that breaks off."""
    answers = [b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"]
    answers += [b"HTTP/1.1 521 Down\r\nContent-Length: 0\r\n\r\n", b""]
    asked = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers[asked % len(answers)])
        asked += 1
        writer.close()

    async def once(server: Scripted) -> None:
        await server.join()

    async with ScriptedServer(once) as server:
        port = int(server.url.rpartition(":")[2])
        client = connect(server.url)
        await client.open()
        live = client.subscribe("live")
        await live.wait_joined()
    async with await asyncio.start_server(answer, "127.0.0.1", port):
        while asked < 2 * len(answers):
            await asyncio.sleep(0.01)
    assert client.subscribe("other"), "it has not given up"
    await client.close()


async def test_a_server_that_falls_silent_is_left(
    run: Callable[..., Server], any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "PING_EVERY", 0.2)
    monkeypatch.setattr(dial, "PING_TIMEOUT", 0.2)
    interrupted = asyncio.Event()

    def on_connection(event: ConnectionEvent) -> None:
        if isinstance(event, Interrupted):
            interrupted.set()

    server = run("--redis", any_store.url)
    async with connect(server.url, on_connection=on_connection) as client:
        await client.publish("live", "x")
        server.signal(signal.SIGSTOP)
        await asyncio.wait_for(interrupted.wait(), PATIENCE)
        server.signal(signal.SIGCONT)
        await asyncio.wait_for(client.publish("live", "y"), 2 * PATIENCE)


async def test_secrets_of_a_url_are_not_shown() -> None:
    with pytest.raises(Unreachable) as told:
        await connect("ws://user:secret@127.0.0.1:1/path?token=hidden").open()
    assert str(told.value).startswith("ws://127.0.0.1:1/path can't be reached")
    for bad in ("ws://user:secret@:x", "http://user:secret@host"):
        with pytest.raises(BadUrl) as refused:
            connect(bad)
        assert "secret" not in str(refused.value)


async def test_a_url_may_have_a_path(any_server: Server) -> None:
    async with connect(f"{any_server.url}/rooms/") as client:
        await client.publish("live", "x")
    with pytest.raises(BadUrl, match="names a room"):
        connect(f"{any_server.url}/rooms/live")


# Rooms that are left


async def test_what_is_closed_is_left_whatever_state_it_is_in() -> None:
    async def script(server: Scripted) -> None:
        await server.request("join")  # not answered yet
        await server.request("leave")
        request = await server.request("join")
        await server.tell("left", room="live")
        await server.message("1-0")  # of the first one
        await server.tell("joined", room="live", ref=request["ref"] - 1, head="1-0", resumed=False)
        await server.message("2-0")
        await server.tell("joined", room="live", ref=request["ref"], head="5-0", resumed=False)
        await server.message("6-0")
        await server.request("leave")
        await server.ack("9-0")

    async with ScriptedServer(script) as server, connect(server.url) as client:
        first = client.subscribe("live")
        await asyncio.sleep(0.05)
        first.close()
        async with client.subscribe("live") as second:
            message = await asyncio.wait_for(anext(second), PATIENCE)
            assert isinstance(message, Message)
            assert str(message.id) == "6-0"
        assert await asyncio.wait_for(client.publish("live", "x"), PATIENCE)


async def test_who_is_full_stays_away_through_a_lost_connection(
    monkeypatch: pytest.MonkeyPatch, quick: list[float]
) -> None:
    monkeypatch.setattr(exchange, "SMALLEST_SHARE", 200)
    monkeypatch.setattr(exchange, "LARGEST_SHARE", 200)
    consume = asyncio.Event()

    async def first(server: Scripted) -> None:
        await server.join()
        for number in range(1, 10):
            await server.message(f"{number}-0")
        await server.request("leave")

    async def second(server: Scripted) -> None:
        assert await server.silent()
        consume.set()
        after = (await server.join())["after"]
        assert after == "4-0"
        await server.message("5-0")
        await asyncio.Event().wait()

    async with ScriptedServer(first, second) as server, connect(server.url) as client:
        live = client.subscribe("live")
        await asyncio.wait_for(consume.wait(), PATIENCE)
        found = [await asyncio.wait_for(anext(live), PATIENCE) for _ in range(5)]
    assert [str(item.id) for item in found if isinstance(item, Message)] == [
        f"{number}-0" for number in range(1, 6)
    ]


async def test_the_whole_of_the_buffers_is_shared(client: Client) -> None:
    alone = client._exchange.share
    held = [client.subscribe(f"share-{number}") for number in range(100)]
    assert client._exchange.share == exchange.BUFFERS // 100 < alone
    assert len(held) == 100


def test_the_public_names() -> None:
    import streamcast.client

    assert sorted(streamcast.client.__all__) == streamcast.client.__all__
    assert {"connect", "Client", "Message", "Gap", "Unavailable", "Unknown"} <= set(
        streamcast.client.__all__
    )
