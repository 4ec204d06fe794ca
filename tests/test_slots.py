"""Who has which slots, as nodes tell it; and what they say of keys that are not theirs."""

from typing import Any

import hiredis
import pytest

from streamcast.streams.redirect import Redirect
from streamcast.streams.slots import SLOTS, Address, View, owners, slot_of

ASKED = Address("seed", 7000)
A, B, C = (letter * 40 for letter in "abc")


def line(id_: str, *slots: str, flags: str = "master", epoch: int = 1) -> str:
    return " ".join([id_, "10.0.0.1:7000@17000", flags, "-", "0", "0", str(epoch), "up", *slots])


def view(*lines: str, slots: Any = ()) -> View:
    return View.of("\n".join([*lines, ""]).encode(), slots, ASKED)


def test_ranges_and_single_slots() -> None:
    told = view(line(A, "0-9", "11", flags="myself,master"), line(B, "10", "12-16383"))
    found = owners([told])
    assert [found[slot] for slot in (0, 9, 10, 11, 12, SLOTS - 1)] == [A, A, B, A, B, B]
    assert not told.leaving


def test_slots_that_nobody_has() -> None:
    found = owners([view(line(A, "0-99"))])
    assert found[99] == A
    assert found[100:] == [""] * (SLOTS - 100)
    assert owners([]) == [""] * SLOTS


def test_the_newest_configuration_counts() -> None:
    """A master that was cut off still names itself; whichever is asked first."""
    old = view(line(A, "0-16383", flags="myself,master", epoch=3))
    new = view(line(A, flags="master,fail", epoch=3), line(B, "0-16383", epoch=4))
    assert set(owners([old, new])) == set(owners([new, old])) == {B}


def test_only_a_nodes_own_slots_leave_it() -> None:
    """What others move is told by those."""
    leaving = f"[93-<-{B}]", f"[77->-{B}]", f"[78->-{C}]"
    assert view(line(A, "0-100", *leaving, flags="myself,master")).leaving == {77, 78}
    assert not view(line(A, "0-100", *leaving)).leaving


def test_where_nodes_are() -> None:
    """A host that is not known is that of the node that was asked."""
    slots = [
        [0, 9, [b"one.example", 7001, A.encode(), {}], [b"", 7002, B.encode(), {}]],
        [10, 16383, [None, 7003, C.encode()]],
    ]
    told = view(line(A, "0-9"), slots=slots)
    assert told.addresses == {
        A: Address("one.example", 7001),
        B: Address("seed", 7002),
        C: Address("seed", 7003),
    }


def test_only_what_is_in_braces_counts() -> None:
    assert slot_of(b"streamcast:live") == slot_of(b"{streamcast:live}:sent:key")


@pytest.mark.parametrize(
    ("error", "redirect"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirect(False, 3999, "127.0.0.1", 6381)),
        ("ASK 3999 one.example:6381", Redirect(True, 3999, "one.example", 6381)),
        ("MOVED 3999 :6381", Redirect(False, 3999, "", 6381)),
        ("MOVED 3999 ?:6381", Redirect(False, 3999, "", 6381)),
        ("MOVED 3999 ::1:6381", Redirect(False, 3999, "::1", 6381)),
        ("CLUSTERDOWN The cluster is down", None),
        ("ERR unknown", None),
    ],
)
def test_redirects(error: str, redirect: Redirect | None) -> None:
    assert Redirect.parse(hiredis.ReplyError(error)) == redirect
