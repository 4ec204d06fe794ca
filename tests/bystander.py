"""One who must notice nothing of what others do, or is done to them."""

from itertools import count

from tests.clients import Client
from tests.raw import Serves
from tests.stores import Store

AT_ONCE = 1.0

_names = count()


class Bystander:
    """One in a room of his own name; `stored` is what a test means to be stored there."""

    def __init__(self, server: Serves, store: Store) -> None:
        self.room = f"room-{next(_names)}"
        self.stored: list[str] = []
        self._heard = 0
        self._store = store
        self._keys = set(store.client.keys())
        self._client = Client(f"{server.url}/rooms/{self.room}")
        assert self._client.told(AT_ONCE)["type"] == "joined"
        self._other = Client(f"{server.url}/rooms")

    def hears(self, data: str) -> None:
        """A message reaches him at once, behind what was to be stored and nothing else."""
        ack = self._other.ask(type="publish", room=self.room, data=data)
        self.stored.append(data)
        heard = [self._client.told(AT_ONCE) for _ in self.stored[self._heard :]]
        assert [each.get("data") for each in heard] == self.stored[self._heard :]
        assert heard[-1] == {"type": "message", "room": self.room, "id": ack["id"], "data": data}
        self._heard = len(self.stored)

    def noticed_nothing(self) -> None:
        """Nothing was stored but what was to be, anywhere; he hears what is fresh, and no more."""
        stored = [fields[b"message"].decode() for _, fields in self._store.client.xrange(self.key)]
        assert stored == self.stored
        self.hears("fresh")
        # Servers look after themselves by a key of their own.
        keys = {key.decode() for key in set(self._store.client.keys()) - self._keys}
        assert {key for key in keys if ":probe:" not in key} == {self.key}
        # Nothing is behind it.
        self._client.send('{"type":"ping"}')
        assert self._client.told(AT_ONCE) == {"type": "pong"}

    @property
    def key(self) -> str:
        return f"streamcast:{self.room}"

    def leave(self) -> None:
        self._client.socket.close()
        self._other.socket.close()
