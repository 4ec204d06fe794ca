"""Pauses before the store is tried again; by a clock of the test's own."""

from streamcast.backoff import CALM, FIRST_PAUSE, LONGEST_PAUSE, Backoff


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pauses(backoff: Backoff, clock: Clock, count: int, attempt: float = 0.0) -> list[float]:
    """The pauses before so many attempts, each of which takes `attempt` seconds."""
    found = []
    for _ in range(count):
        found.append(backoff.pause())
        clock.now += found[-1] + attempt
    return found


def test_pauses_grow_up_to_a_bound() -> None:
    clock = Clock()
    expected = [min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) for number in range(12)]
    for pause, whole in zip(pauses(Backoff(clock), clock, 12), expected, strict=True):
        assert whole / 2 <= pause <= whole


def test_no_two_servers_wait_alike() -> None:
    assert len({Backoff().pause() for _ in range(50)}) > 40


def test_a_moment_of_success_is_no_calm() -> None:
    """A connection that is lost as soon as it is there is no reason to hurry."""
    clock = Clock()
    backoff = Backoff(clock)
    assert pauses(backoff, clock, 12, attempt=1.0)[-1] >= LONGEST_PAUSE / 2
    clock.now += CALM
    assert backoff.pause() <= FIRST_PAUSE


def test_attempts_that_take_long_are_no_calm() -> None:
    clock = Clock()
    assert pauses(Backoff(clock), clock, 12, attempt=5.0)[-1] >= LONGEST_PAUSE / 2
