"""Leads the processes of a load: begins them together, and ends them when all has come."""

import multiprocessing
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Protocol

from streamcast.bench import load
from streamcast.bench.load import NO_MORE, Progress, Result
from streamcast.bench.plan import Plan
from streamcast.errors import StreamcastError

START_IN = 0.3
"""Seconds from when all are ready until the load begins: they hear of it before."""
QUIET = 2.0
"""Seconds without a message after which what has not come yet is lost."""
END_WITHIN = 1.0
"""Seconds that a process has to end by itself, when it is no longer led."""
GRACE = 0.3
"""Seconds in which nothing may come once all has: what is doubled comes late."""
LATEST = 30.0
"""Seconds after the last message was published when the load ends in any case."""


class Watcher(Protocol):
    """One who looks on."""

    def begin(self) -> None:
        """Take in that all are connected, and the load begins now."""

    def progress(self, seconds: float, progress: Sequence[Progress]) -> None:
        """Take in how far each process is, after so many seconds."""

    def end(self) -> None:
        """Take in that nothing more comes."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a load found out, all processes together.

    `opened`: seconds that opening all connections took. `seconds`: how long was measured.
    `published` and `received`: how many messages in all, the warm-up too.
    """

    plan: Plan
    opened: float
    seconds: float
    results: Sequence[Result]
    published: int
    received: int
    interrupted: bool


def measure(plan: Plan, processes: int, watcher: Watcher) -> Measured:
    """Run a load to its end; Ctrl-C is one too. Raises StreamcastError."""
    with _processes(plan, processes) as pipes:
        opened = max(map(_hear_seconds, pipes))
        watcher.begin()
        begin = time.monotonic() + START_IN
        _tell_all(pipes, begin)
        leader = _Leader(plan, pipes, begin, watcher)
        interrupted = leader.wait_until_all_came()
        watcher.end()
        _tell_all(pipes, None)
        leader.hear_the_last()
        published = leader.published
        _tell_all(pipes, published)
        results = list(map(_hear_result, pipes))
    measured = max(0.0, leader.end - begin - plan.warmup)
    return Measured(
        plan=plan,
        opened=opened,
        seconds=measured,
        results=results,
        published=sum(published.values()),
        received=leader.received,
        interrupted=interrupted,
    )


@contextmanager
def _processes(plan: Plan, count: int) -> Iterator[list[Pipe]]:
    """Start the processes; what is sent to them and what they say goes through pipes."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pipes = []
        for members in plan.shares(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=load.run, args=(theirs, plan, members), daemon=True)
            with _deaf_to_interrupts():
                process.start()
            theirs.close()
            stack.callback(_end, process, ours)
            pipes.append(ours)
        yield pipes


def _end(process: SpawnProcess, pipe: Pipe) -> None:
    """End a process: one that finds nobody at its pipe does so; one that still connects may not."""
    pipe.close()
    process.join(END_WITHIN)
    if process.is_alive():
        process.terminate()
        process.join()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Have what is started here ignore Ctrl-C: that is for us, who want a report."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Leader:
    """Knows how far each process is."""

    def __init__(self, plan: Plan, pipes: Sequence[Pipe], begin: float, watcher: Watcher) -> None:
        self._pipes = pipes
        self._begin = begin
        self._watcher = watcher
        self.end = begin + plan.duration
        """When the last message is due, in monotonic seconds."""
        self._progress: dict[int, Progress] = {}

    @property
    def published(self) -> dict[int, int]:
        """How many messages each publisher sent; known once all processes have stopped."""
        found: dict[int, int] = {}
        for progress in self._progress.values():
            found.update(progress.published or {})
        return found

    @property
    def received(self) -> int:
        """How many messages came, as far as is known."""
        return sum(progress.received for progress in self._progress.values())

    def wait_until_all_came(self) -> bool:
        """Wait until all that was published has come, or does not come; True if interrupted.

        An interrupt ends the publishing, a second one the waiting.
        """
        try:
            self._wait()
        except KeyboardInterrupt:
            self.end = min(self.end, time.monotonic())
            _tell_all(self._pipes, NO_MORE)
            with suppress(KeyboardInterrupt):
                self._wait()
            return True
        return False

    def _wait(self) -> None:
        received, since = 0, time.monotonic()
        while not self._all_are_gone:
            for pipe in wait(self._pipes, timeout=1.0):
                assert isinstance(pipe, Pipe)
                self._hear_from(pipe)
            now = time.monotonic()
            self._watcher.progress(now - self._begin, list(self._progress.values()))
            before, received = received, self.received
            if received != before:
                since = now
            if now < self.end or not self._all_published:
                continue
            if (
                (received >= self._expected and now > since + GRACE)
                or now > max(since, self.end) + QUIET
                or now > self.end + LATEST
            ):
                return

    def hear_the_last(self) -> None:
        """Wait until each process has said how far it was when it stopped."""
        for number, pipe in enumerate(self._pipes):
            while True:
                heard = _hear(pipe)
                assert isinstance(heard, Progress)
                self._progress[number] = heard
                if heard.published is not None:
                    break

    @property
    def _all_published(self) -> bool:
        progress = self._progress.values()
        return len(progress) == len(self._pipes) and all(each.done for each in progress)

    @property
    def _all_are_gone(self) -> bool:
        progress = self._progress.values()
        return len(progress) == len(self._pipes) and not any(each.connected for each in progress)

    @property
    def _expected(self) -> int:
        return sum(progress.expected for progress in self._progress.values())

    def _hear_from(self, pipe: Pipe) -> None:
        heard = _hear(pipe)
        assert isinstance(heard, Progress)
        self._progress[self._pipes.index(pipe)] = heard


def _tell_all(pipes: Sequence[Pipe], what: object) -> None:
    for pipe in pipes:
        pipe.send(what)


def _hear_seconds(pipe: Pipe) -> float:
    heard = _hear(pipe)
    assert isinstance(heard, float)
    return heard


def _hear_result(pipe: Pipe) -> Result:
    heard = _hear(pipe)
    assert isinstance(heard, Result)
    return heard


def _hear(pipe: Pipe) -> object:
    """Return what a process says. Raises what it could not do."""
    try:
        heard = pipe.recv()
    except EOFError:
        raise StreamcastError("A process of the load ended; what it said stands above.") from None
    if isinstance(heard, StreamcastError):
        raise heard
    return heard
