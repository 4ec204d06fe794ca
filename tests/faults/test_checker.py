"""The checker can fail: each kind of wrong is found, and nothing else is."""

import pytest

from tests.faults.checker import Gap, Log, Seen, verdict

ONE, TWO, THREE = (Seen((number, 0), str(number)) for number in (1, 2, 3))
OTHER_TWO = Seen((2, 0), "another history's")
ALL = [ONE, TWO, THREE]


def wrong(log: Log, stored: list[Seen] | None = None) -> str:
    kept = ALL if stored is None else stored
    return "\n".join(verdict({"room": ALL}, {"room": kept}, {"it": {"room": log}}).wrong)


@pytest.mark.parametrize(
    "log",
    [
        ALL,
        [Seen((0, 5), "not acknowledged"), *ALL],
    ],
)
def test_what_is_right(log: Log) -> None:
    assert not wrong(log)


@pytest.mark.parametrize(
    ("log", "stored"),
    [
        ([ONE, Gap((1, 0), (3, 0)), THREE], [ONE, THREE]),
        ([ONE, Gap((1, 0), None)], [ONE]),
        ([Gap((0, 0), (2, 0)), TWO, THREE], [TWO, THREE]),
        # A history was lost, and with it what was not seen yet.
        ([ONE, Gap((1, 0), (0, 7)), Seen((0, 7), "new")], [Seen((0, 7), "new")]),
        ([*ALL, Gap((3, 0), (2, 0)), OTHER_TWO], [ONE, OTHER_TWO]),
    ],
)
def test_what_was_lost_and_told(log: Log, stored: list[Seen]) -> None:
    assert not wrong(log, stored)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ([], "never came"),
        ([ONE, THREE], "never came"),
        ([ONE, OTHER_TWO, THREE], "never came"),
        ([ONE, TWO, TWO, THREE], "came behind"),
        ([ONE, THREE, TWO], "came behind"),
        ([ONE, TWO, Gap((2, 0), (3, 0)), TWO, THREE], "came 2 times"),
        ([ONE, Gap((2, 0), (3, 0)), THREE], "never came"),
        ([Gap((0, 0), (1, 0)), ONE, THREE], "never came"),
        ([ONE, Gap((1, 0), (2, 0)), TWO, THREE], "everything is there"),
    ],
)
def test_what_is_wrong(log: Log, words: str) -> None:
    assert words in wrong(log)


def test_a_loss_has_to_be_told() -> None:
    """Also to one who has seen what was lost."""
    found = verdict({"room": ALL}, {"room": [ONE, TWO]}, {"it": {"room": ALL}})
    assert found.lost == {"room": 1}
    assert "was not told" in found.wrong[0]
    assert not wrong([*ALL, Gap((3, 0), None)], [ONE, TWO])
