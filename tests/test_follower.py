"""A room that is open, by itself."""

from types import SimpleNamespace
from typing import Any

import pytest

import streamcast.room
from streamcast.config import RelaySettings
from streamcast.follower import OpenRoom
from streamcast.proof import Kind, Reply
from tests.model import Stream

pytestmark = pytest.mark.one_cell


def test_reading_goes_on_when_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held up while too much waits to be handed out; nobody else would ask for it then."""
    monkeypatch.setattr(streamcast.room, "MAX_COUNT", 3)
    changed: list[str] = []
    owner: Any = SimpleNamespace(
        streams=SimpleNamespace(changed=changed.append),
        settings=RelaySettings(),
        opened=lambda _: None,
        grown=lambda _: None,
    )
    stream = Stream.of(5)
    open_room = OpenRoom(owner, "room")
    first = open_room.next_read(announced=False)
    assert first is not None
    assert first.kind is Kind.RESOLVE
    assert not open_room.received(first, Reply((), complete=True, info=stream.info()))
    for _ in range(7):
        stream.add()
    held = 0
    while open_room.room.position.id != stream.info().last:
        read = open_room.next_read(announced=True)
        if read is not None:
            open_room.received(read, stream.answer(read))
            assert open_room.room.window.end - open_room.room.tip.index <= 2 * 3
        else:
            held += 1
            assert changed == ["room"] * (held - 1)
            open_room.hand_out(9)
            assert changed == ["room"] * held
    assert held == 2
    open_room.hand_out(9)
    assert changed == ["room"] * held, "nothing is held up any more"
