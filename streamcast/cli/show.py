"""How `tail` shows what a room brings: for people at a terminal, for programs, or as it is.

The law of this file: nothing that a peer wrote reaches a terminal as a control character.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import typer

from streamcast.message import MessageId
from streamcast.wire.told import Gap, Item, Message, Skipped, time_of

Show = Callable[[Item], bytes]
"""Returns what is written to standard output; nothing where it is told elsewhere."""

# Control characters (C0, DEL, C1), and those that reorder a line or end it (Unicode TR 36).
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
MAX_SHOWN_BYTES = 32
"""How many bytes of a binary message are shown to people."""


def as_json(item: Item) -> bytes:
    """Return an object on a line of its own."""
    return line_of(_object(item))


def as_payload(item: Item) -> bytes:
    """Return a message's payload and the end of a line."""
    if not isinstance(item, Message):
        return b""
    data = item.data
    return (data if isinstance(data, bytes) else data.encode()) + b"\n"


def as_safe_payload(item: Item) -> bytes:
    """Return the same for a terminal."""
    return (printable(item.data) + "\n").encode() if isinstance(item, Message) else b""


def for_people(rooms: Sequence[str], *, colours: bool) -> Show:
    """Return what shows time, room and payload, in columns."""
    width = max(map(len, rooms))

    def show(item: Item) -> bytes:
        if not isinstance(item, Message):
            return b""
        time, room = clock(item.id), f"{item.room:<{width}}"
        if colours:
            # Of the standard colours magenta alone is well seen on light and on dark ground.
            time, room = typer.style(time, dim=True), typer.style(room, fg="magenta")
        return f"{time}  {room}  {printable(item.data)}\n".encode()

    return show


def told(item: Gap | Skipped) -> str:
    """Say to people what is not shown."""
    if isinstance(item, Skipped):
        size = f"{item.size} bytes"
        return f"{item.room}: message {item.id} has {size}, more than is sent; it is left out."
    if item.earliest is None:
        return f"{item.room}: messages behind {item.after} may be missing; none of them is kept."
    return f"{item.room}: messages between {item.after} and {item.earliest} may be missing."


def tell(text: str) -> None:
    """Say something to people, on stderr; a part of it may be in a server's words."""
    typer.echo(printable(text), err=True)


def line_of(members: Mapping[str, Any]) -> bytes:
    """Return an object as a line of JSON, which may go to a terminal too."""
    text = json.dumps(members, ensure_ascii=False)
    # Controls are in strings alone, and may be written there so (RFC 8259 section 7).
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode() + b"\n"


def stamp(id: MessageId) -> str | None:
    """Return the time in an ID as ISO 8601 has it, in UTC, to the millisecond."""
    time = time_of(id)
    return None if time is None else time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(id: MessageId) -> str:
    """Return the local time in an ID as people read it; the ID where it is no time."""
    time = time_of(id)
    if time is None:
        return str(id)
    try:
        return time.astimezone().strftime("%H:%M:%S")
    except (ValueError, OverflowError):
        return str(id)  # the calendar ends in between


def printable(data: str | bytes) -> str:
    """Return a payload without control characters, on one line."""
    if isinstance(data, str):
        return _CONTROLS.sub(_escape, data)
    more = " …" if len(data) > MAX_SHOWN_BYTES else ""
    return f"({len(data)} bytes) {data[:MAX_SHOWN_BYTES].hex(' ')}{more}"


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _object(item: Item) -> dict[str, Any]:
    if isinstance(item, Gap):
        earliest = None if item.earliest is None else str(item.earliest)
        place = {"after": str(item.after), "earliest": earliest, "latest": str(item.latest)}
        return {"type": "gap", "room": item.room, **place}
    named = {"room": item.room, "id": str(item.id), "time": stamp(item.id)}
    if isinstance(item, Skipped):
        return {"type": "skipped", **named, "size": item.size}
    more: dict[str, Any] = {} if item.meta is None else {"meta": item.meta}
    if item.fields is not None:
        # As the protocol has them: text as it is, anything else as an object.
        more["fields"] = {
            name: value if isinstance(value, str) else _value(value)
            for name, value in item.fields.items()
        }
    return {"type": "message", **named, **_value(item.data), **more}


def _value(data: str | bytes) -> dict[str, str]:
    """Return a payload as the protocol has it: text as it is, anything else as base64."""
    if isinstance(data, str):
        return {"data": data}
    return {"data": base64.b64encode(data).decode(), "encoding": "base64"}
