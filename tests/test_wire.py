"""Both dialects: a batch in, bytes out; client frames in, requests out."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import BINARY as OP_BINARY
from websockets.frames import TEXT as OP_TEXT
from websockets.frames import Frame
from websockets.protocol import CLIENT, Protocol

from streamcast.errors import BadRoom, TooBig, Unavailable, Unknown
from streamcast.message import Gap, Message, MessageId, as_message
from streamcast.wire import (
    DIALECTS,
    PLAIN,
    Batch,
    Close,
    Dialect,
    Invalid,
    Join,
    Leave,
    Ping,
    Publish,
    Start,
    json_v1,
)

JSON = DIALECTS["streamcast.v1"]
ID = MessageId.of(5, 1)
MAX = 100


def frames(data: bytes) -> list[tuple[bool, bytes]]:
    """Read frames as a client does; each is text or not, and its payload."""
    client = Protocol(CLIENT, max_size=None)
    client.receive_data(data)
    assert client.parser_exc is None
    found = [event for event in client.events_received() if isinstance(event, Frame)]
    return [(frame.opcode is OP_TEXT, bytes(frame.data)) for frame in found]


def objects(data: object) -> list[dict[str, Any]]:
    assert isinstance(data, bytes)
    return [json.loads(payload) for is_text, payload in frames(data) if is_text]


def message(*fields: bytes, id: MessageId = ID, limit: int = 10**6) -> Message:
    return as_message(id, fields, limit)


def ask(dialect: Dialect, frame: str | bytes, room: str | None = None) -> Any:
    data = frame.encode() if isinstance(frame, str) else frame
    return dialect.decode(data, MAX, room, text=isinstance(frame, str))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 1023, 1024, 65535, 65536, 100_000])
def test_frames_of_every_length(size: int) -> None:
    own = message(b"message", b"x" * size)
    assert frames(PLAIN.encode("r", [own, own]).data) == [(True, b"x" * size)] * 2
    assert objects(JSON.encode("r", [own]).data)[0]["data"] == "x" * size


@given(st.text(), st.text(min_size=1, max_size=20), st.one_of(st.none(), st.text(max_size=9)))
def test_any_text_comes_out_as_it_went_in(text: str, room: str, meta: str | None) -> None:
    extra = [] if meta is None else [b"meta", meta.encode(errors="replace")]
    own = message(b"message", text.encode(errors="replace"), *extra)
    expected = text.encode(errors="replace").decode()
    [told] = objects(JSON.encode(room, [own]).data)
    assert (told["type"], told["room"], told["id"], told["data"]) == (
        "message", room, "5-1", expected
    )  # fmt: skip
    assert "encoding" not in told
    assert told.get("meta") == (None if meta is None else meta.encode(errors="replace").decode())
    assert frames(PLAIN.encode(room, [own]).data) == [(True, expected.encode())]


@given(st.binary())
def test_any_bytes_come_out_as_they_went_in(data: bytes) -> None:
    own = message(b"binary", data)
    [told] = objects(JSON.encode("r", [own]).data)
    assert told["encoding"] == "base64"

    assert base64.b64decode(told["data"]) == data
    assert frames(PLAIN.encode("r", [own]).data) == [(False, data)]


def test_text_that_is_not_utf8_goes_out_as_binary() -> None:
    for field in (b"message", b"anything"):
        strange = message(field, b"\xff")
        assert frames(PLAIN.encode("r", [strange]).data) == [(False, b"\xff")]
        [told] = objects(JSON.encode("r", [strange]).data)
        assert (told["encoding"], told["data"]) == ("base64", "/w==")


def test_a_foreign_entry_is_its_first_field_and_in_json_all() -> None:
    foreign = message(b"aaa", b"1234", b"b\xff", b"\xfe")
    assert frames(PLAIN.encode("r", [foreign]).data) == [(True, b"1234")]
    [told] = objects(JSON.encode("r", [foreign]).data)
    assert told["data"] == "1234"
    assert told["fields"] == {"aaa": "1234", "b\\xff": {"encoding": "base64", "data": "/g=="}}


def test_an_entry_over_the_limit_is_skipped() -> None:
    large = message(b"aaa", b"x" * 20, limit=10)
    assert PLAIN.encode("r", [large]) == Batch(b"")
    assert objects(JSON.encode("r", [large]).data) == [
        {"type": "skipped", "room": "r", "id": "5-1", "size": 23}
    ]
    assert message(b"aaa", b"x" * 7, limit=10).data is not None


def test_a_gap_is_told_or_closes() -> None:
    gap = Gap(MessageId.of(1, 0), None, MessageId.of(3, 0), MessageId.of(1, 0))
    before = message(b"message", b"before")
    batch = PLAIN.encode("r", [before, gap, before])
    assert frames(batch.data) == [(True, b"before")]
    assert batch.close is not None
    assert batch.close.code == 4300
    told = objects(JSON.encode("r", [gap]).data)
    assert told == [{"type": "gap", "room": "r", "after": "1-0", "earliest": None, "latest": "3-0"}]
    told = objects(JSON.encode("r", [gap._replace(earliest=MessageId.of(2, 0))]).data)
    assert told[0]["earliest"] == "2-0"


def test_replies() -> None:
    assert objects(JSON.joined("r", 7, ID, resumed=True)) == [
        {"type": "joined", "room": "r", "head": "5-1", "resumed": True, "ref": 7}
    ]
    assert objects(JSON.left("r", None)) == [{"type": "left", "room": "r"}]
    assert objects(JSON.acked("r", "x", ID)) == [
        {"type": "ack", "room": "r", "id": "5-1", "ref": "x"}
    ]
    for ref in ("é", "\ud800", 2**63, 10**127, -1, 1.5, 1e300, ""):
        assert objects(JSON.acked("é", ref, ID)) == [
            {"type": "ack", "room": "é", "id": "5-1", "ref": ref}
        ]
    assert objects(JSON.acked("r", None, ID)) == [{"type": "ack", "room": "r", "id": "5-1"}]
    assert objects(JSON.pong(1.5)) == [{"type": "pong", "ref": 1.5}]
    [told] = objects(JSON.error(BadRoom("why"), "r", "x"))
    assert told == {
        "type": "error", "room": "r", "code": "bad_room", "message": "why", "ref": "x"
    }  # fmt: skip
    assert PLAIN.joined("r", None, ID, resumed=False) == b""
    assert PLAIN.acked("r", None, ID) == b""


@pytest.mark.parametrize(
    ("error", "code", "close"),
    [
        (Unavailable("x"), "unavailable", 1013),
        (Unknown("x"), "unknown", 1013),
        (TooBig("x"), "too_big", 1009),
        (BadRoom("x"), "bad_room", 4400),
    ],
)
def test_errors_by_dialect(error: Any, code: str, close: int) -> None:
    assert objects(JSON.error(error, "r", None))[0]["code"] == code
    closed = PLAIN.error(error, "r", None)
    assert isinstance(closed, Close)
    assert closed.code == close


def test_requests() -> None:
    assert ask(JSON, '{"type":"join","room":"r","ref":"x"}') == Join("r", Start(), "x")
    joined = ask(JSON, '{"type":"join","room":"r","after":"5-1","epoch":"e"}')
    assert joined.start == Start(after=ID)
    assert ask(JSON, '{"type":"join","room":"r","after":"0"}').start == Start(everything=True)
    zero = Start(after=MessageId.of(0, 0))
    assert ask(JSON, '{"type":"join","room":"r","after":"0-0"}').start == zero
    assert ask(JSON, '{"type":"join","room":"r","last":3}').start == Start(last=3)
    assert ask(JSON, '{"type":"leave","room":"r","ref":2}') == Leave("r", 2)
    assert ask(JSON, '{"type":"ping","ref":2}') == Ping(2)
    assert ask(JSON, '{"type":"publish","room":"r","data":"a","key":"k","meta":"m"}') == Publish(
        "r", b"a", text=True, key="k", meta="m"
    )
    binary = ask(JSON, '{"type":"publish","room":"r","data":"/w==","encoding":"base64"}')
    assert (binary.data, binary.text) == (b"\xff", False)
    assert ask(PLAIN, "a", "r") == Publish("r", b"a", text=True)
    assert ask(PLAIN, b"a", "r") == Publish("r", b"a", text=False)
    assert ask(PLAIN, "x" * (MAX + 1), "r").error.code == "too_big"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ('{"type":"join"}', "bad_request"),
        ('{"type":"join","room":7}', "bad_request"),
        ('{"type":"join","room":"a b"}', "bad_room"),
        ('{"type":"join","room":""}', "bad_room"),
        ('{"type":"join","room":"\\ud800"}', "bad_room"),
        ('{"type":"join","room":"' + "é" * 65 + '"}', "bad_room"),
        ('{"type":"join","room":"r","after":"x"}', "bad_id"),
        ('{"type":"join","room":"r","after":"1-2-3"}', "bad_id"),
        ('{"type":"join","room":"r","after":"99999999999999999999-0"}', "bad_id"),
        ('{"type":"join","room":"r","after":5}', "bad_request"),
        ('{"type":"join","room":"r","after":"1-0","last":1}', "bad_request"),
        ('{"type":"join","room":"r","last":-1}', "bad_request"),
        ('{"type":"join","room":"r","last":true}', "bad_request"),
        ('{"type":"join","room":"r","ref":{}}', "bad_request"),
        ('{"type":"join","room":"r","ref":1e999}', "bad_request"),
        ('{"type":"join","room":"r","ref":' + "9" * 401 + "}", "bad_request"),
        ('{"type":"join","room":"r","ref":"' + "x" * 129 + '"}', "bad_request"),
        ('{"type":"join","room":"r","last":10001}', "bad_request"),
        ('{"type":"publish","room":"r"}', "bad_request"),
        ('{"type":"publish","room":"r","data":"\\ud800"}', "bad_request"),
        ('{"type":"publish","room":"r","data":"?","encoding":"base64"}', "bad_request"),
        ('{"type":"publish","room":"r","data":"","encoding":"hex"}', "bad_request"),
        ('{"type":"publish","room":"r","data":"' + "x" * 101 + '"}', "too_big"),
        ('{"type":"publish","room":"r","data":"","key":""}', "bad_request"),
        ('{"type":"publish","room":"r","data":"","meta":7}', "bad_request"),
    ],
)
def test_requests_that_can_not_be_done(frame: str, code: str) -> None:
    invalid = ask(JSON, frame)
    assert isinstance(invalid, Invalid)
    assert (invalid.error.code, invalid.malformed) == (code, False)


@pytest.mark.parametrize(
    "frame",
    ["", "x", "7", "[]", "null", "{}", '{"type":7}', '{"type":"dance"}', "[" * 10**5, "9" * 5000,
     '{"type":"ping","ref":NaN}', b"{}", b'{"type":"publish","room":"r","data":"x"}',
     '{"type":"publish","room":"r","data":"x","more":' + "[" * 10**5 + "]" * 10**5 + "}"],
)  # fmt: skip
def test_frames_that_are_no_requests(frame: str | bytes) -> None:
    invalid = ask(JSON, frame)
    assert isinstance(invalid, Invalid)
    assert invalid.malformed


@given(
    st.one_of(
        st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))
    )
)
def test_nothing_that_a_client_sends_raises(data: bytes) -> None:
    if data.isascii():
        JSON.decode(data, MAX, None, text=True)
    PLAIN.decode(data, MAX, "r", text=False)


@given(
    st.dictionaries(
        st.sampled_from(["type", "room", "ref", "after", "last", "data", "key", "encoding"]),
        st.one_of(
            st.sampled_from(["join", "leave", "publish", "ping", "r", "0", "base64"]),
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.none()),
        ),
    )
)  # fmt: skip
def test_no_object_that_a_client_sends_raises(request: dict[str, Any]) -> None:
    asked = JSON.decode(json.dumps(request).encode(), MAX, None, text=True)
    if isinstance(asked, Invalid):
        objects(JSON.error(asked.error, asked.room, asked.ref))


@pytest.mark.parametrize(
    ("member", "values"),
    [
        ("type", ["publish", "join", "ping", 1]),
        ("room", ["é", "a b", "", "\ud800", "x" * 129, 7, None]),
        ("data", ["", "é", "é" * (MAX // 2), "é" * MAX, "x" * (MAX + 1), "\udfff", 7, None]),
        ("ref", [None, True, 0, -1, 2**53, 2**64, 10**127, 10**128, 1.5, "", "\ud800", []]),
        ("ref", ["x" * 128, "x" * 129, "é" * 128, "é" * 129]),
        ("key", [None, "", "k", "k" * 128, "k" * 129, "é", "é" * 64, "é" * 65, "\ud800", 7]),
        ("encoding", [None, "base64", "hex"]),
        ("more", [None, [], "\ud800", 1.5]),
    ],
)
def test_a_publish_is_read_in_one_step_as_it_is_member_by_member(
    member: str, values: list[object]
) -> None:
    """One that has `meta`, which may be null, is read member by member."""
    usual: dict[str, object] = {"type": "publish", "room": "r", "data": "eA==", "ref": "x"}
    requests = [usual | {member: value} for value in values]
    requests.append({name: value for name, value in usual.items() if name != member})
    for request in requests:
        frames = [json.dumps(each).encode() for each in (request, request | {"meta": None})]
        read, expected = (JSON.decode(frame, MAX, None, text=True) for frame in frames)
        if isinstance(expected, Invalid):
            assert isinstance(read, Invalid)
            assert str(read.error) == str(expected.error)
        else:
            assert read == expected
            assert type(read.ref) is type(expected.ref)


def test_a_usual_publish_is_not_read_member_by_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_v1, "_read", None)
    for more in (
        {"data": "é" * (MAX // 2)},
        {"data": "x" * MAX},
        {"ref": None},
        {"ref": "x" * 128},
        {"ref": 2**53},
        {"ref": -(2**53)},
        {"key": "k" * 128},
        {"more": [None]},
    ):
        request = {"type": "publish", "room": "r", "data": "x"} | more
        assert isinstance(ask(JSON, json.dumps(request)), Publish)
    with pytest.raises(TypeError):
        ask(JSON, json.dumps(request | {"meta": None}))


def test_bytes_that_are_not_utf8_are_no_request() -> None:
    for frame in (b'{"type":"publish","room":"\xff","data":""}', b'{"type":"\xff"}'):
        assert isinstance(JSON.decode(frame, MAX, None, text=True), Invalid)


def test_binary_frames_of_the_plain_dialect_have_their_opcode() -> None:
    client = Protocol(CLIENT)
    client.receive_data(PLAIN.encode("r", [message(b"binary", b"a")]).data)
    [frame] = client.events_received()
    assert isinstance(frame, Frame)
    assert frame.opcode is OP_BINARY
