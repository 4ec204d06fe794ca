"""What members of a room see, through a real server on a real store."""

import signal
import time

import pytest

from tests.clients import JSON, Client
from tests.stores import Store, eventually, lanes

KEY = "streamcast:live"


def add(store: Store, text: str, id: str = "*") -> str:
    """XADD, as another program does."""
    added: bytes = store.client.xadd(KEY, {"message": text}, id=id)
    return added.decode()


@pytest.fixture
def join(dialect: str):
    """Joins `live`, in the dialect of the cell; a JSON client is past its `joined`."""
    clients = []

    def connect(server, query: str = "", room: str = "live") -> Client:
        client = Client(f"{server.url}/rooms/{room}{query}", JSON if dialect == "json" else None)
        clients.append(client)
        if dialect == "json":
            assert client.told()["type"] == "joined"
        else:
            # Nothing tells a plain client that it has joined, but its own message does.
            if not query:
                client.send("join me")
                assert client.receive() == "join me"
        return client

    yield connect
    for client in clients:
        client.socket.close()


@pytest.fixture
def read(dialect: str):
    """Reads the texts of the next messages; nothing else may come between."""

    def messages(client: Client, count: int) -> list[str]:
        if dialect == "json":
            return client.data(count)
        return [str(client.receive()) for _ in range(count)]

    return messages


def test_first_message_of_a_new_room(store: Store, serve, dialect: str) -> None:
    server = serve(store)
    with Client(f"{server.url}/rooms/live", JSON if dialect == "json" else None) as client:
        # Nothing tells a plain client that it has joined; one who joins behind it is told.
        with Client(f"{server.url}/rooms/live", JSON) as witness:
            assert witness.told() == {
                "type": "joined", "room": "live", "head": "0-0", "resumed": False
            }  # fmt: skip
        if dialect == "json":
            assert client.told()["head"] == "0-0"
        id_ = add(store, "first")
        if dialect == "json":
            assert client.told() == {"type": "message", "room": "live", "id": id_, "data": "first"}
        else:
            assert client.receive() == "first"


def test_next_message_after_the_newest_was_deleted(store: Store, serve, join, read) -> None:
    client = join(serve(store))
    id_ = add(store, "a")
    assert read(client, 1) == ["a"]
    store.client.xdel(KEY, id_)
    assert client.silent()
    add(store, "b")
    assert read(client, 1) == ["b"]


def test_next_message_after_all_was_trimmed_once_seen(store: Store, serve, join, read) -> None:
    client = join(serve(store))
    add(store, "a")
    assert read(client, 1) == ["a"]
    store.client.xtrim(KEY, maxlen=0, approximate=False)
    assert client.silent()
    add(store, "b")
    assert read(client, 1) == ["b"]


@pytest.mark.parametrize("how", ["del", "flushall", "smaller", "same id"])
def test_another_history(store: Store, serve, join, dialect: str, notifier: str, how: str) -> None:
    """JSON clients are told of a gap and go on; plain ones close with 4300.

    At once with `tracking`; `block` learns of it by the audit.
    """
    client = join(serve(store, *(["--audit", "500ms"] if notifier == "block" else [])))
    id_ = add(store, "a")
    client.receive()
    with store.client.pipeline(transaction=True) as pipe:
        pipe.flushall() if how == "flushall" else pipe.delete(KEY)
        if how == "smaller":
            pipe.xadd(KEY, {"message": "b"}, id="5-0")
        elif how == "same id":
            pipe.xadd(KEY, {"message": "b"}, id=id_)
        pipe.execute()
    if dialect == "plain":
        assert client.closed() == 4300
        return
    gap = client.told()
    assert (gap["type"], gap["after"]) == ("gap", id_)
    if how in {"smaller", "same id"}:
        new = "5-0" if how == "smaller" else id_
        assert (gap["earliest"], gap["latest"]) == (new, new)
        assert client.data(1) == ["b"]
    else:
        assert (gap["earliest"], gap["latest"]) == (None, "0-0")
    id_ = add(store, "c")
    assert client.told() == {"type": "message", "room": "live", "id": id_, "data": "c"}


def test_burst_past_maxlen_while_the_server_stood_still(
    store: Store, serve, join, dialect: str
) -> None:
    server = serve(store)
    client = join(server)
    seen = add(store, "seen")
    client.receive()
    server.signal(signal.SIGSTOP)
    eventually(server.is_stopped)
    pipe = store.client.pipeline(transaction=False)
    for number in range(5000):
        pipe.execute_command("XADD", KEY, "MAXLEN", 1000, "*", "message", number)
    ids = [id_.decode() for id_ in pipe.execute()]
    assert server.is_stopped()
    server.signal(signal.SIGCONT)
    if dialect == "plain":
        assert client.closed() == 4300
        return
    gap = client.told()
    assert gap == {
        "type": "gap", "room": "live", "after": seen, "earliest": ids[4000], "latest": ids[-1]
    }  # fmt: skip
    assert client.data(1000) == [str(number) for number in range(4000, 5000)]


BUSY_SCRIPT = """
redis.call('XADD', KEYS[1], '*', 'message', 'late')
local now = function() local t = redis.call('TIME'); return t[1] * 1000 + t[2] / 1000 end
local over = now() + 500
while now() < over do end
"""


def errors(store: Store, kind: str) -> int:
    """How many commands the store refused in this way."""
    found: dict[str, int] = store.client.info("errorstats").get(f"errorstat_{kind}", {"count": 0})
    return found["count"]


def test_a_read_refused_by_a_busy_store_is_made_up_for(
    store: Store, serve, join, read, notifier: str
) -> None:
    """At once, that is; the audit would come after 30 s. One who waits hears nothing too early."""
    client = join(serve(store))
    store.client.config_resetstat()
    store.client.eval(BUSY_SCRIPT, 1, KEY)
    began = time.monotonic()
    assert read(client, 1) == ["late"]
    assert time.monotonic() - began < 2
    if notifier == "tracking":
        assert errors(store, "BUSY") > 0, "the store was never busy when it was read"


def test_reads_refused_while_the_store_loads_are_made_up_for(own_store, serve, join, read) -> None:
    slowly = ("--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024")
    store = own_store(*slowly)
    with store.client.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.set(f"other:{number}", number)
        pipe.execute()
    client = join(serve(store))
    add(store, "before")
    assert read(client, 1) == ["before"]
    store.client.save()
    store.kill()
    store.start()
    assert store.ping().startswith(b"-LOADING")
    eventually(lambda: store.ping() == b"+PONG\r\n")
    began = time.monotonic()
    add(store, "after")
    assert read(client, 1) == ["after"]
    assert time.monotonic() - began < 3
    assert errors(store, "LOADING") > 0, "the store was never read while it loaded"


def test_resume(store: Store, serve) -> None:
    """After the newest ID, one in the middle, one trimmed away, one of the future, and no ID."""
    ids = [add(store, str(number)) for number in range(20)]
    store.client.xtrim(KEY, maxlen=15, approximate=False)
    server = serve(store)

    def join(**start: object) -> tuple[dict[str, object], Client]:
        client = Client(f"{server.url}/rooms")
        return client.ask(type="join", room="live", **start), client

    joined, client = join(after=ids[-1])
    assert joined["resumed"]
    assert client.silent()
    joined, client = join(after=ids[11])
    assert joined["resumed"]
    assert joined["head"] == ids[11]
    assert client.data(8) == [str(number) for number in range(12, 20)]
    joined, client = join(after=ids[2])
    assert not joined["resumed"]
    gap = {"type": "gap", "room": "live", "after": ids[2], "earliest": ids[5], "latest": ids[-1]}
    assert client.told() == gap
    assert client.data(15) == [str(number) for number in range(5, 20)]
    future = "99999999999999-0"
    joined, client = join(after=future)
    assert not joined["resumed"]
    assert client.told() == gap | {"after": future}
    assert client.data(15) == [str(number) for number in range(5, 20)]
    joined, client = join(after="0-0")
    assert not joined["resumed"]
    assert client.told() == gap | {"after": "0-0"}
    assert client.data(15) == [str(number) for number in range(5, 20)]
    joined, client = join(after="0")
    assert client.data(15) == [str(number) for number in range(5, 20)]
    refused, client = join(after="yesterday")
    assert (refused["type"], refused["code"]) == ("error", "bad_id")


def test_resume_from_nothing(store: Store, serve) -> None:
    """0-0 is where one is who joined before the first message; nothing is missing after it."""
    server = serve(store)
    with Client(f"{server.url}/rooms") as client:
        head = client.ask(type="join", room="live")["head"]
    assert head == "0-0"
    add(store, "a")
    add(store, "b")
    with Client(f"{server.url}/rooms") as client:
        assert client.ask(type="join", room="live", after=head)["resumed"]
        assert client.data(2) == ["a", "b"]


def test_the_last(store: Store, serve, dialect: str) -> None:
    server = serve(store)
    for number in range(30):
        add(store, str(number))
    url = f"{server.url}/rooms/live"
    for last, first in ((3, 27), (30, 0), (100, 0)):
        with Client(f"{url}?last={last}", JSON if dialect == "json" else None) as client:
            expected = [str(number) for number in range(first, 30)]
            if dialect == "json":
                assert client.told()["type"] == "joined"
                assert client.data(30 - first) == expected
            else:
                assert [client.receive() for _ in expected] == expected
            assert client.silent()


@pytest.mark.parametrize("kind", ["foreign", "own"])
def test_entries_that_are_not_utf8_or_large(
    store: Store, serve, join, dialect: str, kind: str
) -> None:
    """Told as the design says, and nobody is closed for them."""
    client = join(serve(store))
    field = "anything" if kind == "foreign" else "message"
    strange, large = b"\xff\xfe", b"x" * 10_000_000
    store.client.xadd(KEY, {field: strange})
    id_ = store.client.xadd(KEY, {field: large}).decode()
    store.client.xadd(KEY, {field: "after"})
    if dialect == "plain":
        assert client.receive() == strange
        assert client.receive() == "after"
    else:
        told = client.told()
        assert (told["encoding"], told["data"]) == ("base64", "//4=")
        size = 10_000_000 + (len(field) if kind == "foreign" else 0)
        assert client.told() == {"type": "skipped", "room": "live", "id": id_, "size": size}
        assert client.told()["data"] == "after"
    assert client.silent()


def test_a_foreign_entry_has_its_fields(store: Store, serve) -> None:
    with Client(f"{serve(store).url}/rooms/live") as client:
        client.told()
        store.client.xadd(KEY, {"aaa": "1234", "bbb": "5"})
        told = client.told()
        assert (told["data"], told["fields"]) == ("1234", {"aaa": "1234", "bbb": "5"})


def test_a_thousand_rooms_take_two_connections(store: Store, serve, notifier: str) -> None:
    """And with `block`, one more for each 256 rooms."""
    with Client(f"{serve(store).url}/rooms") as client:
        for number in range(1000):
            assert client.ask(type="join", room=f"room{number}")["type"] == "joined"
        assert store.lanes() == lanes(notifier, 1000)
        refused = client.ask(type="join", room="one more")
        assert refused["code"] == "bad_room"
        assert client.ask(type="join", room="more")["code"] == "too_many_rooms"
        for number in (0, 500, 999):
            store.client.xadd(f"streamcast:room{number}", {"message": "hi"})
            assert client.told()["room"] == f"room{number}"
