"""Users, passwords and TLS, on each engine; and the commands that go straight to one."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from streamcast.config import StreamSettings
from streamcast.errors import StartError
from streamcast.message import MessageId
from streamcast.streams import RedisStreams
from tests.clusters import Cluster
from tests.commands import finish
from tests.conftest import ENGINES
from tests.followers import Publisher, Start, connecting, follow
from tests.load import until
from tests.sentinels import Sentinels
from tests.tls import Certificates

pytestmark = pytest.mark.one_cell

Several = Sentinels | Cluster


@pytest.fixture
def run_several() -> Iterator[Callable[[Several], Several]]:
    """Starts sentinels or clusters, and ends them."""
    with ExitStack() as stack:

        def begin(made: Several) -> Several:
            stack.callback(made.close)
            made.start()
            return made

        yield begin


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    made = Certificates()
    yield made
    made.close()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with connecting("auto") as made:
        yield made


async def check(start: Start, store: Several) -> None:
    """What is published comes, also from and to the commands that go straight there."""
    streams = await start(store)
    recorder, publisher = await follow(streams, "room"), Publisher(streams)
    publisher.publish("room", "one")
    [outcome] = await publisher.ended(1)
    assert isinstance(outcome, MessageId)
    published = finish("publish", "room", "two", "--redis", store.url)
    assert published.returncode == 0, published.stderr
    await until(lambda: recorder.texts == ["one", "two"])
    tailed = finish("tail", "room", "--all", "--wait", "1s", "--redis", store.url)
    assert (tailed.stdout, tailed.stderr) == (b"one\ntwo\n", b"")


async def test_sentinels(run_several: Callable[[Several], Several], start: Start) -> None:
    """Each with passwords of its own."""
    made = Sentinels(ENGINES["valkey"], user="live", password="s3cret", sentinel_password="0ther")
    await check(start, run_several(made))
    for wrong in ("0ther", "s3cret"):
        with pytest.raises(StartError):
            await start(Elsewhere(made.url.replace(wrong, "wrong")))


async def test_cluster(run_several: Callable[[Several], Several], start: Start) -> None:
    made = Cluster(ENGINES["valkey"], replicas=0, password="s3cret")
    await check(start, run_several(made))
    with pytest.raises(StartError, match="refuses the user or the password"):
        await start(Elsewhere(made.url.replace("s3cret", "wrong")))


@pytest.mark.parametrize("kind", ["sentinels", "cluster"])
async def test_tls(
    run_several: Callable[[Several], Several], start: Start, certificates: Certificates, kind: str
) -> None:
    """On Debian's Redis; a certificate that nobody vouches for is refused."""
    program = ENGINES["redis"]
    made: Several
    if kind == "cluster":
        made = Cluster(program, replicas=0, tls=certificates)
    else:
        made = Sentinels(program, tls=certificates)
    await check(start, run_several(made))
    with pytest.raises(StartError):
        await start(Elsewhere(made.url.partition("?")[0]))


class Elsewhere:
    """A store at a URL."""

    def __init__(self, url: str) -> None:
        self.url = url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+sentinel://127.0.0.1:1", "name for the master is missing"),
        ("redis+sentinel://127.0.0.1:1/rooms/x", "'x' is not the number of a database"),
        ("redis+cluster://127.0.0.1:1/3", "no other database than 0"),
        ("redis+cluster://", "names no host"),
        ("redis+cluster://127.0.0.1:x", "--redis is not a URL that can be used"),
        ("redis+other://127.0.0.1", "--redis is not a URL that can be used"),
        ("redis+sentinel://127.0.0.1:1/rooms", "None of the sentinels says"),
    ],
)
async def test_wrong_urls(url: str, words: str) -> None:
    with pytest.raises(StartError, match=words):
        await RedisStreams(StreamSettings(redis=url), 1000).start()
