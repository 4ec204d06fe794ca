"""The client's half of `streamcast.v1`: requests out, what the server tells in.

The law of this file: what a request needs is checked here, before it is sent; what a server tells
and a client need not hear is None, and what can't be told by a server raises ValueError.
"""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from streamcast.errors import BadId, BadRequest, from_code
from streamcast.message import MAX_META, MessageId
from streamcast.wire.json_v1 import MAX_KEY
from streamcast.wire.requests import Start
from streamcast.wire.told import Acked, Failed, Gap, Joined, Message, Skipped, Told

# Made once: `dumps` with arguments makes one each time.
_frame = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# Requests


def join(room: str, ref: int, start: Start) -> str:
    """Return the frame that joins a room."""
    request: dict[str, Any] = {"type": "join", "room": room, "ref": ref}
    if start.everything:
        request["after"] = "0"
    elif start.after is not None:
        request["after"] = str(start.after)
    elif start.last is not None:
        request["last"] = start.last
    return _frame(request)


def leave(room: str) -> str:
    """Return the frame that leaves a room."""
    return _frame({"type": "leave", "room": room})


def publish(room: str, ref: int, data: str | bytes, key: str, meta: str | None) -> bytes:
    """Return the text frame that publishes, encoded; bytes go as binary. Raises BadRequest."""
    request: dict[str, Any] = {"type": "publish", "room": room, "ref": ref, "key": key}
    _check(key, "key", MAX_KEY)
    if isinstance(data, str):
        request["data"] = data
    else:
        request["data"] = base64.b64encode(data).decode()
        request["encoding"] = "base64"
    if meta is not None:
        _check(meta, "meta", MAX_META)
        request["meta"] = meta
    return _frame(request).encode()


def size_of(data: str | bytes) -> int:
    """Return how many bytes a payload has. Raises BadRequest."""
    return len(data) if isinstance(data, bytes) else len(_utf8(data, "data"))


def _check(value: str, name: str, limit: int) -> None:
    if not 1 <= len(_utf8(value, name)) <= limit:
        raise BadRequest(f"{name} is a string of 1 to {limit} bytes.")


def _utf8(value: str, name: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{name} has half of a surrogate pair, which is not text.") from None


# What the server tells


def decode(frame: str | bytes) -> Told | None:
    """Read a frame. Raises ValueError if no server of ours sends it."""
    told = json.loads(frame)
    try:
        read = _READ.get(told["type"])
        return None if read is None else read(told)
    except (TypeError, KeyError, AttributeError, BadId) as error:
        raise ValueError(f"not a frame of this protocol: {error!r}") from error


def _message(told: dict[str, Any]) -> Message:
    data = told["data"]
    if told.get("encoding") == "base64":
        data = base64.b64decode(data)
    fields = told.get("fields")
    return Message(
        told["room"],
        MessageId.parse(told["id"]),
        data,
        told.get("meta"),
        None if fields is None else {name: _value(value) for name, value in fields.items()},
    )


def _value(value: str | Mapping[str, str]) -> str | bytes:
    """Read a foreign entry's value: one that is not UTF-8 comes as an object with base64."""
    return value if isinstance(value, str) else base64.b64decode(value["data"])


def _gap(told: dict[str, Any]) -> Gap:
    earliest = told["earliest"]
    return Gap(
        told["room"],
        MessageId.parse(told["after"]),
        None if earliest is None else MessageId.parse(earliest),
        MessageId.parse(told["latest"]),
    )


def _skipped(told: dict[str, Any]) -> Skipped:
    return Skipped(told["room"], MessageId.parse(told["id"]), told["size"])


def _joined(told: dict[str, Any]) -> Joined:
    return Joined(told["room"], told["ref"], MessageId.parse(told["head"]), told["resumed"])


def _acked(told: dict[str, Any]) -> Acked:
    return Acked(told["ref"], MessageId.parse(told["id"]))


def _failed(told: dict[str, Any]) -> Failed:
    return Failed(told.get("ref"), from_code(told["code"], told["message"], told.get("id", "")))


_READ: Mapping[str, Callable[[dict[str, Any]], Told]] = {
    "message": _message,
    "gap": _gap,
    "skipped": _skipped,
    "joined": _joined,
    "ack": _acked,
    "error": _failed,
}
