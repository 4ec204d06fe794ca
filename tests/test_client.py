"""The Python client: what it does about what servers do to it."""

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from streamcast.client import (
    Client,
    Connected,
    ConnectionEvent,
    Gap,
    Interrupted,
    Message,
    MessageId,
    Skipped,
    Subscription,
    connect,
)
from streamcast.client import exchange as exchange_module
from streamcast.client.client import MAX_TIMEOUT
from streamcast.errors import (
    BadId,
    BadRequest,
    BadRoom,
    BadUrl,
    Disconnected,
    RequestError,
    TooBig,
    Unavailable,
    Unknown,
    Unreachable,
)
from tests.clients import PATIENCE
from tests.restarts import keep_rooms
from tests.scripted import Scripted, ScriptedServer
from tests.stores import Server, Store

pytestmark = pytest.mark.one_cell


async def forever(_: Scripted) -> None:
    """A script that does nothing more."""
    await asyncio.Event().wait()


async def some(subscription: Subscription, count: int) -> list[str]:
    """The next IDs."""
    items = []
    async with asyncio.timeout(PATIENCE):
        async for item in subscription:
            assert isinstance(item, Message), item
            items.append(str(item.id))
            if len(items) == count:
                break
    return items


# Against a real server


@pytest.fixture
async def client(any_server: Server) -> AsyncIterator[Client]:
    async with connect(any_server.url) as made:
        yield made


async def test_what_is_published_comes(client: Client) -> None:
    async with client.subscribe("one") as one:
        ids = [await client.publish("one", "text é"), await client.publish("one", b"\xff\x00")]
        ids.append(await client.publish("one", "", meta="from me"))
        found = [await anext(one) for _ in range(3)]
    assert found == [
        Message("one", ids[0], "text é"),
        Message("one", ids[1], b"\xff\x00"),
        Message("one", ids[2], "", meta="from me"),
    ]
    assert one.position == ids[2]
    assert isinstance(found[0], Message)
    assert found[0].time == datetime.fromtimestamp(ids[0].ms / 1000, UTC)


async def test_a_foreign_entry_has_its_fields(client: Client, any_store: Store) -> None:
    async with client.subscribe("foreign") as foreign:
        any_store.client.xadd("streamcast:foreign", {"a": "1", "b": b"\xff"})
        message = await anext(foreign)
    assert isinstance(message, Message)
    assert (message.data, message.fields) == ("1", {"a": "1", "b": b"\xff"})


async def test_an_entry_over_the_limit_is_told(client: Client, any_store: Store) -> None:
    async with client.subscribe("large") as large:
        id = any_store.client.xadd("streamcast:large", {"message": "x" * 100_000}).decode()
        assert await anext(large) == Skipped("large", MessageId.parse(id), 100_000)


async def test_where_to_begin(client: Client) -> None:
    ids = [await client.publish("begin", str(number)) for number in range(5)]
    names = list(map(str, ids))
    assert await some(client.subscribe("begin", last=2), 2) == names[3:]
    assert await some(client.subscribe("begin", after=ids[1]), 3) == names[2:]
    assert await some(client.subscribe("begin", after=names[3]), 1) == names[4:]
    assert await some(client.subscribe("begin", after="0"), 5) == names


async def test_a_gap_is_what_it_is(client: Client, any_store: Store) -> None:
    ids = [await client.publish("gap", str(number)) for number in range(5)]
    any_store.client.xtrim("streamcast:gap", maxlen=2, approximate=False)
    subscription = client.subscribe("gap", after=ids[0])
    assert await anext(subscription) == Gap("gap", ids[0], ids[3], ids[4])
    assert await some(subscription, 2) == [str(ids[3]), str(ids[4])]


async def test_many_under_way_are_stored_in_order(client: Client) -> None:
    """So does the order hold of calls that nobody awaited in between."""
    answers = [client.publish("order", str(number)) for number in range(2000)]
    ids = await asyncio.gather(*answers)
    assert ids == sorted(ids)
    found = [await anext(all) for all in [client.subscribe("order", after="0")] for _ in ids]
    assert [item.data for item in found if isinstance(item, Message)] == list(map(str, range(2000)))


async def test_what_can_not_be_published(client: Client) -> None:
    refused: list[tuple[type[RequestError], str, str | bytes, dict[str, str]]] = [
        (BadRoom, "no room", "x", {}),
        (TooBig, "live", "x" * 65_537, {}),
        (TooBig, "live", "é" * 32_769, {}),
        (BadRequest, "live", "\ud800", {}),
        (BadRequest, "live", "x", {"key": ""}),
        (BadRequest, "live", "x", {"key": "k" * 129}),
        (BadRequest, "live", "x", {"meta": "m" * 1025}),
    ]
    for kind, room, data, more in refused:
        with pytest.raises(kind):
            await client.publish(room, data, **more)
    assert await client.publish("live", "x" * 65_536)
    assert await client.publish("live", b"\x00" * 65_536)


async def test_what_can_not_be_subscribed_to(client: Client, any_store: Store) -> None:
    refused: list[tuple[type[RequestError], str, dict[str, Any]]] = [
        (BadRoom, "no room", {}),
        (BadId, "live", {"after": "x"}),
        (BadRequest, "live", {"after": "1-1", "last": 1}),
        (BadRequest, "live", {"last": 10_001}),
    ]
    for kind, room, more in refused:
        with pytest.raises(kind):
            client.subscribe(room, **more)
    any_store.client.set("streamcast:nostream", "x")
    with pytest.raises(BadRoom):
        await anext(client.subscribe("nostream"))
    with pytest.raises(BadRoom):
        async with client.subscribe("nostream"):
            pass


async def test_one_subscription_of_a_room_at_a_time(client: Client) -> None:
    first = client.subscribe("twice")
    with pytest.raises(BadRequest, match="twice"):
        client.subscribe("twice")
    first.close()
    async with client.subscribe("twice") as second:
        await client.publish("twice", "x")
        assert isinstance(await anext(second), Message)
    assert [item async for item in first] == []


async def test_a_subscription_that_nobody_holds_is_left(client: Client, any_server: Server) -> None:
    async def members() -> int:
        statistics = await asyncio.to_thread(any_server.statistics)
        return int(statistics["members"])

    before = await members()
    subscription = client.subscribe("dropped")
    await subscription.wait_joined()
    assert await members() == before + 1
    del subscription
    gc.collect()
    await client.publish("dropped", "x")
    async with asyncio.timeout(PATIENCE):
        while await members() != before:
            pass


async def test_a_key_of_its_own_stores_once(client: Client) -> None:
    first = await client.publish("key", "x", key="k")
    assert await client.publish("key", "x", key="k") == first


async def test_several_urls_any_will_do(any_server: Server) -> None:
    async with connect("ws://127.0.0.1:1", any_server.url) as client:
        await client.publish("live", "x")


async def test_nobody_there() -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 can't be reached: Connection refused"):
        async with connect("ws://127.0.0.1:1"):
            pass
    with pytest.raises(BadUrl, match="ws://host:8080"):
        connect("http://x")
    with pytest.raises(BadUrl):
        connect()
    with pytest.raises(BadRequest):
        connect("ws://x", publish_timeout=MAX_TIMEOUT + 1)


async def test_what_is_not_streamcast(any_store: Store, any_server: Server) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"-ERR what is that\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Disconnected, match="not streamcast") as told:
            await connect(f"ws://127.0.0.1:{port}").open()
        assert not isinstance(told.value, Unreachable)
    with pytest.raises(Disconnected, match="404") as told:
        await connect(f"{any_server.url}/elsewhere").open()
    assert told.value.code == 404


# Against servers that do as the test says


async def test_it_resumes_behind_what_came() -> None:
    """Behind the last message; before there was one, behind `head`; all that is kept, again all."""
    rooms: dict[str, dict[str, Any]] = {
        "came": {},
        "none": {},
        "last": {"last": 3},
        "all": {"after": "0"},
        "id": {"after": "7"},
    }

    async def first(server: Scripted) -> None:
        for _ in rooms:
            await server.join(head="5-0")
        await server.message("6-0", "came")
        await server.message("9-9", "came")
        await server.ack("1-1")
        assert {each["room"]: each.get("after", each.get("last")) for each in server.asked[:5]} == {
            "came": None,
            "none": None,
            "last": 3,
            "all": "0",
            "id": "7-0",
        }

    async def second(server: Scripted) -> None:
        for _ in rooms:
            await server.join()
        assert {each["room"]: each["after"] for each in server.asked} == {
            "came": "9-9",
            "none": "5-0",
            "last": "5-0",
            "all": "0",
            "id": "7-0",
        }
        await server.message("10-0", "came")
        await forever(server)

    async with ScriptedServer(first, second) as server, connect(server.url) as client:
        held = {room: client.subscribe(room, **rooms[room]) for room in rooms}
        for each in held.values():
            await each.wait_joined()
        await client.publish("came", "x")
        assert await some(held["came"], 3) == ["6-0", "9-9", "10-0"]


async def test_a_message_comes_once() -> None:
    async def script(server: Scripted) -> None:
        request = await server.request("join")
        await server.message("1-0")  # of a join that was before
        await server.tell("joined", room="live", ref=request["ref"], head="1-0", resumed=False)
        for id in ("2-0", "2-0", "1-5", "2-1", "3-0", "2-2"):
            await server.message(id)
        await forever(server)

    async with ScriptedServer(script) as server, connect(server.url) as client:
        live = client.subscribe("live")
        assert await some(live, 3) == ["2-0", "2-1", "3-0"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(live), 0.2)


async def test_after_a_gap() -> None:
    """IDs may begin anew. Told again, before a message came, it is not told again."""
    gap = {"room": "live", "after": "9-0", "earliest": "3-0", "latest": "4-0"}
    empty = {"room": "live", "after": "4-0", "earliest": None, "latest": "6-0"}

    async def first(server: Scripted) -> None:
        await server.join()
        await server.tell("gap", **gap)

    async def second(server: Scripted) -> None:
        assert (await server.join())["after"] == "9-0"
        await server.tell("gap", **gap)
        await server.message("2-9")  # it can't be: messages go on from 3-0
        await server.message("3-0")
        await server.message("4-0")
        await server.tell("gap", **empty)

    async def third(server: Scripted) -> None:
        assert (await server.join())["after"] == "6-0"
        await server.message("6-1")
        await forever(server)

    async with ScriptedServer(first, second, third) as server, connect(server.url) as client:
        live = client.subscribe("live", after="9-0")
        async with asyncio.timeout(PATIENCE):
            found = [await anext(live) for _ in range(5)]
    at = MessageId.parse
    assert found == [
        Gap("live", at("9-0"), at("3-0"), at("4-0")),
        Message("live", at("3-0"), "3-0"),
        Message("live", at("4-0"), "4-0"),
        Gap("live", at("4-0"), None, at("6-0")),
        Message("live", at("6-1"), "6-1"),
    ]


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013, 4000, 4300, 4399, None])
async def test_it_comes_back(code: int | None) -> None:
    async def first(server: Scripted) -> None:
        await server.join(head="1-1")
        if code is not None:
            await server.socket.close(code, "because")

    async def second(server: Scripted) -> None:
        await server.join()
        await server.message("2-0")
        await forever(server)

    events: list[ConnectionEvent] = []
    async with ScriptedServer(first, second) as server:
        async with connect(server.url, on_connection=events.append) as client:
            assert await some(client.subscribe("live"), 1) == ["2-0"]
        reason = "the connection broke off" if code is None else f"it closed with {code}, because"
        assert events == [
            Connected(server.url, again=False),
            Interrupted(server.url, reason),
            Connected(server.url, again=True),
        ]


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 1010, 4400, 4401, 4499])
async def test_it_does_not_come_back(code: int) -> None:
    async def script(server: Scripted) -> None:
        await server.join()
        await server.message("2-0")
        await server.request("publish")
        await server.socket.close(code, "because")

    async with ScriptedServer(script) as server, connect(server.url) as client:
        live = client.subscribe("live")
        await live.wait_joined()
        answer = client.publish("live", "x")
        assert await some(live, 1) == ["2-0"]
        with pytest.raises(Disconnected, match=f"{code}, because") as told:
            await anext(live)
        assert told.value.code == code
        with pytest.raises(Unknown, match="may have been stored"):
            await answer
        with pytest.raises(Unavailable, match="not stored"):
            await client.publish("live", "x")
        with pytest.raises(Disconnected):
            client.subscribe("other")
        assert server.connections == 1


async def test_what_was_not_acknowledged_is_published_again() -> None:
    """With the key that it had, in order, on the next connection."""
    published: list[dict[str, str]] = []

    async def first(server: Scripted) -> None:
        await server.ack("1-0")
        published.extend([await server.request("publish") for _ in range(2)])

    async def second(server: Scripted) -> None:
        # After an interruption one at a time, until one is stored.
        published.append(await server.request("publish"))
        assert await server.silent()
        await server.tell("ack", room="live", ref=published[-1]["ref"], id="2-0")
        published.append(await server.ack("3-0"))
        await forever(server)

    async with ScriptedServer(first, second) as server, connect(server.url) as client:
        ids = await asyncio.gather(*[client.publish("live", str(number)) for number in range(3)])
    assert list(map(str, ids)) == ["1-0", "2-0", "3-0"]
    assert published[:2] == published[2:]
    assert len({each["key"] for each in published}) == 2


async def test_what_the_store_refused_is_published_again() -> None:
    async def script(server: Scripted) -> None:
        asked = [await server.request("publish") for _ in range(3)]
        for request, code in zip(asked, ("unknown", "unavailable", "unavailable"), strict=True):
            told = {"room": "live", "ref": request["ref"], "code": code, "message": "no store"}
            await server.tell("error", **told)
        again = [await server.ack(f"{number}-0") for number in range(3)]
        assert again == asked
        await forever(server)

    async with ScriptedServer(script) as server, connect(server.url) as client:
        ids = await asyncio.gather(*[client.publish("live", str(number)) for number in range(3)])
    assert list(map(str, ids)) == ["0-0", "1-0", "2-0"]


async def test_a_join_that_the_store_refused_is_tried_again() -> None:
    async def script(server: Scripted) -> None:
        request = await server.request("join")
        told = {"room": "live", "ref": request["ref"], "message": "no store"}
        await server.tell("error", **told, code="unavailable")
        await server.join()
        await server.message("2-0")
        await forever(server)

    async with ScriptedServer(script) as server, connect(server.url) as client:
        assert await some(client.subscribe("live"), 1) == ["2-0"]


async def test_a_publish_has_its_time() -> None:
    """One that was sent may be stored; one that never was is not."""

    async def script(server: Scripted) -> None:
        await server.request("publish")
        await server.socket.close(1012)

    async def deaf(server: Scripted) -> None:
        await forever(server)

    async with (
        ScriptedServer(script, deaf) as server,
        connect(server.url, publish_timeout=0.5) as client,
    ):
        with pytest.raises(Unknown, match="no answer came in time"):
            await client.publish("live", "sent")


async def test_a_publish_without_a_server_has_its_time() -> None:
    async def script(server: Scripted) -> None:
        await server.ack("1-0")

    gone = asyncio.Event()

    def on_connection(event: ConnectionEvent) -> None:
        if isinstance(event, Interrupted):
            gone.set()

    async with ScriptedServer(script) as server:
        client = connect(server.url, publish_timeout=0.5, on_connection=on_connection)
        await client.open()
        await client.publish("live", "x")
        await gone.wait()
    with pytest.raises(Unavailable, match="no answer came in time"):
        await client.publish("live", "x")
    await client.close()


async def test_closing_ends_everything() -> None:
    async def script(server: Scripted) -> None:
        await server.join()
        await server.message("1-0")
        await server.request("publish")
        await forever(server)

    async with ScriptedServer(script) as server:
        async with connect(server.url) as client:
            live = client.subscribe("live")
            await live.wait_joined()
            answer = client.publish("live", "x")
            assert await some(live, 1) == ["1-0"]
            waiting = asyncio.create_task(anext(live, None))
            await asyncio.sleep(0)
        assert await waiting is None
        assert [item async for item in live] == []
        with pytest.raises(Unknown):
            await answer
        with pytest.raises(Unavailable, match="closed"):
            await client.publish("live", "x")


async def test_a_slow_consumer_leaves_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds its share and no more, comes back to where it was, and holds up nobody."""
    monkeypatch.setattr(exchange_module, "SMALLEST_SHARE", 1000)
    monkeypatch.setattr(exchange_module, "LARGEST_SHARE", 1000)
    sent: list[str] = []

    async def script(server: Scripted) -> None:
        for _ in range(2):
            await server.join()
        for number in range(1, 31):
            await server.message(f"{number}-0", "slow")
        await server.message("1-0", "quick")
        await server.request("leave")
        await server.tell("left", room="slow")
        await server.ack("5-5")
        assert await server.silent(), "it is not consumed yet"
        sent.append((await server.join())["after"])
        first = int(sent[0].partition("-")[0]) + 1
        for number in range(first, first + 5):
            await server.message(f"{number}-0", "slow")
        await forever(server)

    async with ScriptedServer(script) as server, connect(server.url) as client:
        slow, quick = client.subscribe("slow"), client.subscribe("quick")
        assert await some(quick, 1) == ["1-0"]
        await client.publish("live", "x")
        await asyncio.sleep(0.3)  # the server looks meanwhile whether it stays away
        found = await some(slow, 20)
    held = int(sent[0].partition("-")[0])
    frame = len(json.dumps({"type": "message", "room": "slow", "id": "10-0", "data": "10-0"}))
    assert held == 1000 // frame + 1
    assert found == [f"{number}-0" for number in range(1, 21)]


async def test_cancelling_leaves_it_usable(client: Client) -> None:
    async with client.subscribe("cancel") as subscription:
        for _ in range(3):
            waiting = asyncio.create_task(anext(subscription))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        cancelled = client.publish("cancel", "never sent")
        cancelled.cancel()
        publishing = asyncio.create_task(asyncio.wait_for(client.publish("cancel", "sent"), 5))
        await asyncio.sleep(0)
        publishing.cancel()
        id = await client.publish("cancel", "last")
        async with asyncio.timeout(PATIENCE):
            found = [item async for item in until(subscription, id)]
    assert found[-1] == "last"
    assert "never sent" not in found


async def test_cancelling_while_it_connects() -> None:
    """Nothing is left over: neither a task nor a connection."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        closed.set()

    closed = asyncio.Event()
    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        before = asyncio.all_tasks()
        opening = asyncio.create_task(connect(f"ws://127.0.0.1:{port}").open())
        await asyncio.sleep(0.05)
        opening.cancel()
        await asyncio.wait([opening])
        async with asyncio.timeout(PATIENCE):
            await closed.wait()
        left = asyncio.all_tasks() - before - {opening}
        assert [task for task in left if "hang" not in repr(task)] == []


async def test_cancelling_a_close() -> None:
    async with ScriptedServer(forever) as server:
        client = connect(server.url)
        await client.open()
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        with pytest.raises(Unavailable):
            await asyncio.wait_for(client.publish("live", "x"), PATIENCE)
        await client.close()


async def test_what_no_server_says_ends_it() -> None:
    for frame in ("no json", "[]", '{"type":"message"}', '{"type":"ack","ref":1,"id":"x"}'):

        async def script(server: Scripted, frame: str = frame) -> None:
            await server.join()
            await server.socket.send(frame)
            await server.socket.wait_closed()

        async with ScriptedServer(script) as server, connect(server.url) as client:
            with pytest.raises(Disconnected, match="protocol"):
                await asyncio.wait_for(anext(client.subscribe("live")), PATIENCE)


async def test_what_it_does_not_know_it_passes_over() -> None:
    async def script(server: Scripted) -> None:
        await server.join()
        await server.tell("presence", room="live")
        await server.tell("pong")
        await server.tell("message", room="live", id="1-0", data="x", more={"new": True})
        request = await server.request("publish")
        error = {"ref": request["ref"], "room": "live", "code": "rate_limited", "message": "slower"}
        await server.tell("error", **error)
        await forever(server)

    async with ScriptedServer(script) as server, connect(server.url) as client:
        live = client.subscribe("live")
        assert await some(live, 1) == ["1-0"]
        with pytest.raises(RequestError, match="slower") as told:
            await client.publish("live", "x")
        assert told.value.code == "rate_limited"


async def test_a_fault_in_a_callback_is_no_silence(caplog: pytest.LogCaptureFixture) -> None:
    def on_connection(event: ConnectionEvent) -> None:
        if isinstance(event, Interrupted):
            raise ZeroDivisionError

    async def script(server: Scripted) -> None:
        await server.join()

    async with (
        ScriptedServer(script) as server,
        connect(server.url, on_connection=on_connection) as client,
    ):
        with caplog.at_level(logging.ERROR), pytest.raises(Disconnected, match="failed"):
            await asyncio.wait_for(anext(client.subscribe("live")), PATIENCE)
    assert "fault" in caplog.text


async def until(subscription: Subscription, id: MessageId) -> AsyncIterator[str | bytes]:
    """The data of what comes, up to that message."""
    async for item in subscription:
        assert isinstance(item, Message)
        yield item.data
        if item.id == id:
            return


# Through restarts


async def test_rooms_are_kept_through_restarts(any_store: Store) -> None:
    kept = await keep_rooms(any_store.url, rooms=40, restarts=2)
    assert kept.received == kept.published > 0
    assert kept.wrong == []
    assert kept.gaps == 0
    assert kept.connections == 2 * (1 + 2)
