"""A process of the load: it publishes what is due, and notes what comes and when.

The law of this file: while it measures it does nothing else. Whether all came, and how late, is
judged afterwards; what a publisher could not send in time is sent late, and its lateness counts.
"""

import gc
import heapq
import os
import resource
import selectors
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from math import ceil
from multiprocessing.connection import Connection as Pipe

from streamcast.bench.dialects import DIALECTS, Dialect, Said
from streamcast.bench.frames import CLOSE, PING, PONG, behind, client_frame, frames_of
from streamcast.bench.histogram import Histogram
from streamcast.bench.plan import Member, Plan
from streamcast.bench.reception import Faults, Judgement, Receiver, Stream, Tally, judge
from streamcast.bench.schedule import payload
from streamcast.bench.sockets import CHUNK, Connection, open_all
from streamcast.errors import StreamcastError, Unreachable

LONGEST_WAIT = 0.05
"""Seconds until it looks again what it is told to do."""
TELL_EVERY = 0.25
"""Seconds between two reports of how far it is."""
SIGN_EVERY = 5.0
"""Seconds between two signs of life of a connection that does not publish."""
SIGNS_AT_ONCE = 0.1
"""Seconds for which signs are given at once: all of them together would be a load of their own."""
JOIN_PATIENCE = 20.0
STORM_SERVES = 8
"""After how many members that come back all others are served."""
UNMEASURED_EVERY = 0.001
"""Seconds until those that are not measured are looked at, where there are such."""
UNMEASURED_AT_ONCE = 64
"""How many of them are read before the others are looked at again."""
STALLED = 4096
"""Bytes that the kernel keeps for a member that does not read."""
MOST_LEADERS = 8
"""Of so many rooms the first listener is read before the others."""
SAMPLED = 20
"""Of how many listeners it is told how late their newest messages were."""
NO_MORE = "no more"
"""What a process is told that is to publish nothing more, and to go on receiving."""
READY = b"ready?"
"""What is published to see whether a room is heard."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a process is: messages sent, and received by all its members.

    `expected`: how many members, of all processes, are to get what was sent. `recent`: how late the
    newest were that a few members got. `done`: there is nothing more to publish. `connected`: how
    many members still are. `published`: how many by each publisher, once the process has stopped.
    """

    received: int
    expected: int
    recent: Histogram
    done: bool
    connected: int
    published: Mapping[int, int] | None = None


@dataclass(slots=True)
class Result:
    """What a process found out.

    `latencies`: by the second in which the message was due. `last`: of each message, how many of
    this process' members got it, and when the last did, after it was due. `worst`: the p99 of the
    member that had the worst. `caught_up`: of each member that lost its connection on purpose, the
    seconds from then until it was in its room again and had all that was due until it was;
    `behind`: how many never got in. `latest`: when the last message came, in seconds since the load
    began. `cpu`, of `wall`: seconds, from the begin until the last came.
    """

    faults: Faults = field(default_factory=Faults)
    latencies: dict[int, Histogram] = field(default_factory=dict)
    last: dict[tuple[int, int], tuple[int, float]] = field(default_factory=dict)
    worst: float = 0.0
    caught_up: list[float] = field(default_factory=list)
    behind: int = 0
    latest: float = 0.0
    refused: int = 0
    disconnected: int = 0
    cpu: float = 0.0
    wall: float = 0.0


def run(pipe: Pipe, plan: Plan, members: tuple[Member, ...]) -> None:
    """Be a process of the load; the other end of the pipe leads it.

    It says how many seconds connecting took when all members are in their rooms, and is told when
    the load begins. From then on it tells its Progress, until it is told to stop, and a last time
    then; told what was published by all, it says its Result. What it can't do it says as a
    StreamcastError.
    """
    load = Load(plan, members)
    try:
        pipe.send(load.open())
        begin = pipe.recv()
        # A collection would be somebody's latency.
        gc.disable()
        load.measure(begin, pipe)
        gc.enable()
        published = pipe.recv()
        pipe.send(load.judge(begin, published))
    except StreamcastError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError):
        pass  # nobody leads any more
    finally:
        load.close()


class Peer:
    """A member's connection. `sent`: how many of its messages were.

    `joins_left`: how many rooms it is not in yet. `is_cut`: it lost its connection on purpose.
    `back_at`: when it was in its room again, in monotonic seconds.
    """

    __slots__ = (
        "back_at",
        "connection",
        "is_cut",
        "is_open",
        "joins_left",
        "member",
        "receiver",
        "rest",
        "sent",
    )

    def __init__(self, member: Member, connection: Connection) -> None:
        self.member = member
        self.connection = connection
        self.receiver: Receiver | None = None
        self.rest = bytearray(connection.begun)
        self.joins_left = 0
        self.is_open = True
        self.sent = 0
        self.is_cut = False
        self.back_at: float | None = None


class Load:
    """The members that one process plays."""

    def __init__(self, plan: Plan, members: Sequence[Member]) -> None:
        self._plan = plan
        self._members = members
        self._dialect: Dialect = DIALECTS[plan.dialect]
        self._peers: list[Peer] = []
        self._selector = selectors.DefaultSelector()
        # Those that are not measured are read when nobody else is to be, and a few at a time.
        self._unmeasured = selectors.DefaultSelector()
        self._backlog: deque[tuple[selectors.SelectorKey, int]] = deque()
        self._result = Result()
        self._cut_at = 0.0
        # What a server said when it closed a connection.
        self._said = ""
        # The first listeners of a few rooms, with whom all others compare; and those others.
        self._leaders: list[Peer] = []
        self._comparing: list[Receiver] = []
        self._tally = Tally()
        self._listeners = plan.listeners
        self._expected = 0
        self._is_told = False
        # So that keys of another run are not ours.
        self._run = os.urandom(4).hex()

    def close(self) -> None:
        """Cut all connections."""
        for peer in self._peers:
            peer.connection.close()
        self._selector.close()
        self._unmeasured.close()

    # Opening

    def open(self) -> float:
        """Connect, and wait until every listener is in its room; return the seconds it took.

        Raises Unreachable.
        """
        dialect, began = self._dialect, time.monotonic()
        paths = [dialect.path(each.room, listens=each.listens) for each in self._members]
        connections = open_all(self._plan.address, paths, dialect.subprotocol)
        for member, connection in zip(self._members, connections, strict=True):
            peer = Peer(member, connection)
            peer.joins_left = len(member.rooms) or int(dialect.all_join)
            self._peers.append(peer)
            self._selector.register(connection.sock, selectors.EVENT_READ, peer)
            for room in member.rooms:
                if join := dialect.join(room):
                    self._send(peer, join)
            self._take_before(peer)  # what came with the handshake
        self._wait_until_in()
        return time.monotonic() - began

    def _wait_until_in(self) -> None:
        end = time.monotonic() + JOIN_PATIENCE
        ask_at = 0.0
        while missing := [peer for peer in self._peers if peer.joins_left]:
            now = time.monotonic()
            if self._result.disconnected:
                raise Unreachable(f"The server closed a connection at once{self._said}.")
            if now > end:
                raise Unreachable(f"{len(missing)} subscribers did not get into their rooms.")
            if not self._dialect.joins and now > ask_at:
                # Only a message shows that a room is heard.
                for peer in {each.member.room: each for each in missing}.values():
                    self._send(peer, self._dialect.publish(peer.member.room, READY))
                ask_at = now + 1.0
            for key, _ in self._selector.select(LONGEST_WAIT):
                self._hear_before(key.data)

    def _hear_before(self, peer: Peer) -> None:
        """Take in what comes before the load begins."""
        try:
            data = peer.connection.receive()
        except OSError:
            data = b""
        if data == b"":
            self._lost(peer)
        else:
            peer.rest += data or b""
            self._take_before(peer)

    def _take_before(self, peer: Peer) -> None:
        for frame, _ in frames_of(peer.rest):
            if self._payload(frame.opcode, frame.data) is None:
                self._other(peer, frame.opcode, frame.data)

    def _payload(self, opcode: int, data: bytes) -> bytes | None:
        found = self._dialect.payload(opcode, data)
        return None if found == READY else found

    def _other(self, peer: Peer, opcode: int, data: bytes) -> None:
        """Take in a frame that is no message of the load."""
        if opcode == PING:
            self._send(peer, client_frame(PONG, data))
        elif opcode == CLOSE:
            code, reason = int.from_bytes(data[:2], "big"), data[2:].decode(errors="replace")
            self._said = f": {code} {reason}".rstrip()
            self._lost(peer)
        elif self._dialect.payload(opcode, data) == READY:
            peer.joins_left = 0
        else:
            member = peer.member
            answer = self._dialect.answer(member.room, opcode, data, listens=member.listens)
            if answer:
                self._send(peer, answer)
            said = self._dialect.said(opcode, data)
            self._result.refused += said is Said.REFUSED
            if said is Said.JOINED:
                peer.joins_left -= peer.joins_left > 0
                if peer.is_cut:
                    peer.back_at = time.monotonic()

    def _lost(self, peer: Peer) -> None:
        if peer.is_open:
            peer.is_open = False
            self._result.disconnected += 1
            self._selector_of(peer).unregister(peer.connection.sock)
            if peer.receiver is not None and peer.receiver.leads:
                for other in self._peers:
                    if other.member.room == peer.member.room and other.receiver is not None:
                        other.receiver.stop_comparing()

    # Measuring

    def measure(self, begin: float, pipe: Pipe) -> None:
        """Publish and receive until told to stop; say then how far it was.

        `begin`: monotonic time, in seconds, from which everything is due.
        """
        self._make_receivers()
        self._selector.register(pipe, selectors.EVENT_READ)
        due = [
            (begin + peer.member.schedule.due(0), number)
            for number, peer in enumerate(self._peers)
            if peer.member.schedule is not None and peer.member.schedule.count
        ]
        heapq.heapify(due)
        while (wait := begin - time.monotonic()) > 0:
            self._serve(wait)
        used, received, tell_at, sign_at = _cpu(), 0, begin + TELL_EVERY, begin
        listeners = [peer for peer in self._peers if peer.member.schedule is None]
        cut_at = None if self._plan.cut_at is None else begin + self._plan.cut_at
        publishers = self._plan.publishers
        while True:
            if self._is_told:
                self._is_told = False
                if pipe.recv() != NO_MORE:
                    break
                due.clear()
            now = time.monotonic()
            if cut_at is not None and now >= cut_at:
                cut_at = None
                self._storm(due, begin)
            if now >= tell_at:
                tell_at = now + TELL_EVERY
                progress = self._progress(begin, done=not due)
                pipe.send(progress)
                if due or progress.received > received or not publishers:
                    received = progress.received
                    self._result.cpu, self._result.wall = _cpu() - used, now - begin
            if now >= sign_at and publishers:
                sign_at = now + SIGNS_AT_ONCE
                self._give_signs(listeners)
            self._publish(due, begin, now)
            wait = min(tell_at, due[0][0] if due else tell_at) - time.monotonic()
            self._serve(max(0.0, min(wait, LONGEST_WAIT)))
        published = {
            peer.member.schedule.publisher: peer.sent
            for peer in self._peers
            if peer.member.schedule is not None
        }
        pipe.send(replace(self._progress(begin, done=not due), published=published))

    def _make_receivers(self) -> None:
        """Have the first mere listener of each room lead those that only compare."""
        streams: dict[str, Stream] = {}
        publishers = self._plan.publishers
        for peer in self._peers:
            member = peer.member
            if not member.counts:
                self._selector.unregister(peer.connection.sock)
                self._unmeasured.register(peer.connection.sock, selectors.EVENT_READ, peer)
            if member.stalls:
                self._selector_of(peer).unregister(peer.connection.sock)
                # The kernel is to take little for it, so that it stalls soon.
                peer.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STALLED)
                continue
            if not member.listens:
                continue
            mere = member.schedule is None and not member.more
            leads = mere and member.room not in streams
            if leads and len(self._leaders) < MOST_LEADERS:
                self._leaders.append(peer)
            stream = streams.setdefault(member.room, Stream()) if mere else Stream()
            storms = self._plan.cut_at is not None
            # Where nothing is published there is nothing to compare, but pings to be answered.
            compares = mere and bool(publishers) and not (leads or storms or peer.rest)
            peer.receiver = Receiver(
                stream,
                self._payload,
                self._plan.size,
                partial(self._other, peer),
                leads=leads,
                compares=compares,
                keeps=self._dialect.shapes,
                tally=self._tally,
            )
            if compares:
                self._comparing.append(peer.receiver)
            if peer.rest:
                peer.receiver.receive(time.monotonic(), bytes(peer.rest))

    # A storm

    def _storm(self, due: list[tuple[float, int]], begin: float) -> None:
        """Lose the connections of all mere listeners at once, and come back behind what came."""
        gone = [peer for peer in self._peers if peer.member.schedule is None and peer.is_open]
        self._cut_at = time.monotonic()
        for peer in gone:
            peer.is_cut, peer.is_open = True, False
            self._selector.unregister(peer.connection.sock)
            peer.connection.close()
        paths = [self._dialect.path(peer.member.room, listens=True) for peer in gone]
        connections = open_all(self._plan.address, paths, self._dialect.subprotocol)
        for number, peer in enumerate(gone):
            assert peer.receiver is not None
            try:
                peer.connection = connection = next(connections)
            except (Unreachable, StopIteration):
                # That some don't get in again is what a storm is to show.
                self._result.disconnected += 1
                continue
            peer.is_open = True
            peer.receiver.begin_anew()
            self._selector.register(connection.sock, selectors.EVENT_READ, peer)
            self._send(peer, self._dialect.rejoin(peer.member.room, self._last_id(peer)))
            if connection.begun:
                peer.receiver.receive(time.monotonic(), connection.begun)
            if number % STORM_SERVES == 0:
                self._publish(due, begin, time.monotonic())
                self._serve(0.0)

    def _last_id(self, peer: Peer) -> str:
        """Return the ID of the last message that came."""
        assert peer.receiver is not None
        return self._dialect.id_of(peer.receiver.last_frame) or "0-0"

    def _publish(self, due: list[tuple[float, int]], begin: float, now: float) -> None:
        """Send all that is due."""
        while due and due[0][0] <= now:
            _, number = due[0]
            peer = self._peers[number]
            schedule = peer.member.schedule
            assert schedule is not None
            if not peer.is_open:
                heapq.heappop(due)
                continue
            mark = schedule.mark(peer.sent)
            key = f"{self._run}-{number}-{peer.sent}" if self._plan.keyed else None
            frame = self._dialect.publish(peer.member.room, payload(mark, self._plan.size), key)
            peer.sent += 1
            self._expected += self._listeners[peer.member.room]
            if peer.sent < schedule.count:
                heapq.heapreplace(due, (begin + schedule.due(peer.sent), number))
            else:
                heapq.heappop(due)
            self._send(peer, frame)

    def _send(self, peer: Peer, data: bytes) -> None:
        try:
            peer.connection.send(data)
        except OSError:
            self._lost(peer)
            return
        if peer.connection.is_behind:
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector_of(peer).modify(peer.connection.sock, both, peer)

    def _give_signs(self, listeners: list[Peer]) -> None:
        """Spare those that compare a ping between the messages; where there are none, answer it.

        Those whose turn it is go to the end of the list.
        """
        share = listeners[: ceil(len(listeners) * SIGNS_AT_ONCE / SIGN_EVERY)]
        listeners[:] = listeners[len(share) :] + share
        for peer in share:
            if peer.is_open and not peer.connection.is_behind:
                with suppress(OSError):
                    peer.connection.give_sign()

    def _serve(self, wait: float) -> None:
        """Receive what came, and send what waited."""
        if self._unmeasured.get_map():
            if not self._backlog:
                self._backlog.extend(self._unmeasured.select(0.0))
            wait = 0.0 if self._backlog else min(wait, UNMEASURED_EVERY)
        ready = self._selector.select(wait)
        for leader in self._leaders:
            # Before those that compare with it.
            if leader.is_open:
                self._read(leader)
        for key, events in ready:
            if key.data is None:
                self._is_told = True
            else:
                self._attend(key.data, events)
        for _ in range(min(UNMEASURED_AT_ONCE, len(self._backlog))):
            key, events = self._backlog.popleft()
            if key.data.is_open:
                self._attend(key.data, events)

    def _attend(self, peer: Peer, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(peer)
        if events & selectors.EVENT_READ:
            self._read(peer)

    def _selector_of(self, peer: Peer) -> selectors.BaseSelector:
        is_unmeasured = peer.connection.sock in self._unmeasured.get_map()
        return self._unmeasured if is_unmeasured else self._selector

    def _flush(self, peer: Peer) -> None:
        try:
            peer.connection.flush()
        except OSError:
            self._lost(peer)
            return
        if not peer.connection.is_behind:
            self._selector_of(peer).modify(peer.connection.sock, selectors.EVENT_READ, peer)

    def _read(self, peer: Peer) -> None:
        try:
            data = peer.connection.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(peer)
        elif peer.receiver is not None:
            peer.receiver.receive(time.monotonic(), data)
        else:
            self._hear_answers(peer, data)

    def _hear_answers(self, peer: Peer, data: bytes) -> None:
        """Take in what a mere publisher is told."""
        if self._dialect.joins:
            shapes = self._dialect.shapes
            if shapes is not None and shapes.nothing is not None and not peer.rest:
                # Acks: one comes for each message.
                data = behind(data, shapes.nothing)
            peer.rest += data
            for frame, _ in frames_of(peer.rest):
                self._other(peer, frame.opcode, frame.data)

    def _progress(self, begin: float, *, done: bool) -> Progress:
        received = self._tally.count
        for receiver in self._comparing:
            receiver.catch_up()
            received += receiver.compared
        connected = sum(peer.is_open for peer in self._peers)
        return Progress(received, self._expected, self._recent(begin), done, connected)

    def _recent(self, begin: float) -> Histogram:
        """Return how late the newest messages of a few listeners were."""
        recent = Histogram()
        listeners = (peer.receiver for peer in self._peers if peer.receiver is not None)
        for receiver in islice(listeners, SAMPLED):
            for now, mark in receiver.newest():
                recent.add(now - begin - mark.due / 1e6)
        return recent

    # Judging

    def judge(self, begin: float, published: Mapping[int, int]) -> Result:
        """Return what came of what was published, and how late it was."""
        publishers = self._plan.publishers
        result = self._result
        for peer in self._peers:
            if peer.receiver is None:
                continue
            peer.receiver.give_up_comparing()
            peer.receiver.take_apart_kept()
            heard = [each for room in peer.member.rooms for each in publishers.get(room, ())]
            index = {publisher: number for number, publisher in enumerate(heard)}
            judgement = judge(
                peer.receiver.arrivals(), [published[each] for each in heard], index, begin
            )
            judgement.faults.unknown += peer.receiver.unknown
            self._count(judgement, measured=peer.member.counts)
            if peer.back_at is not None:
                missed = (peer.back_at - begin) * 1e6
                came = (now for now, mark in peer.receiver.arrivals() if mark.due < missed)
                result.caught_up.append(max(peer.back_at, *came) - self._cut_at)
            elif peer.is_cut:
                result.behind += 1
        return result

    def _count(self, judgement: Judgement, *, measured: bool) -> None:
        """Add one member's; what was due while the server warmed up is not measured."""
        result, warm = self._result, self._plan.warmup
        result.faults.add(judgement.faults)
        if not measured:
            return
        latencies = []
        for mark, latency in judgement.latencies:
            due = mark.due / 1e6
            result.latest = max(result.latest, due + latency)
            if due < warm:
                continue
            latencies.append(latency)
            second = int(due)
            result.latencies.setdefault(second, Histogram()).add(latency)
            key = (mark.publisher, mark.number)
            count, last = result.last.get(key, (0, 0.0))
            result.last[key] = (count + 1, max(last, latency))
        if latencies:
            latencies.sort()
            result.worst = max(result.worst, latencies[ceil(len(latencies) * 0.99) - 1])


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
