"""What travels: message IDs, room names, messages, and gaps.

The law of this file: a `Message` is an entry of a stream as it was read, never changed; what is
derived from it (payload, whether it is text, its fingerprint) is derived here and nowhere else.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Self

from msgspec import Struct

from streamcast.errors import BadId, BadRoom

MAX_ROOM_BYTES = 128
MAX_ID_PART = 2**64 - 1
MAX_META = 1024
"""How many bytes a message's `meta` has at most; a larger one is not handed on."""
# Fields by which streamcast knows its own entries; everything else is foreign.
TEXT_FIELD = b"message"
BINARY_FIELD = b"binary"
META_FIELD = b"meta"

_NOT_IN_ROOM_NAMES = re.compile(r"[\s/{}?#%\x00-\x1f\x7f-\x9f]")
_ID = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?", re.ASCII)


# IDs that come together have the same time, and small sequence numbers.
_number: Callable[[str], int] = lru_cache(1024)(int)


class MessageId(Struct, frozen=True, order=True, gc=False):
    """The ID of a stream's entry: Unix time in ms and a sequence number; ordered like entries.

    `text`: as the store writes it. It is kept: a message has it written four times on its way.
    """

    ms: int
    seq: int
    text: str

    @classmethod
    def of(cls, ms: int, seq: int) -> Self:
        """Return the ID that has these parts."""
        return cls(ms, seq, f"{ms}-{seq}")

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read `ms-seq`, or `ms` for `ms-0`, as Redis does. Raises BadId."""
        match = _ID.fullmatch(text.decode("latin-1") if isinstance(text, bytes) else text)
        if match is None:
            raise BadId("A message ID looks like 1700000000000-0.")
        ms, seq = int(match[1]), int(match[2] or 0)
        if ms > MAX_ID_PART or seq > MAX_ID_PART:
            raise BadId("A message ID's parts are below 2^64.")
        return cls.of(ms, seq)

    @staticmethod
    @lru_cache(1024)  # as many as are under way to the store at once
    def trusted(raw: bytes) -> "MessageId":
        """Read an ID as the store writes it; twice, where it was published here."""
        text = raw.decode()
        ms, _, seq = text.partition("-")
        return MessageId(_number(ms), _number(seq), text)

    @property
    def before(self) -> Self:
        """The largest ID below this one, which is not 0-0."""
        if self.seq:
            return self.of(self.ms, self.seq - 1)
        return self.of(self.ms - 1, MAX_ID_PART)

    def __str__(self) -> str:
        return self.text


ZERO = MessageId.of(0, 0)
"""The position before every entry."""


@lru_cache(16_384)
def room_name(text: str) -> str:
    """Return `text` if it is a room's name. Raises BadRoom.

    A name has 1 to 128 bytes of UTF-8, no control characters, no white space, none of `/{}?#%`.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadRoom("A room name is UTF-8.") from None
    if not 1 <= size <= MAX_ROOM_BYTES:
        raise BadRoom(f"A room name has 1 to {MAX_ROOM_BYTES} bytes.")
    if _NOT_IN_ROOM_NAMES.search(text):
        raise BadRoom("A room name has no white space, no control characters, none of / { } ? # %")
    return text


class Message(Struct, frozen=True, eq=False, gc=False):
    """An entry of a stream as it was read.

    `data` is the payload in bytes, None where the entry is over the size limit and will be told as
    skipped. `text` says that `data` is UTF-8 and goes out as text. `size` counts the bytes that
    the limit counts: the payload of an own entry, all names and values of a foreign one.
    """

    id: MessageId
    fingerprint: int
    data: bytes | None
    text: bool
    size: int
    meta: str | None = None
    fields: Sequence[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Message {self.id} {self.size} bytes>"


def fingerprint_of(fields: Sequence[bytes]) -> int:
    """Return what tells an entry from another one with the same ID, within this process."""
    return hash(tuple(fields))


def as_message(id: MessageId, fields: Sequence[bytes], max_size: int) -> Message:
    """Return an entry that was read as a message; `max_size`: the limit, in bytes."""
    # As fingerprint_of says, in place: each message comes by here.
    fingerprint = hash(tuple(fields))
    if len(fields) == 2 and fields[0] == TEXT_FIELD and len(fields[1]) <= max_size:
        # What nearly all are.
        data = fields[1]
        return Message(id, fingerprint, data, data.isascii() or is_utf8(data), len(data))
    payload, text, meta = _own(fields)
    if payload is not None:
        size, foreign = len(payload), None
    else:
        payload, text = (fields[1] if len(fields) > 1 else b""), True
        size, foreign = sum(map(len, fields)), fields
    text = text and is_utf8(payload)
    if size > max_size:
        return Message(id, fingerprint, None, text, size, meta)
    return Message(id, fingerprint, payload, text, size, meta, foreign)


class Gap(NamedTuple):
    """What lay between `after` and `earliest` may be missing; messages go on from `earliest`.

    `earliest` is None where nothing is kept; `latest` is the newest ID that the stream gave out.
    `resume` is the position, in the history as it is now, that the gap stands at: equal to
    `after`, or an older one where the history was reset or rolled back.
    """

    after: MessageId
    earliest: MessageId | None
    latest: MessageId
    resume: MessageId

    @property
    def id(self) -> MessageId:
        """Where the gap sorts among messages."""
        return self.resume


Item = Message | Gap
"""What a room hands to its members, in order."""


def is_utf8(data: bytes) -> bool:
    """Whether `data` can go out as text."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _own(fields: Sequence[bytes]) -> tuple[bytes | None, bool, str | None]:
    """Return payload, whether it was published as text, and meta; payload None if foreign."""
    data = meta = None
    text = True
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if name == META_FIELD and len(value) <= MAX_META:
            meta = value.decode(errors="replace")
        elif data is None and name in {TEXT_FIELD, BINARY_FIELD}:
            data, text = value, name == TEXT_FIELD
    return (None, True, None) if data is None else (data, text, meta)
