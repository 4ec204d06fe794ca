"""websockets' Sans-I/O protocol after the handshake (RFC 6455), for whatever a peer may send.

The law of this file: no I/O; bytes in, messages out. A message is whole, and text is UTF-8.
"""

import logging
from collections.abc import Iterator
from types import GeneratorType
from typing import cast

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from streamcast.message import is_utf8
from streamcast.wire import Close
from streamcast.wire.close import Code

MAX_EMPTY_FRAGMENTS = 100
"""How many fragments without a byte a message may have; the limit of its bytes caps the others."""
MAX_REASON = 123
"""How many bytes the reason of a close has at most (RFC 6455 section 5.5)."""

# The library tells every handshake and every close at info; we tell our own.
quiet = logging.getLogger("streamcast.websockets")
quiet.setLevel(logging.CRITICAL)


Received = tuple[bytes, bool]
"""A message of the peer, and whether it is text. A mere tuple: one is made for each."""


class Parser(Protocol):
    """An open connection; `max_frame`: the largest message in bytes, in however many fragments.

    `answered` says that a pong has come, `talked` that anything else has.
    """

    def __init__(self, max_frame: int) -> None:
        super().__init__(SERVER, state=OPEN, max_size=max_frame, logger=quiet)
        self.talked = False
        self.answered = False
        self._fragments: bytearray | None = None
        self._empty = 0
        self._text = False

    @property
    def is_idle(self) -> bool:
        """Whether another one could go on from here: it is open, and between two messages."""
        # Its parser waits at the beginning of a frame, and nowhere else, for the end of the stream.
        waiting = cast("GeneratorType[None]", self.parser).gi_yieldfrom
        between = getattr(waiting, "gi_code", None) is self.reader.at_eof.__code__
        return between and self.state is OPEN and self._fragments is None

    def receive(self, data: bytes) -> Iterator[Received | Close]:
        """Take in bytes; return the messages that they complete, or how to close."""
        self.receive_data(data)
        frames = self.events_received()
        # Half a frame is a sign of life too.
        self.talked |= not frames
        for frame in frames:
            received = self._take(cast("Frame", frame))
            if received is not None:
                yield received

    def recv_frame(self, frame: Frame) -> None:
        """Take in a frame. A close may come between two fragments (RFC 6455 section 5.4)."""
        if frame.opcode is Opcode.CLOSE:
            # So the message is never finished; the library would call that a mistake.
            self.current_size = None
        super().recv_frame(frame)

    def _take(self, frame: Frame) -> Received | Close | None:
        opcode = frame.opcode
        if opcode is Opcode.PONG:
            self.answered = True
            return None
        self.talked = True
        if opcode is Opcode.CONT:
            return self._go_on(frame)
        if opcode is not Opcode.TEXT and opcode is not Opcode.BINARY:
            return None
        if frame.fin:
            return whole(bytes(frame.data), text=opcode is Opcode.TEXT)
        self._fragments, self._empty = bytearray(frame.data), 0
        self._text = opcode is Opcode.TEXT
        return None

    def _go_on(self, frame: Frame) -> Received | Close | None:
        # The library lets no fragment through that nothing began.
        assert self._fragments is not None
        self._fragments += frame.data
        if frame.fin:
            message, self._fragments = bytes(self._fragments), None
            return whole(message, text=self._text)
        self._empty += not frame.data
        if self._empty > MAX_EMPTY_FRAGMENTS:
            return Close(Code.POLICY, "a message of too many empty fragments")
        return None

    def close(self, how: Close) -> None:
        """Say why the connection ends, unless it has ended already."""
        if self.state is OPEN:
            reason = how.reason.encode()[:MAX_REASON].decode(errors="ignore")
            self.send_close(how.code, reason)


def whole(data: bytes, *, text: bool) -> Received | Close:
    """Return a message, or how to close over text that is none (RFC 6455 section 8.1)."""
    if text and not is_utf8(data):
        return Close(Code.BAD_DATA, "text that is not UTF-8")
    return data, text
