"""The WebSocket protocol after the handshake (RFC 6455): what comes in, and how it ends.

The law of this file: whole, unfragmented, small frames are read here, since nearly all are such;
for all else there is the library's parser, made where it is needed and dropped where it is idle
again. So a connection that is open and quiet has no parser, nor its memory.
"""

from collections.abc import Sequence

from websockets.frames import Close as Said

from streamcast.inlet import unmasked, usual_text
from streamcast.server.parser import Parser, Received, whole
from streamcast.wire import Close

SMALL = 4096
"""How many bytes a frame has at most that is read here."""
# The first byte of a frame that is not fragmented and has no extension.
_TEXT, _BINARY, _PONG = 0x81, 0x82, 0x8A
_MESSAGES = {_TEXT, _BINARY}
_MASKED = 0x80
_IN_TWO_BYTES = 126
_SHORTEST = 6
_LONGEST_CONTROL = 125


class WebSocket:
    """An open connection; `max_frame`: the largest message in bytes, in however many fragments.

    `parser`: the library's, while there is one. `answered` says that a pong has come, `talked` that
    anything else has; both are for others to clear.
    """

    __slots__ = ("_limit", "_max_frame", "_tail", "answered", "parser", "talked")

    def __init__(self, max_frame: int) -> None:
        self._max_frame = max_frame
        self._limit = min(max_frame, SMALL)
        self.parser: Parser | None = None
        # The beginning of a small frame, while there is no parser.
        self._tail = b""
        self.talked = True
        self.answered = False

    # What comes

    def receive_usual(self, buffer: memoryview, size: int) -> bytes | None:
        """Take in the first `size` bytes of a buffer if they are what nearly all frames are.

        Returns the message, ASCII text; or None, and then they are still to be taken in.
        """
        if self.parser is not None or self._tail:
            return None
        message = usual_text(buffer, size, self._limit)
        if message is not None:
            self.talked = True
        return message

    def receive(self, data: bytes) -> Sequence[Received | Close]:
        """Take in bytes; return the messages that they complete, or how to close."""
        received: list[Received | Close] = []
        if self.parser is None:
            if self._tail:
                data, self._tail = self._tail + data, b""
            data = self._read_small(data, received)
            if not data:
                return received
        parser = self._with_parser()
        received += parser.receive(data)
        self.talked |= parser.talked
        self.answered |= parser.answered
        parser.talked = parser.answered = False
        return received

    def _read_small(self, data: bytes, received: list[Received | Close]) -> bytes:
        """Read small frames from the front; return what is for the parser, if anything."""
        at, end = 0, len(data)
        while end - at >= _SHORTEST:
            head, size, start = data[at], data[at + 1] ^ _MASKED, at + _SHORTEST
            if size == _IN_TWO_BYTES and end - at >= _SHORTEST + 2:
                size, start = data[at + 2] << 8 | data[at + 3], start + 2
            elif size >= _IN_TWO_BYTES:
                break
            stop = start + size
            if size > self._limit:
                break
            if head in _MESSAGES:
                self.talked = True
                if stop > end:
                    self._tail = data[at:]
                    return b""
                payload = unmasked(data[start:stop], data[start - 4 : start])
                text = head == _TEXT
                received.append((payload, text) if payload.isascii() else whole(payload, text=text))
            elif head == _PONG and size <= _LONGEST_CONTROL and stop <= end:
                self.answered = True
            else:
                break
            at = stop
        return data[at:] if at < end else b""

    def receive_eof(self) -> None:
        """Take in that nothing more comes."""
        if self.parser is not None:
            self.parser.receive_eof()

    # What goes

    def close(self, how: Close) -> None:
        """Say why the connection ends, unless it has ended already."""
        self._with_parser().close(how)

    def data_to_send(self) -> Sequence[bytes]:
        """Return what the protocol itself has to say; an empty item ends the connection."""
        parser = self.parser
        if parser is None:
            return ()
        data = parser.data_to_send()
        if parser.is_idle:
            self.forget()
        return data

    def forget(self) -> None:
        """Let the parser go; what was said of how it ended is gone with it."""
        parser, self.parser = self.parser, None
        if parser is not None:
            # It holds itself, by its generator and by the traceback of a mistake: without this only
            # the collector would free it, which looks rarely.
            parser.parser.close()
            parser.parser_exc = None

    def _with_parser(self) -> Parser:
        """Return the parser, which has taken in all that came."""
        if self.parser is None:
            self.parser = Parser(self._max_frame)
            tail, self._tail = self._tail, b""
            # Less than a frame: it makes no message.
            self.parser.receive_data(tail)
        return self.parser

    # How it ended

    @property
    def is_broken(self) -> bool:
        """Whether the peer made a mistake, behind which its bytes mean nothing."""
        return self.parser is not None and self.parser.parser_exc is not None

    @property
    def close_received(self) -> Said | None:
        """The peer's close."""
        return None if self.parser is None else self.parser.close_rcvd

    @property
    def close_sent(self) -> Said | None:
        """Ours."""
        return None if self.parser is None else self.parser.close_sent
