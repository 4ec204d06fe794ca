"""A cluster, from the streams' point of view: keys that move, and masters that are gone."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from streamcast.config import StreamSettings
from streamcast.errors import StartError, Unavailable
from streamcast.message import MessageId
from streamcast.streams import RedisStreams
from streamcast.streams import cluster as streamcast_cluster
from tests.clusters import Cluster, slot_of
from tests.conftest import ENGINES
from tests.followers import Publisher, Recorder, connecting, follow
from tests.load import until
from tests.nodes import Node
from tests.stores import eventually

ROOMS = [f"room-{number}" for number in range(60)]


@pytest.fixture(scope="module", params=sorted(ENGINES))
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three masters, without replicas; the tests of an engine share it."""
    made = Cluster(ENGINES[request.param], replicas=0)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
async def streams(cluster: Cluster) -> AsyncIterator[RedisStreams]:
    for node in cluster.masters():
        node.client.flushall()
    async with connecting("auto") as start:
        yield await start(cluster)


async def followed(streams: RedisStreams, rooms: list[str]) -> dict[str, Recorder]:
    return {room: await follow(streams, room) for room in rooms}


async def test_one_lane_for_each_master(cluster: Cluster, streams: RedisStreams) -> None:
    """Whatever the number of rooms; what is published comes."""
    recorders, publisher = await followed(streams, ROOMS), Publisher(streams)
    for room in ROOMS:
        publisher.publish(room, room)
    await publisher.ended(len(ROOMS))
    await until(lambda: all(each.texts == [room] for room, each in recorders.items()))
    for node in cluster.masters():
        assert node.lanes() == ["streamcast-rooms"]
    assert {slot_of(f"streamcast:{room}") * 3 // 16384 for room in ROOMS} == {0, 1, 2}
    assert streams.connections == len(streams._nodes.all()) >= 3


@pytest.mark.parametrize("keyed", ["none", "all", "some"])
async def test_a_room_moves_while_it_is_published_to(
    cluster: Cluster, streams: RedisStreams, keyed: str
) -> None:
    """In order, once, and without a gap; what a half moved slot can't take waits (TRYAGAIN).

    Without a key it can be taken: what was overtaken so is refused, not stored in its wrong place.
    """
    recorder, publisher = await follow(streams, "live"), Publisher(streams)
    sent: list[str] = []

    def publish(count: int) -> None:
        for _ in range(count):
            sent.append(str(len(sent)))
            key = sent[-1] if keyed == "all" or (keyed == "some" and len(sent) % 2) else None
            publisher.publish("live", sent[-1], key)

    slot = slot_of("streamcast:live")
    other = next(node for node in cluster.masters() if node is not cluster.node_of_slot(slot))
    publish(20)
    move = cluster.begin_move(slot, other)
    publish(20)
    await asyncio.sleep(0.05)
    publish(20)
    await asyncio.to_thread(move.keys)
    publish(20)
    await asyncio.sleep(0.05)
    publish(20)
    await asyncio.to_thread(move.finish)
    publish(20)
    await publisher.ended(len(sent))
    stored = [text for text in sent if isinstance(publisher.by_text[text], MessageId)]
    await until(lambda: recorder.texts == stored)
    if keyed == "some":
        assert len(stored) < len(sent)
    else:
        assert stored == sent


async def test_an_absent_stream_whose_slot_moves(cluster: Cluster, streams: RedisStreams) -> None:
    """Nobody tells its followers; what is added on the way there, and behind it, comes."""
    recorder = await follow(streams, "empty")
    slot = slot_of("streamcast:empty")
    other = next(node for node in cluster.masters() if node is not cluster.node_of_slot(slot))
    move = cluster.begin_move(slot, other)
    # As another server adds, that was sent there.
    with other.client.pipeline(transaction=False) as pipe:
        pipe.execute_command("ASKING")
        pipe.execute_command("XADD", "streamcast:empty", "*", "message", "on the way")
        pipe.execute()
    await until(lambda: recorder.texts == ["on the way"])
    await asyncio.to_thread(move.finish)
    cluster.client_of("streamcast:empty").xadd("streamcast:empty", {"message": "there"})
    await until(lambda: recorder.texts == ["on the way", "there"])


async def test_history_of_a_room_that_moved(cluster: Cluster, streams: RedisStreams) -> None:
    """It is read where it is, also by the first who asks."""
    await follow(streams, "live")
    publisher = Publisher(streams)
    for number in range(3):
        publisher.publish("live", str(number))
    last = (await publisher.ended(3))[-1]
    assert isinstance(last, MessageId)
    slot = slot_of("streamcast:live")
    other = next(node for node in cluster.masters() if node is not cluster.node_of_slot(slot))
    await asyncio.to_thread(cluster.move_slot, slot, other)
    assert len(await streams.before("live", last, 10)) == 3


async def test_a_master_without_a_replica_is_gone(cluster: Cluster, streams: RedisStreams) -> None:
    """The cluster is down (CLUSTERDOWN): all are told so, safe to try again; then it is back."""
    recorders, publisher = await followed(streams, ROOMS[:20]), Publisher(streams)
    gone, *others = cluster.masters()
    room = next(each for each in ROOMS if cluster.node_of(f"streamcast:{each}") is others[0])
    gone.pause()
    try:
        await asyncio.to_thread(eventually, lambda: all(map(is_down, others)))
        publisher.publish(room, "refused")
        [outcome] = await publisher.ended(1)
        assert isinstance(outcome, Unavailable)
        assert "CLUSTERDOWN" in str(outcome)
        before = others[0].client.info("stats")["total_commands_processed"]
        await asyncio.sleep(1)
        after = others[0].client.info("stats")["total_commands_processed"]
        assert after - before < 200, "refused reads are tried again, but not in a storm"
    finally:
        gone.resume()
    await asyncio.to_thread(cluster.wait_for_ok)
    for name in recorders:
        while not isinstance(publisher.by_text.get(name), MessageId):
            publisher.by_text.clear()
            publisher.publish(name, name)
            await until(lambda: publisher.by_text)
    await until(lambda: all(each.texts == [name] for name, each in recorders.items()))


def is_down(node: Node) -> bool:
    told: dict[str, str] = node.client.execute_command("CLUSTER INFO")
    return told["cluster_state"] == "fail"


async def test_what_can_not_be_started(cluster: Cluster) -> None:
    for url, words in (
        (cluster.url.replace("redis+cluster", "redis").split(",")[0], "write redis.cluster://127"),
        ("redis+cluster://127.0.0.1:1", "can't be reached"),
    ):
        with pytest.raises(StartError, match=words):
            await RedisStreams(StreamSettings(redis=url), 1000).start()


async def test_a_room_that_is_left_and_joined_while_its_slot_moves(
    cluster: Cluster, streams: RedisStreams
) -> None:
    """Another room of the slot tells of the move; whoever joined then hears, not whoever left."""
    one, two = rooms_of_one_slot()
    await follow(streams, one)
    left, publisher = await follow(streams, two), Publisher(streams)
    slot = slot_of(f"streamcast:{one}")
    owner = cluster.node_of_slot(slot)
    other = next(node for node in cluster.masters() if node is not owner)
    await asyncio.to_thread(cluster.move_slot, slot, other)
    publisher.publish(one, "it has moved")
    while str(streams._nodes.of(f"streamcast:{two}".encode()).where) == str(owner):
        await asyncio.sleep(0)
    streams.unfollow(two)
    joined = await follow(streams, two)
    nodes = streams._nodes
    assert isinstance(nodes, streamcast_cluster.Cluster)
    # Behind the next look at the cluster, which tells of the slot too.
    await until(lambda: nodes._owners)
    for text in ("a", "b"):
        publisher.publish(two, text)
    await until(lambda: joined.texts == ["a", "b"])
    assert not left.texts
    streams.unfollow(two)
    assert streams.statistics().followed == 1


def rooms_of_one_slot() -> tuple[str, str]:
    found: dict[int, str] = {}
    for number in range(100_000):
        room = f"r{number}"
        slot = slot_of(f"streamcast:{room}")
        if slot in found:
            return found[slot], room
        found[slot] = room
    raise AssertionError("there is no such slot")


async def test_a_move_that_is_given_up(cluster: Cluster, streams: RedisStreams) -> None:
    """Who followed an absent key to where it was to go comes back with it."""
    recorder = await follow(streams, "given-up")
    slot = slot_of("streamcast:given-up")
    owner = cluster.node_of_slot(slot)
    other = next(node for node in cluster.masters() if node is not owner)
    cluster.begin_move(slot, other)
    key = b"streamcast:given-up"
    await until(lambda: str(streams._nodes.of(key).where) == f"127.0.0.1:{other.port}")
    for node in (owner, other):
        node.client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
    await until(lambda: str(streams._nodes.of(key).where) == f"127.0.0.1:{owner.port}")
    owner.client.xadd("streamcast:given-up", {"message": "still here"})
    await until(lambda: recorder.texts == ["still here"])


async def test_nodes_that_disagree(cluster: Cluster, streams: RedisStreams) -> None:
    """One sends a key away, the other sends it back: no storm, and publishers are told."""
    await follow(streams, "to-and-fro")
    slot = slot_of("streamcast:to-and-fro")
    owner = cluster.node_of_slot(slot)
    other = next(node for node in cluster.masters() if node is not owner)
    owner.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(other))
    try:
        publisher = Publisher(streams)
        publisher.publish("to-and-fro", "refused")
        before = [commands(node) for node in (owner, other)]
        [outcome] = await publisher.ended(1)
        assert isinstance(outcome, Unavailable)
        assert "on its way" in str(outcome)
        after = [commands(node) for node in (owner, other)]
        assert sum(after) - sum(before) < 2_000, "in the 6 s of trying"
    finally:
        owner.client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")


def commands(node: Node) -> int:
    told: int = node.client.info("stats")["total_commands_processed"]
    return told


def node_id(node: Node) -> str:
    told: bytes = node.client.execute_command("CLUSTER", "MYID")
    return told.decode()
