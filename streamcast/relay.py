"""The core: rooms and their followers, joining, catching up, publishing.

The law of this file: it knows no socket and no HTTP, and decides nothing that `room` and `proof`
can decide; it asks the store what they want to know and hands them the answer. What needs no answer
from the store is done at once, without a task.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from streamcast import log
from streamcast.config import RelaySettings
from streamcast.cursor import Cursor, Mark
from streamcast.errors import CodedError, StoreError, Unavailable
from streamcast.fanout import FanOut
from streamcast.follower import OpenRoom
from streamcast.joining import Need, Placed, locate
from streamcast.message import ZERO
from streamcast.proof import EXAMINE, Read, page
from streamcast.streams import Publication, Streams
from streamcast.window import BEFORE
from streamcast.wire import Close, Start
from streamcast.wire.close import Code

JOIN_TIMEOUT = 5.0
"""Seconds after which a join that waits for the store is refused."""
RETRY = 0.25
"""Seconds until a page of history is asked for again."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a relay holds now, and has done so far."""

    rooms: int
    members: int
    behind: int
    delivered: int
    window_bytes: int


class Relay:
    """Broadcasts rooms to their members. None of the calls that are not `async` waits."""

    # What each message comes by is called without a step in between.
    publish: Callable[[Publication], None]
    """Adds a message to its room's stream; `publication.done` is called once."""
    behind: Callable[[Callable[[], None]], None]
    """Calls once when what is being read just now is being handed out."""

    def __init__(self, streams: Streams, settings: RelaySettings) -> None:
        self.streams = streams
        self.settings = settings
        self._rooms: dict[str, OpenRoom] = {}
        self._fan_out = FanOut()
        self.publish = streams.publish
        self.behind = self._fan_out.behind
        self._tasks: set[asyncio.Task[None]] = set()
        self._window_bytes = 0
        self._delivered_before = 0

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def statistics(self) -> Statistics:
        """Return what is held now and was done so far."""
        rooms = [open_room.room for open_room in self._rooms.values() if open_room.is_open]
        return Statistics(
            rooms=len(rooms),
            members=sum(len(room.members) for room in rooms),
            behind=sum(not room.is_live(member) for room in rooms for member in room.members),
            delivered=self.delivered,
            window_bytes=self._window_bytes,
        )

    @property
    def delivered(self) -> int:
        """How many messages were written to members so far."""
        rooms = (entry.room for entry in self._rooms.values() if entry.is_open)
        return self._delivered_before + sum(room.delivered for room in rooms)

    @property
    def rooms(self) -> int:
        """How many rooms somebody is in."""
        return len(self._rooms)

    # Joining and leaving

    def join(self, cursor: Cursor, start: Start) -> None:
        """Make a member; its sink is told `joined` or `refused`, perhaps before this returns."""
        open_room = self._rooms.get(cursor.room)
        if open_room is None:
            open_room = self._rooms[cursor.room] = OpenRoom(self, cursor.room)
            open_room.waiting.append((cursor, start))
            self.streams.follow(cursor.room, open_room)
        elif open_room.is_open:
            self._place(open_room, cursor, start)
        else:
            open_room.waiting.append((cursor, start))

    def leave(self, cursor: Cursor) -> None:
        """End a membership, or a join under way, and what is being read for it."""
        cursor.gone = True
        if cursor.work is not None:
            cursor.work.cancel()
        open_room = self._rooms.get(cursor.room)
        if open_room is None:
            return
        if open_room.is_open:
            open_room.room.remove(cursor)
        else:
            open_room.waiting = [entry for entry in open_room.waiting if entry[0] is not cursor]
        self._close_if_empty(open_room)

    def opened(self, open_room: OpenRoom) -> None:
        """Place those who waited for a room to open."""
        waiting, open_room.waiting = open_room.waiting, []
        # One may leave again in being placed; the room stays open for the others.
        open_room.placing += 1
        for cursor, start in waiting:
            if not cursor.gone:
                self._place(open_room, cursor, start)
        open_room.placing -= 1
        self._close_if_empty(open_room)

    def _place(self, open_room: OpenRoom, cursor: Cursor, start: Start) -> None:
        place = locate(open_room.room, start, fresh=False)
        if isinstance(place, Placed):
            self._admit(open_room, cursor, place)
        else:
            open_room.placing += 1
            cursor.work = self._spawn(self._place_later(open_room, cursor, start, place))
            cursor.work.add_done_callback(lambda _: self._placed(open_room))

    def _placed(self, open_room: OpenRoom) -> None:
        open_room.placing -= 1
        self._close_if_empty(open_room)

    def _admit(self, open_room: OpenRoom, cursor: Cursor, place: Placed) -> None:
        open_room.room.add(cursor, place.mark)
        cursor.sink.joined(cursor, place.mark.id, resumed=place.resumed)
        if place.gap is not None:
            cursor.take([place.gap])
        self.resume(cursor)

    async def _place_later(
        self, open_room: OpenRoom, cursor: Cursor, start: Start, need: Need
    ) -> None:
        """Ask the store what is needed to place a member, and place it."""
        try:
            async with asyncio.timeout(JOIN_TIMEOUT):
                place = await self._find(open_room, start, need)
            cursor.work = None
            self._admit(open_room, cursor, place)
        except TimeoutError:
            cursor.sink.refused(cursor, Unavailable("The store does not answer."))
        except CodedError as error:
            cursor.sink.refused(cursor, error)
        except Exception:
            cursor.sink.refused(cursor, Unavailable("The room can't be joined now."))
            raise

    async def _find(self, open_room: OpenRoom, start: Start, need: Need) -> Placed:
        fresh = False
        while True:
            if need is Need.STORE:
                return await self._find_in_store(open_room, start)
            if need is Need.FRESH:
                await open_room.wait_fresh()
                fresh = True
            else:
                await self._fill(open_room)
            place = locate(open_room.room, start, fresh=fresh)
            if isinstance(place, Placed):
                return place
            need = place

    async def _find_in_store(self, open_room: OpenRoom, start: Start) -> Placed:
        """Find a place that lies before what the window can hold."""
        room = open_room.room
        if start.after is None:
            return Placed(await self._before_last(open_room, start.last or 0))
        mark = Mark(BEFORE, start.after, None, room.history)
        reply = await self.streams.examine(room.name, Read(EXAMINE, mark.id, 2))
        gap, _ = page(mark.id, None, reply)
        # The first page that is read from there tells the gap.
        return Placed(mark, resumed=gap is None)

    async def _before_last(self, open_room: OpenRoom, last: int) -> Mark:
        """Walk back to the entry before the newest `last` ones."""
        room = open_room.room
        end, history = room.tip.id, room.history
        left = last
        while True:
            count = min(left, room.count) + 1
            entries = await self.streams.before(room.name, end, count)
            room.measure(entries)
            if left < len(entries):
                return Mark(BEFORE, entries[left].id, entries[left].fingerprint, history)
            if len(entries) < count:
                return Mark(BEFORE, ZERO, None, history, told=ZERO)
            left -= len(entries) - 1
            end = entries[-1].id

    async def _fill(self, open_room: OpenRoom) -> None:
        """Read older entries into the window: once, however many wait for them."""
        if open_room.filling is None:
            open_room.filling = self._spawn(self._read_older(open_room))
        await asyncio.shield(open_room.filling)

    async def _read_older(self, open_room: OpenRoom) -> None:
        room = open_room.room
        floor, history, count = room.window.floor, room.history, room.count + 1
        try:
            entries = await self.streams.before(room.name, floor, count)
            await open_room.wait_read()
            room.older(floor, history, entries, count)
            self.grown(open_room)
        finally:
            open_room.filling = None

    def _close_if_empty(self, open_room: OpenRoom) -> None:
        if open_room.is_empty and not open_room.gone:
            self.forget(open_room)
            self.streams.unfollow(open_room.name)

    def forget(self, open_room: OpenRoom) -> None:
        """Part with a room that nobody is in."""
        if not open_room.gone:
            open_room.gone = True
            del self._rooms[open_room.name]
            if open_room.filling is not None:
                # It would wait for a room that is read no more.
                open_room.filling.cancel()
            self._window_bytes -= open_room.weight
            if open_room.is_open:
                self._delivered_before += open_room.room.delivered

    # Reading and handing out

    def grown(self, open_room: OpenRoom) -> None:
        """Hand out what a room has read."""
        if open_room.gone:
            return
        size = open_room.room.window.size
        self._window_bytes += size - open_room.weight
        open_room.weight = size
        if self._window_bytes > self.settings.windows:
            self._shrink_windows()
        self._fan_out.add(open_room)

    def _shrink_windows(self) -> None:
        """Forget what rooms keep, the longest open first, until an eighth is free."""
        for open_room in list(self._rooms.values()):
            if self._window_bytes <= self.settings.windows * 7 // 8:
                break
            if open_room.is_open:
                open_room.room.shrink()
                self._window_bytes += open_room.room.window.size - open_room.weight
                open_room.weight = open_room.room.window.size

    # Catching up

    def pause(self, cursor: Cursor) -> None:
        """Leave a member where it is; its sink takes no more."""
        if cursor.mark is not None:
            self._rooms[cursor.room].room.pause(cursor)

    def resume(self, cursor: Cursor) -> None:
        """Bring a member up to what its room has handed out; its sink takes more again."""
        if cursor.work is not None or cursor.mark is None:
            return
        open_room = self._rooms[cursor.room]
        read = open_room.room.catch_up(cursor)
        if read is not None:
            cursor.work = self._spawn(self._catch_up(open_room, cursor, read))

    async def _catch_up(self, open_room: OpenRoom, cursor: Cursor, read: Read | None) -> None:
        """Read for one member what the window has no longer, page by page."""
        room = open_room.room
        try:
            while read is not None and (mark := cursor.mark) is not None:
                if not await self._read_page(open_room, cursor, mark, read):
                    await asyncio.sleep(RETRY)
                read = room.catch_up(cursor)
        except Exception:
            cursor.sink.close(Close(Code.INTERNAL, "internal error"))
            raise
        finally:
            cursor.work = None

    async def _read_page(self, open_room: OpenRoom, cursor: Cursor, mark: Mark, read: Read) -> bool:
        """Read a page for a member that stands at `mark`; return False if the store had none yet.

        The page is forgotten with this call: many may wait for their turn to read the next one.
        """
        room, history = open_room.room, open_room.room.history
        try:
            reply = await self.streams.examine(room.name, read)
        except StoreError:
            return False
        await open_room.wait_read()
        room.caught(cursor, mark, history, reply)
        stands = cursor.sink.writable and cursor.mark is not None and cursor.mark.id == mark.id
        if stands and mark.id != room.tip.id:
            # The store has less than the room has read: it has to look again.
            self.streams.changed(room.name)
            return False
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # That the store went away is no fault; those who waited for the task are told.
        if task.cancelled() or not isinstance(task.exception(), StoreError):
            log.fault_of(task, "relay")
