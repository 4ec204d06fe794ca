"""The Python client at its edges: closing at any moment, what it holds, what it refuses."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamcast.client import Client, Message, connect
from streamcast.client.outbox import Outbox, Publication
from streamcast.errors import Disconnected, StreamcastError, TooBig, Unavailable
from streamcast.message import MessageId
from tests.clients import PATIENCE
from tests.scripted import Scripted, ScriptedServer
from tests.stores import Server

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
        assert client.subscribe("live", after="7-0").position == MessageId(7, 0)


async def forever(_: Scripted) -> None:
    await asyncio.Event().wait()
