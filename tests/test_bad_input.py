"""Bad input: what each kind of it is answered with, and that nobody else notices.

Each test has a bystander: in the same room, connected throughout, and afterwards a fresh message
reaches him at once and is the first thing that he hears.
"""

import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import repeat

import pytest
from websockets.frames import Opcode

from tests.bystander import Bystander
from tests.clients import Client
from tests.raw import Frame, Raw, close, frame, request, rest, text
from tests.stores import Server, Store, eventually

MAX_MESSAGE = 65536
SURROGATE = "\ud800"


def shown(value: object) -> str:
    """What a case is called."""
    return ascii(value)[:40]


@pytest.fixture
def bystander(any_server: Server, any_store: Store) -> Iterator[Bystander]:
    one = Bystander(any_server, any_store)
    yield one
    one.noticed_nothing()
    one.leave()


# Heads


def status(answer: bytes) -> int:
    """The status of an answer, which has to be the only one."""
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    return int(answer.split(b" ")[1])


UPGRADE = request()
PLAIN = b"GET /rooms/live HTTP/1.1\r\nHost: x\r\n\r\n"
POST = "POST {} HTTP/1.1"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (request(X="x" * 65536), 431),
        (request("/rooms/live", *repeat("a: b", 2000)), 431),
        (request("/rooms/" + "x" * 10_000), 414),
        (request("/" + "x" * 65536), 431),
        (request(Sec_WebSocket_Key=None), 400),
        (request(Sec_WebSocket_Key="short"), 400),
        (request(Sec_WebSocket_Version="12"), 426),
        (request(Sec_WebSocket_Version=None), 400),
        (request(line="GET {} HTTP/1.0"), 505),
        (request(line="GET {} HTTP/1.0", Upgrade=None), 426),
        (request(line="GET {} HTTP/2.0"), 400),
        (request(line="hello"), 400),
        (request(line=POST), 405),
        (request(line=POST, Upgrade=None), 405),
        (request(line=POST, Content_Length="5") + b"hello", 400),
        (request(line=POST, Upgrade=None, Content_Length="1000000") + b"x" * 1_000_000, 405),
        (request(Transfer_Encoding="chunked") + b"0\r\n\r\n", 400),
        (PLAIN + PLAIN, 426),
        (PLAIN + UPGRADE, 426),
        (PLAIN + b"\x00\xff" * 1000, 426),
    ],
    ids=[
        "a header of 64 KB",
        "2,000 headers",
        "a URL of 10 KB",
        "a URL of 64 KB",
        "no key",
        "a short key",
        "a wrong version",
        "no version",
        "HTTP/1.0",
        "HTTP/1.0, no upgrade",
        "HTTP/2.0",
        "no request",
        "POST",
        "POST, no upgrade",
        "POST with a body",
        "POST, no upgrade, with a body",
        "chunked",
        "a second request",
        "an upgrade behind a request",
        "rubbish behind a request",
    ],
)
def test_heads(any_server: Server, bystander: Bystander, sent: bytes, expected: int) -> None:
    """Refused with a status, which also those can read who send on."""
    with Raw(any_server) as raw:
        raw.send(sent)
        answer = raw.everything()
    assert status(answer) == expected
    if expected == 405:
        assert b"\r\nAllow: GET\r\n" in answer
    if b"Version: 12" in sent:
        assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer


@pytest.mark.parametrize(
    "behind", [b"rubbish", UPGRADE, PLAIN, b"\x00" * 1000, b"\xff" * 1_000_000]
)
def test_rubbish_behind_an_upgrade(any_server: Server, bystander: Bystander, behind: bytes) -> None:
    """The upgrade is answered, the rubbish closed with 1002."""
    with Raw(any_server) as raw:
        raw.send(request(f"/rooms/{bystander.room}"), behind)
        assert raw.head().startswith("HTTP/1.1 101 ")
        assert raw.closed() == 1002


@pytest.mark.parametrize(
    "origin",
    [
        "https://elsewhere.example",
        "null",
        "",
        "http://{host}.evil.example",
        "http://{host}:{port}.evil.example",
        "http://{host}.evil.example:{port}",
        "http://evil-{host}:{port}",
        "http://evil.{host}:{port}",
        "http://{host}:{port}@evil.example",
        "http://evil.example@{host}:{port}",
        "http://{host}:{port}/",
        "http://{host}:{port}#.evil.example",
        "http://{host}:1",
        "http://{host}",
        "http://",
        "{host}:{port}",
        "http://{host}:{port} http://evil.example",
        "http://{host}:{port}\r\nOrigin: http://evil.example",
    ],
)
def test_foreign_origins(any_server: Server, bystander: Bystander, origin: str) -> None:
    place = {"host": "127.0.0.1", "port": any_server.port}
    with Raw(any_server) as raw:
        raw.send(request(Host="{host}:{port}".format(**place), Origin=origin.format(**place)))
        assert status(raw.everything()) == 403


@pytest.mark.parametrize("how", ["options", "variable"])
def test_allowed_origins(
    any_store: Store, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Those that are named, to the letter, and the server's own."""
    allowed = ["https://example.com", "http://localhost:3000"]
    if how == "variable":
        monkeypatch.setenv("STREAMCAST_ALLOW_ORIGIN", " \n".join(allowed))
        server = serve(any_store)
    else:
        server = serve(any_store, *(word for each in allowed for word in ("--allow-origin", each)))
    expected = dict.fromkeys([*allowed, f"http://127.0.0.1:{server.port}"], 101)
    foreign = [
        "https://example.com:443",
        "https://EXAMPLE.com",
        "https://example.com/",
        "https://example.com.evil.example",
        "https://evil-example.com",
        "https://sub.example.com",
        "http://example.com",
        "http://localhost",
        "http://localhost:30000",
        "null",
        " ".join(allowed),
    ]
    expected |= dict.fromkeys(foreign, 403)
    bystander = Bystander(server, any_store)
    for origin, code in expected.items():
        with Raw(server) as raw:
            raw.send(request(Host=f"127.0.0.1:{server.port}", Origin=origin))
            assert raw.head().startswith(f"HTTP/1.1 {code} "), origin
    bystander.noticed_nothing()
    bystander.leave()


def test_a_head_that_does_not_come(any_server: Server, bystander: Bystander) -> None:
    """1,000 that send a byte a second, some that send nothing, some refused that do not close."""
    baseline = any_server.open_files
    silent = [Raw(any_server) for _ in range(20)]
    refused = [Raw(any_server) for _ in range(20)]
    for raw in refused:
        raw.send(PLAIN)
        assert status(raw.everything()) == 426
    slow: list[Raw] = []
    began: dict[Raw, float] = {}
    for _ in range(1000):
        slow.append(Raw(any_server))
        began[slow[-1]] = time.monotonic()
    began |= dict.fromkeys(silent, began[slow[0]])
    ended: dict[Raw, float] = {}
    with selectors.DefaultSelector() as selector:
        for raw in [*slow, *silent]:
            selector.register(raw.socket, selectors.EVENT_READ, raw)
        for byte in request(X="x" * 100):
            for raw in set(slow) - set(ended):
                raw.send(bytes([byte]))
            bystander.hears("meanwhile")
            second = time.monotonic() + 1
            while (left := second - time.monotonic()) > 0 and len(ended) < len(began):
                for key, _ in selector.select(left):
                    assert status(key.data.everything()) == 408
                    ended[key.data] = time.monotonic()
                    selector.unregister(key.fileobj)
            if len(ended) == len(began):
                break
    took = [ended[raw] - began[raw] for raw in began]
    assert min(took) > 9.8
    assert max(took) < 12
    # Those that were refused, too, though they did not close.
    assert eventually(lambda: any_server.open_files == baseline, within=3)
    for raw in [*slow, *silent, *refused]:
        raw.socket.close()


# Frames


@pytest.fixture(params=["plain", "json"])
def offender(
    request: pytest.FixtureRequest, any_server: Server, bystander: Bystander
) -> Iterator[Raw]:
    """One who is in the bystander's room, too."""
    with Raw.joined(any_server, bystander.room, request.param) as raw:
        yield raw


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(Opcode.TEXT, b"unmasked", masked=False), 1002),
        *((frame(Opcode.TEXT, b"x", reserved=bits), 1002) for bits in range(1, 8)),
        *((frame(opcode, b"x"), 1002) for opcode in (3, 7, 11, 15)),
        (frame(Opcode.PING, b"x", fin=False), 1002),
        (frame(Opcode.CLOSE, b"", fin=False), 1002),
        (frame(Opcode.PING, b"x" * 126), 1002),
        (frame(Opcode.PONG, b"x" * 126), 1002),
        (frame(Opcode.TEXT, length=2**63 - 1), 1009),
        (frame(Opcode.TEXT, length=2**64 - 1), 1009),
        (frame(Opcode.BINARY, length=2**32) + b"x" * 1_000_000, 1009),
        (rest(b"of nothing"), 1002),
        (text("in ", fin=False) + text("another"), 1002),
        (text(b"\xff"), 1007),
        (text(b"cut \xe2\x82"), 1007),
        (text(b"half a pair \xed\xa0\x80"), 1007),
        (text(b"\xe2", fin=False) + rest(b"\x82") + rest(b"\x2c", fin=True), 1007),
        (frame(Opcode.CLOSE, b"x"), 1002),
        *((close(code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535)),
        (close(1000, b"\xff"), 1007),
        (close(1000, b"x" * 124), 1002),
    ],
    ids=shown,
)
def test_frames(offender: Raw, sent: bytes, code: int) -> None:
    """Closed with the code that says what was wrong."""
    offender.send(sent)
    assert offender.closed() == code


@pytest.mark.parametrize("dialect", ["plain", "json"])
def test_one_byte_over_the_limit(any_server: Server, bystander: Bystander, dialect: str) -> None:
    """1009, in one frame or in two; a frame just at the limit is none too many."""
    limit = {"plain": MAX_MESSAGE, "json": 6 * MAX_MESSAGE + 4096}[dialect]
    for sent in (
        frame(Opcode.TEXT, length=limit + 1),
        text("x", fin=False) + frame(Opcode.CONT, length=limit),
    ):
        with Raw.joined(any_server, bystander.room, dialect) as raw:
            raw.send(sent)
            assert raw.closed() == 1009
    with Raw.joined(any_server, bystander.room, dialect) as raw:
        fits = "x" * limit if dialect == "plain" else '{"type":"ping"}'.ljust(limit)
        raw.send(text(fits))
        if dialect == "plain":
            bystander.stored.append(fits)
        assert raw.frame().data == (fits if dialect == "plain" else '{"type":"pong"}').encode()


def test_a_message_one_byte_over_the_limit(any_server: Server, bystander: Bystander) -> None:
    """In JSON the frame is not too big; the message is refused, and the connection goes on."""
    with Client(f"{any_server.url}/rooms") as client:
        for data in ("x" * (MAX_MESSAGE + 1), "é" * (MAX_MESSAGE // 2) + "x"):
            told = client.ask(type="publish", room=bystander.room, data=data)
            assert (told["type"], told["code"]) == ("error", "too_big")


@pytest.mark.parametrize(("data", "code"), [(b"x", 1009), (b"", 1008)])
def test_endless_fragments(
    any_server: Server, bystander: Bystander, data: bytes, code: int
) -> None:
    """Those of a byte are too big together, those of none too many."""
    with Raw.joined(any_server, bystander.room) as raw:

        def send() -> None:
            raw.send(text(data, fin=False))
            with suppress(OSError):
                while True:
                    raw.send(rest(data) * 500)

        flood = threading.Thread(target=send)
        flood.start()
        meanwhile = Frame(Opcode.TEXT, b"meanwhile")
        bystander.hears("meanwhile")
        while (got := raw.frame()) == meanwhile:
            bystander.hears("meanwhile")
        raw.socket.shutdown(socket.SHUT_RDWR)
        flood.join()
    assert got.opcode == Opcode.CLOSE
    assert int.from_bytes(got.data[:2], "big") == code


# JSON


@pytest.fixture
def client(any_server: Server) -> Iterator[Client]:
    """A client of several rooms, in none."""
    with Client(f"{any_server.url}/rooms") as client:
        yield client


def answer(client: Client, sent: str | bytes) -> dict[str, object]:
    """What a frame is answered with: one object; afterwards the client is as before."""
    client.send(sent)
    told = client.told()
    client.send('{"type":"ping"}')
    assert client.told() == {"type": "pong"}
    return told


DEEP = 100_000


@pytest.mark.parametrize(
    "sent",
    [
        "",
        " ",
        "x",
        "[]",
        '["type","ping"]',
        '"type"',
        "1",
        "null",
        "true",
        "{",
        "{}",
        "{'type':'ping'}",
        '{"type":"ping"',
        '{"type":"ping"}}',
        '{"type":"ping"}{"type":"ping"}',
        '{"type":"ping",}',
        '\ufeff{"type":"ping"}',
        b'{"type":"ping"}',
        "[" * DEEP,
        '{"a":' * (DEEP * 3 // 4),
        '{"type":"ping"}'.encode("utf-16-le").decode(),
        "[" * DEEP + "]" * DEEP,
        '{"type":"ping","x":' + "[" * DEEP + "]" * DEEP + "}",
        '{"type":"ping","ref":' + "[" * DEEP + "]" * DEEP + "}",
        "9" * 5000,
        '{"type":"ping","ref":' + "9" * 5000 + "}",
        '{"type":"ping","x":-' + "9" * 5000 + "}",
        '{"type":"ping","ref":NaN}',
        '{"type":"ping","ref":Infinity}',
        '{"type":"ping","x":[-Infinity]}',
        '{"type":NaN}',
    ],
    ids=shown,
)
def test_what_is_no_object(client: Client, bystander: Bystander, sent: str | bytes) -> None:
    """`bad_request`, and no more than that: the connection goes on."""
    told = answer(client, sent)
    assert (told["type"], told["code"]) == ("error", "bad_request")


WRONG: Mapping[str, Sequence[object]] = {
    "a string": [1, 1.5, True, None, [], ["x"], {}, {"x": 1}],
    "a string, if there": [1, 1.5, True, [], ["x"], {}],
    "a short string, if there": [1, True, [], {}, "", "x" * 2000, SURROGATE, "x" + SURROGATE],
    "base64": [1, None, [], {}, "", "hex"],
    "a ref": [True, False, [], ["x"], {}, "x" * 129, 10**128, 1e999],
    "a count": ["1", "", 1.5, 1e3, -1, 10_001, 10**100, 1e999, True, [], {}],
}


@pytest.mark.parametrize(
    ("request_", "member", "wrong"),
    [
        *(({}, "type", value) for value in [*WRONG["a string"], "", "x", "PING", SURROGATE]),
        *(
            ({"type": type_}, "room", value)
            for type_ in ("join", "leave", "publish")
            for value in WRONG["a string"]
        ),
        *(
            ({"type": type_}, "ref", value)
            for type_ in ("join", "leave", "publish", "ping")
            for value in WRONG["a ref"]
        ),
        *(({"type": "join"}, "last", value) for value in WRONG["a count"]),
        *(({"type": "join"}, "after", value) for value in WRONG["a string, if there"]),
        ({"type": "join", "after": "0"}, "last", 1),
        *(({"type": "publish"}, "data", value) for value in [*WRONG["a string"], SURROGATE]),
        *(({"type": "publish"}, "encoding", value) for value in WRONG["base64"]),
        *(({"type": "publish"}, "key", value) for value in WRONG["a short string, if there"]),
        *(({"type": "publish"}, "meta", value) for value in WRONG["a short string, if there"]),
        *(
            ({"type": "publish", "encoding": "base64"}, "data", value)
            for value in ["=", "a", "YQ", "é", "Y Q=", SURROGATE]
        ),
    ],
    ids=shown,
)
def test_wrong_members(
    client: Client,
    bystander: Bystander,
    request_: dict[str, object],
    member: str,
    wrong: object,
) -> None:
    """`bad_request`; the reply carries the ref, where that is not what is wrong."""
    whole = {"room": bystander.room, "data": "x", "ref": "mine"} | request_ | {member: wrong}
    told = answer(client, json.dumps(whole).replace("Infinity", "1e999"))
    assert (told["type"], told["code"]) == ("error", "bad_request")
    assert told.get("ref") == (None if member in {"type", "ref"} else "mine") or member == "type"


def test_members_that_are_left_out(client: Client, bystander: Bystander) -> None:
    for request_ in (
        {"type": "join"},
        {"type": "leave"},
        {"type": "publish", "data": "x"},
        {"type": "publish", "room": bystander.room},
        {"room": bystander.room, "data": "x"},
    ):
        assert answer(client, json.dumps(request_))["code"] == "bad_request"


@pytest.mark.parametrize(
    "after", ["", "x", "-", "1-", "-1", "1-2-3", "1.5", "$", "+", "99999999999999999999", SURROGATE]
)
def test_an_id_that_is_none(client: Client, bystander: Bystander, after: str) -> None:
    told = answer(client, json.dumps({"type": "join", "room": bystander.room, "after": after}))
    assert (told["code"], told["room"]) == ("bad_id", bystander.room)


def test_half_a_surrogate_pair_in_a_ref_comes_back(client: Client, bystander: Bystander) -> None:
    """It is JSON (RFC 8259 section 8.2), and so is the reply: ASCII, escaped."""
    assert client.ask(type="ping")["type"] == "pong"
    client.send(json.dumps({"type": "ping", "ref": SURROGATE}))
    raw = client.receive()
    assert isinstance(raw, str)
    assert raw.isascii()
    assert json.loads(raw) == {"type": "pong", "ref": SURROGATE}


def test_members_that_occur_twice(client: Client, bystander: Bystander) -> None:
    """The last one counts, as in browsers; what it overrides is not looked at."""
    room = json.dumps(bystander.room)
    client.send(
        '{"type":"join","room":"elsewhere","data":"first","ref":1,"key":7,'
        f'"type":"publish","room":{room},"data":"last","ref":2,"key":null}}'
    )
    ack = client.told()
    assert (ack["type"], ack["room"], ack["ref"]) == ("ack", bystander.room, 2)
    bystander.stored.append("last")


def test_unknown_members_are_ignored(client: Client, bystander: Bystander) -> None:
    assert answer(client, '{"type":"ping","\\ud800":"\\udfff","":[{}],"x":1e999}')["type"] == "pong"


# Rooms

BAD_ROOMS = [
    "",
    "\x00",
    "a\x00b",
    "a\nb",
    "a\r\nb",
    "a\x1fb",
    "a\x7fb",
    "a\x85b",
    "a\x9fb",
    "a b",
    "a\u2028b",
    "{a}",
    "a{",
    "}",
    "a/b",
    "../a",
    "a?b",
    "a#b",
    "a%2fb",
    "x" * 129,
    "é" * 65,
]


@pytest.mark.parametrize("type_", ["join", "leave", "publish"])
@pytest.mark.parametrize("room", [*BAD_ROOMS, "x" * 10_000, SURROGATE], ids=shown)
def test_bad_rooms(client: Client, bystander: Bystander, room: str, type_: str) -> None:
    """`bad_room`, with the room as it was given."""
    told = answer(client, json.dumps({"type": type_, "room": room, "data": "x", "ref": 1}))
    assert (told["type"], told["code"], told["ref"]) == ("error", "bad_room", 1)
    assert told["room"] == room


def percent_encoded(room: str) -> str:
    return "".join(f"%{byte:02x}" for byte in room.encode())


@pytest.mark.parametrize("dialect", ["plain", "json"])
@pytest.mark.parametrize(
    "path",
    [
        *(percent_encoded(room) for room in BAD_ROOMS if room),
        "a/b",
        "{a}",
        "a%2fb",
        "a%252fb",
        "a%zzb",
        "a%",
        "%ff",
        "%ed%a0%80",
        "a\x01b",
        "a\x7fb",
        "x" * 8000,
    ],
    ids=shown,
)
def test_bad_rooms_in_the_url(
    any_server: Server, bystander: Bystander, path: str, dialect: str
) -> None:
    """4400, and in JSON an error before it."""
    with Raw(any_server) as raw:
        offered = ["Sec-WebSocket-Protocol: streamcast.v1"] if dialect == "json" else []
        raw.send(request(f"/rooms/{path}", *offered), text("for nobody"))
        assert raw.head().startswith("HTTP/1.1 101 ")
        if dialect == "json":
            told = json.loads(raw.frame().data)
            assert (told["type"], told["code"]) == ("error", "bad_room")
        assert raw.closed() == 4400
