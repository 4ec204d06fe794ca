"""What a store refuses, and why: publishers are told, no storm of attempts, and it passes."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from streamcast.client import connect
from streamcast.errors import NotReplicated, StartError, Unavailable
from streamcast.message import MessageId
from tests.clients import Client
from tests.commands import finish
from tests.followers import Publisher, Start, connecting, follow
from tests.load import until
from tests.restarts import free_port
from tests.stores import Server, Store, eventually, lanes

MOST_COMMANDS = 60
"""How many commands a second one idle server has a store answer, at most; a storm is thousands."""


@pytest.fixture
async def start(notifier: str) -> AsyncIterator[Start]:
    async with connecting(notifier) as made:
        yield made


async def outcome_of(publisher: Publisher, text: str) -> object:
    publisher.publish("room", text)
    await until(lambda: text in publisher.by_text)
    return publisher.by_text[text]


async def commands_in(store: Store, seconds: float) -> float:
    """How many commands a second a store was asked for."""
    before: int = store.client.info("stats")["total_commands_processed"]
    await asyncio.sleep(seconds)
    after: int = store.client.info("stats")["total_commands_processed"]
    return (after - before) / seconds


def fails_to_save(store: Store) -> None:
    """Have the store refuse all writes because it could not save them (MISCONF)."""
    (store.folder / "dump.rdb").mkdir()
    store.client.config_set("save", "3600 1")
    store.client.bgsave()
    eventually(lambda: store.client.info("persistence")["rdb_last_bgsave_status"] == "err")


def saves_again(store: Store) -> None:
    store.client.config_set("save", "")


def wants_replicas(store: Store) -> None:
    """Have the store refuse all writes because no replica has them (NOREPLICAS)."""
    store.client.config_set("min-replicas-to-write", 1)


def wants_none(store: Store) -> None:
    store.client.config_set("min-replicas-to-write", 0)


@pytest.mark.parametrize(
    ("begin", "end", "word"),
    [(fails_to_save, saves_again, "MISCONF"), (wants_replicas, wants_none, "NOREPLICAS")],
)
async def test_a_store_that_takes_nothing(
    own_store: Callable[..., Store],
    start: Start,
    begin: Callable[[Store], None],
    end: Callable[[Store], None],
    word: str,
) -> None:
    """It is told, safe to try again; readers go on; then all is well."""
    store = own_store()
    streams = await start(store)
    recorder, publisher = await follow(streams, "room"), Publisher(streams)
    assert isinstance(await outcome_of(publisher, "before"), MessageId)
    begin(store)
    refused = await outcome_of(publisher, "refused")
    assert isinstance(refused, Unavailable)
    assert word in str(refused)
    assert await commands_in(store, 0.5) < MOST_COMMANDS
    end(store)
    assert isinstance(await outcome_of(publisher, "after"), MessageId)
    await until(lambda: recorder.texts == ["before", "after"])
    assert streams.statistics().reconnects == 0


@pytest.mark.one_cell
async def test_a_master_that_becomes_a_replica_is_left_though_nobody_publishes(
    own_store: Callable[..., Store], start: Start
) -> None:
    """It says what it is when it is asked, which it is every second."""
    store = own_store()
    streams = await start(store)
    recorder = await follow(streams, "room")
    store.client.replicaof("127.0.0.1", 1)
    await until(lambda: not store.lanes())
    assert await commands_in(store, 0.5) < MOST_COMMANDS
    store.client.replicaof("NO", "ONE")
    await until(lambda: store.lanes() == lanes("tracking", 1))
    store.client.xadd("streamcast:room", {"message": "after"})
    await until(lambda: recorder.texts == ["after"])


@pytest.mark.one_cell
async def test_a_store_that_loads(own_store: Callable[..., Store], start: Start) -> None:
    """It is not ready, which is said; who has it already comes back when it is."""
    store = own_store(
        *("--key-load-delay", "40000", "--rdbcompression", "no"),
        *("--loading-process-events-interval-bytes", "1024"),
    )
    streams = await start(store)
    recorder, publisher = await follow(streams, "room"), Publisher(streams)
    for number in range(50):
        publisher.publish("room", str(number))
    await publisher.ended(50)
    for number in range(50):
        # Each of which it takes 40 ms to load.
        store.client.set(f"ballast-{number}", "x" * 2000)
    store.client.save()
    store.kill()
    starting = threading.Thread(target=store.start)
    starting.start()
    await asyncio.to_thread(eventually, lambda: store.ping().startswith(b"-LOADING"))
    with pytest.raises(StartError, match="is not ready: LOADING"):
        await start(store)
    assert isinstance(await outcome_of(publisher, "too early"), Unavailable)
    await asyncio.to_thread(starting.join)
    await until(lambda: streams.statistics().reconnects == 1)
    assert isinstance(await outcome_of(publisher, "after"), MessageId)
    await until(lambda: recorder.texts == [*map(str, range(50)), "after"])


@pytest.mark.one_cell
async def test_messages_that_replicas_must_have(
    own_store: Callable[..., Store], start: Start
) -> None:
    """Acknowledged when one has them; told with their ID where none has in time."""
    primary = own_store("--repl-diskless-sync-delay", "0", port=free_port())
    replica = own_store()
    replica.client.replicaof("127.0.0.1", primary.port)
    await asyncio.to_thread(
        eventually, lambda: replica.client.info("replication")["master_link_status"] == "up"
    )
    streams = await start(primary, replicas_ack=1, replicas_timeout=0.3)
    recorder, publisher = await follow(streams, "room"), Publisher(streams)
    for number in range(200):
        publisher.publish("room", str(number))
    assert all(isinstance(each, MessageId) for each in await publisher.ended(200))
    assert replica.client.xlen("streamcast:room") == 200
    waits = primary.client.info("commandstats")["cmdstat_wait"]["calls"]
    assert waits < 20, "one for a batch, not one for a message"
    replica.kill()
    publisher.publish("room", "alone", key="k")
    await until(lambda: "alone" in publisher.by_text)
    told = publisher.by_text["alone"]
    assert isinstance(told, NotReplicated)
    await until(lambda: recorder.texts[-1] == "alone")
    [(id_, _)] = primary.client.xrevrange("streamcast:room", count=1)
    assert told.id == id_.decode()
    assert streams.statistics().publishing == streams.statistics().publishing_bytes == 0
    # With the key it is waited for once more, and nothing is stored again.
    replica.start()
    replica.client.replicaof("127.0.0.1", primary.port)
    again = Publisher(streams)
    while not isinstance(again.by_text.get("alone"), MessageId):
        again.by_text.clear()
        again.publish("room", "alone", key="k")
        await until(lambda: again.by_text)
    assert str(again.by_text["alone"]) == told.id
    assert replica.client.xlen("streamcast:room") == primary.client.xlen("streamcast:room") == 201


@pytest.mark.one_cell
async def test_how_it_is_told_that_replicas_do_not_have_it(
    any_store: Store, run: Callable[..., Server]
) -> None:
    """With the ID in JSON; as a close to one who speaks plain frames; by the client; by publish."""
    store, room = any_store, "not-replicated"
    options = ("--replicas-ack", "1", "--replicas-timeout", "50ms")
    server = await asyncio.to_thread(run, "--redis", store.url, *options)

    def newest() -> str:
        [(id_, _)] = store.client.xrevrange(f"streamcast:{room}", count=1)
        newest: str = id_.decode()
        return newest

    with Client(f"{server.url}/rooms") as client:
        told = client.ask(type="publish", room=room, data="json")
        assert (told["type"], told["code"], told["id"]) == ("error", "not_replicated", newest())
        assert told["message"] == f"It is stored as {newest()}, but 0 of 1 replicas have it."
    with Client(f"{server.url}/rooms/{room}", None) as client:
        client.send("plain")
        assert client.receive() == "plain"
        assert client.closed() == 1013
    async with connect(server.url) as ours:
        with pytest.raises(NotReplicated) as raised:
            await ours.publish(room, "client")
        assert raised.value.id == newest()
    ended = await asyncio.to_thread(finish, "publish", room, "command", "--url", server.url)
    words = f"It is stored as {newest()}, but 0 of 1 replicas have it.\n"
    assert (ended.returncode, ended.stdout, ended.stderr.decode()) == (1, b"", words)
