"""Acknowledgements that wait for replicas (WAIT).

The law of this file: one WAIT is under way at most, and it is for all that was stored before it was
sent. Meanwhile Redis answers nothing else on the connection, so it paces the lane.
"""

from collections.abc import Callable
from typing import Any

from streamcast.errors import NotReplicated, Unknown
from streamcast.message import MessageId
from streamcast.streams.interface import Outcome, Publication
from streamcast.streams.lane import Callback, pack

Ended = Callable[[Publication, Outcome], None]
Stored = tuple[Publication, MessageId]


class Replication:
    """Holds what was stored until `wanted` replicas have it; `timeout` in seconds.

    `send` sends a command on the lane that stored it; `ended` takes what became of each.
    """

    def __init__(
        self,
        wanted: int,
        timeout: float,
        send: Callable[[bytes, Callback | None], None],
        ended: Ended,
    ) -> None:
        self._wanted = wanted
        self._wait = pack(("WAIT", wanted, max(1, int(timeout * 1000))))
        self._send = send
        self._ended = ended
        self._stored: list[Stored] = []
        self._asked: list[Stored] = []

    def stored(self, publication: Publication, id: MessageId) -> None:
        """Take in that one was stored."""
        self._stored.append((publication, id))
        self._ask()

    def disconnected(self) -> None:
        """End what is held: nobody can say any more who has it."""
        held = [*self._asked, *self._stored]
        self._asked, self._stored = [], []
        for publication, _ in held:
            self._ended(publication, Unknown("The store was lost before replicas had it."))

    def _ask(self) -> None:
        if self._stored and not self._asked:
            self._asked, self._stored = self._stored, []
            self._send(self._wait, self._answered)

    def _answered(self, replicas: Any) -> None:
        asked, self._asked = self._asked, []
        for publication, id_ in asked:
            self._ended(publication, self._outcome(id_, replicas))
        self._ask()

    def _outcome(self, id_: MessageId, replicas: Any) -> Outcome:
        if not isinstance(replicas, int):
            return Unknown(f"The store could not say which replicas have it: {replicas}.")
        if replicas < self._wanted:
            return NotReplicated(
                f"It is stored as {id_}, but {replicas} of {self._wanted} replicas have it.",
                str(id_),
            )
        return id_
