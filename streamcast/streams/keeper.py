"""Trimming and expiry: a room keeps what it promised, and not for ever.

The law of this file: an entry is trimmed only if the room keeps `history` newer ones *and* it is
older than `young` seconds, so that a burst is never trimmed before other servers could read it. A
room that somebody is in never expires. Commands here may fail: the next ones make up for it.
"""

import time
from collections.abc import Callable
from typing import Any

from streamcast.config import StreamSettings
from streamcast.message import MessageId
from streamcast.streams.lane import Callback, pack

LEAST_BETWEEN = 1.0
CHECK_EVERY_PUBLISHES = 100
FORGET_AFTER = 60.0

# In one step: between an XLEN and an XTRIM others could trim as well.
# KEYS: stream. ARGV: how many entries it keeps, the oldest time in ms that is young.
# LIMIT 0 would be no limit.
TRIM = """
local more = redis.call('XLEN', KEYS[1]) - ARGV[1]
if more > 0 then
  return redis.call('XTRIM', KEYS[1], 'MINID', '~', ARGV[2], 'LIMIT', more)
end
return 0
"""

Send = Callable[[bytes, Callback | None], None]


class _Seen:
    """When a stream was looked after, on the keeper's clock, and publishes to it since."""

    __slots__ = ("at", "publishes")

    def __init__(self, at: float) -> None:
        self.at = at
        self.publishes = 0


class Keeper:
    """Looks after streams by their keys; `send` sends a command, replies may never come."""

    def __init__(
        self,
        settings: StreamSettings,
        send: Send,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._history = settings.kept
        self._young_ms = int(settings.young * 1000)
        self._retained_ms = int(settings.retained * 1000)
        # What is added now can't be trimmed before it is no longer young; but a short time to live
        # has to be looked after more often.
        every = max(LEAST_BETWEEN, settings.young)
        self._check_every = min(every, settings.retained / 4) if self.expires else every
        self._send = send
        self._clock = clock
        self._seen: dict[bytes, _Seen] = {}

    @property
    def expires(self) -> bool:
        """Whether empty rooms expire."""
        return self._retained_ms > 0

    def expire_new(self, key: bytes) -> bytes:
        """Return the command that gives a stream its time to live if it has none; or nothing."""
        return pack(("PEXPIRE", key, self._retained_ms, "NX")) if self.expires else b""

    def published(self, key: bytes, id: MessageId) -> None:
        """Look after a stream that was added to: about every `young` seconds, or 100 times."""
        if not self._history and not self.expires:
            return
        now = self._clock()
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = _Seen(now)
        else:
            seen.publishes += 1
            if now - seen.at < self._check_every and seen.publishes < CHECK_EVERY_PUBLISHES:
                return
            seen.at, seen.publishes = now, 0
        self.renew(key)
        if self._history:
            # The ID tells the store's own time.
            oldest = max(0, id.ms - self._young_ms)
            self._send(pack(("EVAL", TRIM, 1, key, self._history, oldest)), None)

    def renew(self, key: bytes) -> None:
        """See to it that a stream lives on: its time is set anew when half of it is over."""
        if self.expires:
            self._send(pack(("PTTL", key)), lambda left: self._renew(key, left))

    def _renew(self, key: bytes, left: Any) -> None:
        # -2: no such key; -1: it never expires.
        if isinstance(left, int) and (left == -1 or 0 <= left < self._retained_ms // 2):
            self._send(pack(("PEXPIRE", key, self._retained_ms)), None)

    def forget_quiet(self) -> None:
        """Forget streams that were not added to for a while."""
        before = self._clock() - FORGET_AFTER
        self._seen = {key: seen for key, seen in self._seen.items() if seen.at > before}
