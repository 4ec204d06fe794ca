"""A server that may open no more files: it serves those it has, and finds its way back."""

import resource
import sys
from collections import Counter
from collections.abc import Callable

from websockets.frames import Opcode

from tests import stores
from tests.bystander import Bystander
from tests.clients import JSON
from tests.raw import Raw, request, text
from tests.stores import Server, Store, eventually
from tests.test_serve import can_not_start, run

FILES = 300
TOLD = 64
SERVED = FILES - 128 - TOLD


def knock(server: Server, room: str) -> tuple[str, Raw]:
    """What happens to one who wants to join: he is served, told to try later, or cut off."""
    raw = Raw(server)
    try:
        raw.send(request(f"/rooms/{room}", f"Sec-WebSocket-Protocol: {JSON}"))
        raw.head()
    except (ConnectionError, EOFError):
        return "cut", raw
    opcode, data = raw.frame()
    if opcode == Opcode.TEXT:
        assert b'"joined"' in data
        return "served", raw
    assert (opcode, data) == (Opcode.CLOSE, b"\x03\xf5this server is full")
    return "told", raw


def lanes(store: Store) -> set[int]:
    """The IDs of the server's connections to the store."""
    clients = store.client.client_list()
    return {int(each["id"]) for each in clients if each["name"].startswith("streamcast")}


def test_a_server_full_of_clients(
    any_store: Store, serve: Callable[..., Server], notifier: str
) -> None:
    server = serve(any_store, files=FILES)
    bystander = Bystander(server, any_store)
    came: list[tuple[str, Raw]] = [knock(server, bystander.room) for _ in range(FILES + 100)]
    many = Counter(how for how, _ in came)
    # Connections to the store are files that clients then may not have.
    free = SERVED - 2 - len(stores.lanes(notifier, 1))
    assert many == {"served": free, "told": TOLD, "cut": FILES + 100 - free - TOLD}
    # Those who came first are in, and in order.
    assert [how for how, _ in came] == sorted(many.elements(), key=["served", "told", "cut"].index)
    bystander.hears("full")

    # Its lanes, too, are files that have to be opened; those who still come must not take them.
    before = lanes(any_store)
    for lane in before:
        any_store.client.client_kill_filter(_id=lane)
    late = [knock(server, bystander.room) for _ in range(20)]
    assert {how for how, _ in late} == {"cut"}
    eventually(lambda: len(lanes(any_store) - before) == len(before))
    bystander.hears("with new lanes")
    served = [raw for how, raw in came if how == "served"]
    for raw in served:
        assert b'"full"' in raw.frame().data
        assert b'"with new lanes"' in raw.frame().data

    # Where some leave, others get in: no more than left.
    for raw in served[:10]:
        raw.socket.close()
    others = [eventually(lambda: try_to_join(server, bystander.room)) for _ in range(10)]
    assert try_to_join(server, bystander.room) is None
    for raw in others:
        raw.send(text('{"type":"ping"}'))
        assert raw.frame().data == b'{"type":"pong"}'
    for raw in [*others, *(raw for _, raw in [*came, *late])]:
        raw.socket.close()
    bystander.noticed_nothing()
    bystander.leave()


def try_to_join(server: Server, room: str) -> Raw | None:
    how, raw = knock(server, room)
    if how == "served":
        return raw
    raw.socket.close()
    return None


def test_a_kernel_that_gives_no_more_files(any_store: Store, serve: Callable[..., Server]) -> None:
    """As where the whole machine has no more (ENFILE): clients are cut off, until it has."""
    server = serve(any_store)
    bystander = Bystander(server, any_store)
    pid, kind = server.process.pid, resource.RLIMIT_NOFILE
    _, hard = limits = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (server.open_files, hard))
    came = [knock(server, bystander.room) for _ in range(50)]
    assert {how for how, _ in came} == {"cut"}
    bystander.hears("meanwhile")
    resource.prlimit(pid, kind, limits)
    came.append(knock(server, bystander.room))
    assert came[-1][0] == "served"
    for _, raw in came:
        raw.socket.close()
    bystander.noticed_nothing()
    bystander.leave()


def test_too_few_files_to_start() -> None:
    command = f'ulimit -n 255; exec "{sys.executable}" -m streamcast serve'
    can_not_start(run(["sh", "-c", command]), "255", "256", "ulimit -n")
