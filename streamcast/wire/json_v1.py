"""The dialect `streamcast.v1`: JSON objects with a `type`, several rooms on a connection.

The law of this file: a client may send anything, and gets an answer that is JSON; nothing that it
sends raises.
"""

import base64
import binascii
import json
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Never

from msgspec import Meta, Raw, Struct
from msgspec.json import Decoder, Encoder

from streamcast.errors import BadRequest, BadRoom, CodedError, NotReplicated, RequestError, TooBig
from streamcast.message import MAX_META, Gap, Item, Message, MessageId, room_name
from streamcast.wire.dialect import Batch, Reply
from streamcast.wire.frames import text as text_frame
from streamcast.wire.requests import Invalid, Join, Leave, Ping, Publish, Ref, Request, Start

MAX_KEY = 128
"""How many bytes a publish's `key` has at most."""
MAX_LAST = 10_000
"""How many messages `last` brings at most."""
MAX_REF = 128
"""How many characters a `ref` has at most."""
_write = json.JSONEncoder(separators=(",", ":")).encode


class JsonV1:
    """What a client that offers the subprotocol `streamcast.v1` speaks."""

    name = "streamcast.v1"

    def max_frame(self, max_message: int) -> int:
        """Every byte may be escaped as six; the rest of the object needs room too."""
        return 6 * max_message + 4096

    def encode(self, room: str, items: Sequence[Item]) -> Batch:
        """Encode each item as one object in one text frame."""
        parts: list[bytes] = []
        for item in items:
            if isinstance(item, Gap) or item.data is None:
                body = _notice(room, item)
            else:
                body = _encode(_message(room, item, item.data))
            parts.append(text_frame(body))
        return Batch(parts[0] if len(parts) == 1 else b"".join(parts))

    def decode(self, data: bytes, max_message: int, room: str | None, text: bool) -> Request:
        """Read a request; what is none comes back as Invalid."""
        if not text:
            return _no_request()
        try:
            asked = _read_usual_publish(data)
            name, payload, key = room_name(asked.room), asked.data.encode(), asked.key
        except (ValueError, RecursionError, BadRoom):
            return _any_request(data, max_message)
        unusual = asked.meta or asked.encoding or len(payload) > max_message
        # A key's limit is one of bytes.
        if unusual or not (key is None or key.isascii()):
            return _any_request(data, max_message)
        return Publish(name, payload, True, asked.ref, key)

    def joined(self, room: str, ref: Ref, head: MessageId, *, resumed: bool) -> Reply:
        """`joined`."""
        return _reply(type="joined", room=room, ref=ref, head=str(head), resumed=resumed)

    def left(self, room: str, ref: Ref) -> Reply:
        """`left`."""
        return _reply(type="left", room=room, ref=ref)

    def acked(self, room: str, ref: Ref, id: MessageId) -> bytes:
        """`ack`."""
        try:
            return text_frame(_encode(_Ack(room, id.text, ref)))
        except UnicodeEncodeError:
            # Half of a surrogate pair, which only escaped is JSON.
            return _reply(type="ack", room=room, id=str(id), ref=ref)

    def pong(self, ref: Ref) -> Reply:
        """`pong`."""
        return _reply(type="pong", ref=ref)

    def error(self, error: CodedError, room: str | None, ref: Ref) -> Reply:
        """`error`, with the code that tells whether a retry is safe."""
        extra = {} if room is None else {"room": room}
        if isinstance(error, NotReplicated):
            extra["id"] = error.id
        return _reply(type="error", ref=ref, **extra, code=error.code, message=str(error))


def _reply(*, ref: Ref, **members: Any) -> bytes:
    if ref is not None:
        members["ref"] = ref
    return _object(members)


def _object(members: dict[str, Any]) -> bytes:
    return text_frame(_write(members).encode())


class _Ack(Struct, tag_field="type", tag="ack", omit_defaults=True, gc=False):
    """An `ack`, as it is written."""

    room: str
    id: str
    ref: Ref = None


class _Message(Struct, tag_field="type", tag="message", omit_defaults=True, gc=False):
    """A `message`, as it is written."""

    room: str
    id: str
    data: str
    encoding: str | None = None
    meta: str | None = None
    fields: dict[str, Any] | None = None


_encode = Encoder().encode


def _message(room: str, message: Message, data: bytes) -> _Message:
    fields = None if message.fields is None else _fields(message.fields)
    if message.text:
        return _Message(room, message.id.text, data.decode(), None, message.meta, fields)
    encoded = base64.b64encode(data).decode()
    return _Message(room, message.id.text, encoded, "base64", message.meta, fields)


def _fields(fields: Sequence[bytes]) -> dict[str, Any]:
    """Return a foreign entry's fields; a value that is not UTF-8 as an object with base64."""
    return {
        name.decode(errors="backslashreplace"): _field(value)
        for name, value in zip(fields[::2], fields[1::2], strict=True)
    }


def _field(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"encoding": "base64", "data": base64.b64encode(value).decode()}


def _notice(room: str, item: Item) -> bytes:
    """Return the object that tells of what is not sent."""
    members: dict[str, Any]
    if isinstance(item, Gap):
        earliest = None if item.earliest is None else str(item.earliest)
        members = {"type": "gap", "room": room, "after": str(item.after)}
        members |= {"earliest": earliest, "latest": str(item.latest)}
    else:
        members = {"type": "skipped", "room": room, "id": str(item.id), "size": item.size}
    return _write(members).encode()


# What JavaScript counts in; of a larger one the characters are counted.
_SMALL = Meta(ge=-(2**53), le=2**53)


class _UsualPublish(Struct, gc=False):
    """A publish of text as nearly all are; what is none of these is read member by member.

    Members that are unknown are passed over, even where Python could not hold them.
    """

    type: Literal["publish"]
    room: str
    data: str
    ref: Annotated[str, Meta(max_length=MAX_REF)] | Annotated[int, _SMALL] | None = None
    key: Annotated[str, Meta(min_length=1, max_length=MAX_KEY)] | None = None
    # One that has any of these, whatever it is, is none.
    meta: Raw = Raw()
    encoding: Raw = Raw()


_read_usual_publish = Decoder(_UsualPublish).decode


def _refuse_constant(name: str) -> Never:
    raise ValueError(name)


# RFC 8259 knows no NaN and no Infinity, and neither do other JSON parsers.
_json = json.JSONDecoder(parse_constant=_refuse_constant)


def _read(data: bytes) -> Any:
    """Read JSON. Raises ValueError, RecursionError."""
    # Decoded here: given bytes, it would take UTF-16 and UTF-32 as well.
    text = data.decode()
    if text[:1] == "{" and text[-1:] == "}":
        # No white space to look for; it is about a fifth of the time.
        found, end = _json.raw_decode(text)
        if end == len(text):
            return found
    return _json.decode(text)


def _any_request(data: bytes, max_message: int) -> Request:
    try:
        request = _read(data)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict) or not isinstance(request.get("type"), str):
        return _no_request()
    return _request(request, max_message)


def _no_request() -> Invalid:
    error = BadRequest("A request is a JSON object with a type, in a text frame.")
    return Invalid(error, malformed=True)


def _request(request: dict[str, Any], max_message: int) -> Request:
    room, ref = request.get("room"), request.get("ref")
    if ref is not None:
        try:
            _check_ref(ref)
        except BadRequest as error:
            return _invalid(error, room, None)
    try:
        kind = request["type"]
        if kind == "ping":
            return Ping(ref)
        if kind not in _WITH_ROOM:
            unknown = BadRequest("The types of requests are join, leave, publish and ping.")
            return Invalid(unknown, None, ref, malformed=True)
        if not isinstance(room, str):
            raise BadRequest("This request needs a room.")
        return _WITH_ROOM[kind](request, room_name(room), ref, max_message)
    except RequestError as error:
        return _invalid(error, room, ref)


def _invalid(error: RequestError, room: object, ref: Ref) -> Invalid:
    return Invalid(error.alone(), room if isinstance(room, str) else None, ref)


def _check_ref(ref: object) -> None:
    if isinstance(ref, bool) or not isinstance(ref, str | int | float):
        raise BadRequest("A ref is a string or a number.")
    if isinstance(ref, float) and not math.isfinite(ref):
        raise BadRequest("A ref is a number that JSON can hold.")
    if len(ref if isinstance(ref, str) else str(ref)) > MAX_REF:
        raise BadRequest(f"A ref has at most {MAX_REF} characters.")


def _join(request: dict[str, Any], room: str, ref: Ref, _max_message: int) -> Join:
    after, last = request.get("after"), request.get("last")
    if after is None:
        start = Start(last=None if last is None else count_of_last(last))
    elif last is not None:
        raise BadRequest("A join has after or last, not both.")
    elif not isinstance(after, str):
        raise BadRequest("after is a message ID, a string.")
    else:
        start = Start.parse_after(after)
    return Join(room, start, ref)


def count_of_last(last: object) -> int:
    """Return `last` if it is a number of messages. Raises BadRequest."""
    if isinstance(last, bool) or not isinstance(last, int) or not 0 <= last <= MAX_LAST:
        raise BadRequest(f"last is a number of messages, at most {MAX_LAST}.")
    return last


def _leave(_request: dict[str, Any], room: str, ref: Ref, _max_message: int) -> Leave:
    return Leave(room, ref)


def _publish(request: dict[str, Any], room: str, ref: Ref, max_message: int) -> Publish:
    data = request.get("data")
    if not isinstance(data, str):
        raise BadRequest("A publish has data, a string.")
    text = "encoding" not in request
    if text:
        payload = _utf8(data, "data")
    elif request["encoding"] == "base64":
        try:
            payload = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise BadRequest("data is not base64.") from None
    else:
        raise BadRequest("The only encoding is base64.")
    if len(payload) > max_message:
        raise TooBig(f"A message has at most {max_message} bytes.")
    key, meta = request.get("key"), request.get("meta")
    if key is not None:
        _check_short(key, "key", MAX_KEY)
    if meta is not None:
        _check_short(meta, "meta", MAX_META)
    return Publish(room, payload, text, ref, key, meta)


def _check_short(value: object, name: str, limit: int) -> None:
    if not isinstance(value, str) or not value or len(_utf8(value, name)) > limit:
        raise BadRequest(f"{name} is a string of 1 to {limit} bytes.")


def _utf8(value: str, name: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{name} has half of a surrogate pair, which is not text.") from None


_WITH_ROOM: dict[str, Callable[[dict[str, Any], str, Ref, int], Request]] = {
    "join": _join,
    "leave": _leave,
    "publish": _publish,
}
