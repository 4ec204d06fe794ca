"""A WebSocket connection: frames in, requests out; bytes of rooms and replies to the socket.

The law of this file: whatever a client sends ends at most its own connection. While its socket
takes nothing more, nothing more is read from it either, and its rooms leave it where it is.
"""

import asyncio
import socket

from streamcast import log
from streamcast.cursor import Cursor
from streamcast.errors import CodedError, TooManyRooms
from streamcast.message import MessageId
from streamcast.outlet import Outlet
from streamcast.server.context import Context
from streamcast.server.guard import end_for, guarded
from streamcast.server.intake import MOST_PUBLISHING, PIECE, SLICE
from streamcast.server.target import Target
from streamcast.server.websocket import WebSocket
from streamcast.streams import Publication
from streamcast.streams.interface import Outcome
from streamcast.wire import (
    Close,
    Dialect,
    Invalid,
    Join,
    Leave,
    Ping,
    Publish,
    Reply,
    frames,
)
from streamcast.wire.close import Code

MAX_ROOMS = 1000
"""How many rooms a connection may be in."""
MAX_MALFORMED = 10
"""The frame in a row that is no request and ends the connection."""
MANY_ACKS = 4096
"""Bytes of acks with which no more wait for messages."""
LOST = 1006


class Connection(asyncio.BufferedProtocol):
    """One client."""

    __slots__ = (
        "_admitted",
        "_closing",
        "_context",
        "_cursors",
        "_ended",
        "_finishing",
        "_held",
        "_malformed",
        "_reading",
        "_resting",
        "_room",
        "_transport",
        "_unread",
        "asked",
        "dialect",
        "last_published",
        "left",
        "outlet",
        "publishing",
        "queued",
        "stalled",
        "websocket",
        "writable",
    )

    def __init__(
        self,
        context: Context,
        transport: asyncio.Transport,
        sock: socket.socket,
        dialect: Dialect,
    ) -> None:
        self._context = context
        self._transport = transport
        # What goes, goes straight to the socket; the transport, which takes a tenth more, only is
        # needed where that takes no more. Acks are held here for the messages of the same turn.
        self.outlet = Outlet(sock)
        self.dialect = dialect
        self.websocket = WebSocket(dialect.max_frame(context.messages.max_message))
        self._cursors: dict[str, Cursor] = {}
        self._room: str | None = None
        self._malformed = 0
        self._held: list[tuple[Cursor, Publication]] = []
        # What was received and is still to be read; whether it waits for its turn; whether the
        # client sends no more.
        self._unread = b""
        self._resting = False
        self._ended = False
        self._admitted = False
        self._closing: Close | None = None
        self._finishing: Close | None = None
        self._reading = True
        self.writable = True
        # What the intake wants to know: see there.
        self.queued = False
        self.last_published = 0
        self.publishing = 0
        # What keepalive wants to know: see there.
        self.asked = False
        self.left = 0
        self.stalled = 0.0

    # Opening and closing

    @guarded
    def open(self, target: Target) -> None:
        """Begin, behind the handshake: join the room of the URL, or say why not."""
        context = self._context
        # So it pauses as soon as anything waits for the socket, and until nothing does.
        self._transport.set_write_buffer_limits(high=0)
        context.connections[self] = None
        context.opened += 1
        log.debug("connection opened", dialect=self.dialect.name or "plain", room=target.room)
        self._room = target.room
        if context.stopping:
            self.close(Close(Code.RESTART, "restarting"))
        elif context.admit():
            self._admitted = True
            self._begin(target)
        else:
            context.refused += 1
            self.close(Close(Code.TRY_LATER, "this server is full"))

    def _begin(self, target: Target) -> None:
        if target.error is not None:
            self._reply(self.dialect.error(target.error, target.room, None))
            self.close(Close(Code.BAD_ROOM, str(target.error)))
        elif target.room is not None:
            self._join(Join(target.room, target.start))
        elif not self.dialect.name:
            self.close(Close(Code.BAD_ROOM, "without a subprotocol, join /rooms/NAME"))

    @guarded
    def finish(self, how: Close) -> None:
        """Read no more, and close once all that was published is answered."""
        self._finishing = how
        if self.publishing == 0:
            self.close(how)
        else:
            self._update_reading()

    @guarded
    def close(self, how: Close) -> None:
        """Leave all rooms and close; nothing more is written but the close itself."""
        if self._closing is not None:
            return
        self._end(how)
        self.websocket.close(how)
        self._write_out()
        # The peer's close is still to come.
        self._update_reading()

    def abort(self) -> None:
        """Cut a connection whose peer is gone, or does not close."""
        self._transport.abort()

    def fail(self) -> None:
        """End for a fault: with a close, unless that is what fails."""
        if self._closing is None:
            self.close(Close(Code.INTERNAL, "internal error"))
        else:
            self.abort()

    @property
    def is_closing(self) -> bool:
        """Whether the close was sent."""
        return self._closing is not None

    @property
    def waiting_bytes(self) -> int:
        """How many bytes wait for the socket."""
        return self._transport.get_write_buffer_size()

    @property
    def unread(self) -> int:
        """How many bytes were received and wait to be read."""
        return len(self._unread)

    @guarded
    def connection_lost(self, exc: Exception | None) -> None:
        """Leave all rooms."""
        self._context.connections.pop(self, None)
        self._context.closed += 1
        self.outlet.close()
        self._end(Close(Code.GOING_AWAY, "connection lost"))
        self._unread = b""
        self.writable = False
        received = self.websocket.close_received
        sent = self.websocket.close_sent
        log.debug(
            "connection closed",
            # 1006 stands for a close that never came (RFC 6455 section 7.1.5).
            received=LOST if received is None else int(received.code),
            sent=LOST if sent is None else int(sent.code),
            reason="" if sent is None else sent.reason,
        )
        self.websocket.forget()

    def _end(self, how: Close) -> None:
        """Be a member of nothing from now on, and take no more requests."""
        self.write_acks()
        self._closing = self._closing or how
        if self._admitted:
            self._admitted = False
            self._context.dismiss()
        cursors, self._cursors = self._cursors, {}
        for cursor in cursors.values():
            self._context.relay.leave(cursor)
        # What was held back to be heard by its sender is published all the same: it was sent.
        held, self._held = self._held, []
        for _, publication in held:
            self._context.relay.publish(publication)

    # What comes

    def get_buffer(self, sizehint: int) -> memoryview:
        """Have the next slice received into the buffer that all clients share."""
        return self._context.intake.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take in a slice."""
        intake = self._context.intake
        if nbytes > PIECE or not self._reading or not intake.is_free(self):
            self.received(bytes(intake.buffer[:nbytes]))
            return
        # What nearly every message of a client is; guarded in place.
        try:
            message = self.websocket.receive_usual(intake.buffer, nbytes)
            if message is None:
                self._feed(bytes(intake.buffer[:nbytes]))
            elif self._closing is None:
                self._take(message)
        except Exception as fault:  # noqa: BLE001 - as in guard
            end_for(fault, self)

    @guarded
    def received(self, data: bytes) -> None:
        """Read what came; or keep it and take no more, until it is this client's turn."""
        self._unread = data
        while self._unread and self.readable and self._context.intake.is_free(self):
            self._read_piece()
        # After a whole slice there is more, but others go first.
        self._resting = bool(self._unread) or len(data) == SLICE
        if self._resting:
            self._update_reading()

    @guarded
    def take_turn(self) -> None:
        """Read on, until something is published."""
        before = self.last_published
        while self._unread and self.last_published == before:
            self._read_piece()
        self._resting = bool(self._unread)
        self._update_reading()

    def _read_piece(self) -> None:
        data, self._unread = self._unread[:PIECE], self._unread[PIECE:]
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Take in bytes."""
        for received in self.websocket.receive(data):
            if self._closing is not None:
                break
            if isinstance(received, Close):
                self.close(received)
                break
            message, text = received
            self._take(message, text)
        if self.websocket.parser is not None:
            self._write_out()

    def _take(self, message: bytes, text: bool = True) -> None:
        """Take in a message; `text`: it came in a text frame."""
        limit = self._context.messages.max_message
        request = self.dialect.decode(message, limit, self._room, text)
        if isinstance(request, Publish):
            self._malformed = 0
            self._publish(request)
        else:
            self._handle(request)

    @guarded
    def eof_received(self) -> bool:
        """Close: a client that sends no more is gone. All that it sent was read by now."""
        self._ended = True
        self.websocket.receive_eof()
        self._write_out()
        self._end(Close(Code.GOING_AWAY, "closed by the peer"))
        self._transport.close()
        return True

    def _handle(self, request: Join | Leave | Ping | Invalid) -> None:
        self._malformed = self._malformed + 1 if _is_malformed(request) else 0
        match request:
            case Join():
                self._join(request)
            case Leave():
                self._leave(request.room)
                self._reply(self.dialect.left(request.room, request.ref))
            case Ping():
                self._reply(self.dialect.pong(request.ref))
            case Invalid():
                self._reply(self.dialect.error(request.error, request.room, request.ref))
                if self._malformed >= MAX_MALFORMED:
                    self.close(Close(Code.POLICY, f"{MAX_MALFORMED} frames that are no requests"))

    # Rooms

    def _join(self, join: Join) -> None:
        if join.room not in self._cursors and len(self._cursors) >= MAX_ROOMS:
            error = TooManyRooms(f"A connection is in at most {MAX_ROOMS} rooms.")
            self._reply(self.dialect.error(error, join.room, join.ref))
            return
        before = self._cursors.get(join.room)
        cursor = self._cursors[join.room] = Cursor(self, join.room, join.ref)
        self._context.relay.join(cursor, join.start)
        if before is not None:
            # A second join re-positions; the room stays open meanwhile.
            self._context.relay.leave(before)
            if self._held:
                self._release(before)

    def _leave(self, room: str) -> None:
        cursor = self._cursors.pop(room, None)
        if cursor is not None:
            self._context.relay.leave(cursor)
            if self._held:
                self._release(cursor)

    @guarded
    def joined(self, cursor: Cursor, head: MessageId, *, resumed: bool) -> None:
        """Tell that a join is done."""
        self._reply(self.dialect.joined(cursor.room, cursor.ref, head, resumed=resumed))
        if self._held:
            self._release(cursor)

    @guarded
    def refused(self, cursor: Cursor, error: CodedError) -> None:
        """Tell that a join failed."""
        if self._cursors.get(cursor.room) is cursor:
            del self._cursors[cursor.room]
        self._reply(self.dialect.error(error, cursor.room, cursor.ref))
        if self._held and self._closing is None:
            self._release(cursor)

    # Publishing

    def _publish(self, publish: Publish) -> None:
        publication = Publication.of(publish, self, self._published)
        self._context.intake.began(self, publication.size)
        if self.publishing >= MOST_PUBLISHING:
            self._update_reading()
        cursor = self._cursors.get(publish.room)
        if cursor is not None and cursor.mark is None:
            # It is to hear its own message, which the store would add before it says where the room
            # stands: reads go behind what is added.
            self._held.append((cursor, publication))
        else:
            self._context.relay.publish(publication)

    def _release(self, cursor: Cursor) -> None:
        """Publish what waited for a join, now that the join is answered."""
        held, self._held = self._held, []
        for waited_for, publication in held:
            if waited_for is cursor or waited_for.gone:
                self._context.relay.publish(publication)
            else:
                self._held.append((waited_for, publication))

    def _published(self, publication: Publication, outcome: Outcome) -> None:
        # Guarded in place: each message comes by here.
        try:
            self._context.intake.ended(self, publication.size)
            if not self._reading:
                self._update_reading()
            room, ref = publication.room, publication.ref
            if isinstance(outcome, MessageId):
                self._context.published += 1
                self._ack(self.dialect.acked(room, ref, outcome))
            else:
                self._reply(self.dialect.error(outcome, room, ref))
            if self._finishing is not None and self.publishing == 0:
                self.close(self._finishing)
        except Exception as fault:  # noqa: BLE001 - as in guard
            end_for(fault, self)

    # What goes

    def write(self, data: bytes) -> None:
        """Write frames: behind what waits for the socket, if anything does."""
        if self._closing is not None:
            return
        try:
            if not self.writable:
                self._transport.write(data)
                return
            taken = self.outlet.write(data)
            if taken != len(data):
                self.fell_short(data, taken)
        except Exception as fault:  # noqa: BLE001 - the boundary between one and all others
            self.broke(data, fault)

    @guarded
    def fell_short(self, data: bytes, taken: int) -> None:
        """Have the transport write the rest as soon as the socket takes it."""
        held = self.outlet.release()
        if held:
            self._transport.write(held)
        # Without a copy: many may wait for the same.
        self._transport.write(memoryview(data)[taken:])

    def broke(self, data: bytes, fault: Exception) -> None:
        """Wait for a socket that takes nothing; end where the peer is gone, or for a fault."""
        if isinstance(fault, BlockingIOError):
            self.fell_short(data, 0)
        elif isinstance(fault, OSError):
            self.abort()
        else:
            end_for(fault, self)

    def _ack(self, ack: bytes) -> None:
        """Have an ack go in one write with what was read together with it, if anything was."""
        held = len(self.outlet.held)
        if not self.writable or self._closing is not None or held > MANY_ACKS:
            self._reply(ack)
        elif ack:
            self.outlet.hold(ack)
            if not held:
                self._context.relay.behind(self.write_acks)

    def write_acks(self) -> None:
        """Write the acks that nothing took along, if there are any."""
        if self.outlet.held:
            self.write(self.outlet.release())

    def ping(self) -> None:
        """Ask the peer for a sign."""
        self.write(frames.PING)

    def _reply(self, reply: Reply) -> None:
        if isinstance(reply, Close):
            self.close(reply)
        elif reply:
            self.write(reply)

    def _end_transport(self) -> None:
        """Close behind what was written.

        After a mistake of the peer its bytes may still be coming; closing over them would reset
        the connection and lose the close that says why. They are read, for nothing.
        """
        if not self.websocket.is_broken or self._ended or not self._transport.can_write_eof():
            self._transport.close()
        else:
            self._transport.write_eof()
            self._update_reading()

    def _write_out(self) -> None:
        """Write what the WebSocket protocol itself has to say: pongs and closes."""
        for data in self.websocket.data_to_send():
            self.write_acks()
            if data:
                self._transport.write(data)
            else:
                # Its way to say that the connection ends here.
                self._end(Close(Code.GOING_AWAY, "closed by the peer"))
                self._end_transport()

    @guarded
    def pause_writing(self) -> None:
        """Leave the members of this connection where they are; what is said meanwhile waits."""
        self.writable = False
        for cursor in self._cursors.values():
            self._context.relay.pause(cursor)
        self.write_acks()
        self._update_reading()

    @guarded
    def resume_writing(self) -> None:
        """Catch up."""
        self.writable = True
        self.stalled = 0.0
        self.left = -1
        self._update_reading()
        for room, cursor in list(self._cursors.items()):
            self._context.relay.resume(cursor)
            if not self.writable:
                # Others first, the next time.
                if room in self._cursors:
                    self._cursors[room] = self._cursors.pop(room)
                return

    @property
    def is_listening(self) -> bool:
        """Whether it is read from, so that an answer would be heard."""
        return self._reading

    @property
    def readable(self) -> bool:
        """Whether it takes its answers, has more to say, and the store keeps up with that."""
        if self._closing is not None:
            return True
        if not self.writable or self._finishing is not None:
            return False
        return self.publishing < MOST_PUBLISHING

    def _update_reading(self) -> None:
        """Read on, or when it is this client's turn, where that is due."""
        readable = self.readable
        if readable and self._resting:
            self._context.intake.add(self)
        wanted = readable and not self._resting
        if wanted != self._reading and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


def _is_malformed(request: Join | Leave | Ping | Invalid) -> bool:
    return isinstance(request, Invalid) and request.malformed
