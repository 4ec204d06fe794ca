"""Serving with several processes on one port: the parent of the workers.

The law of this file: the parent takes the port, owns the embedded store, and serves nobody. It
replaces a worker that ends, hands signals on, and ends in order only if all its workers do.
"""

import asyncio
import os
import pickle
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from streamcast import log
from streamcast.backoff import Backoff
from streamcast.config import LogSettings, RelaySettings, ServerSettings, StreamSettings
from streamcast.errors import StartError, StreamcastError
from streamcast.server.draining import ANSWER_TIMEOUT, CLOSE_TIMEOUT
from streamcast.server.listening import close_all, listen, url_of
from streamcast.server.others import Rows, shared_memory
from streamcast.server.signals import stop_on_signals
from streamcast.server.starting import started
from streamcast.server.worker import FAILED, READY, Task

END_TIMEOUT = ANSWER_TIMEOUT + CLOSE_TIMEOUT + 2.0
"""Seconds after the drain when a worker that has not ended is killed."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds before a worker is replaced: the first time, and at most."""


async def serve_by_workers(
    streams: StreamSettings,
    messages: RelaySettings,
    server: ServerSettings,
    logs: LogSettings,
    module: str,
    listening: Callable[[str, str | None], None],
) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartError; or StreamcastError for a disorderly end.

    `module`: the program of a worker. `listening` is called with the URL, and the path of the
    embedded store's socket if it runs.
    """
    async with started(streams, server) as (streams, path):
        sockets = await listen(server.host, server.port)
        url, descriptors = url_of(sockets), tuple(sock.fileno() for sock in sockets)
        memory = _memory(server.workers)
        task = Task(0, descriptors, memory, streams, messages, server, logs)
        rows = Rows(server.workers, memory)
        workers = [Worker(module, replace(task, row=row), rows) for row in range(server.workers)]

        def ready() -> None:
            listening(url, path)
            log.info("listening", url=url, workers=len(workers))

        try:
            await _lead(workers, ready)
        finally:
            close_all(sockets)
            ends = await asyncio.gather(*(worker.end() for worker in workers))
        if not all(ends):
            raise StreamcastError("Not all workers ended in order; the log says which.")
        log.info("stopped")


def _memory(workers: int) -> int:
    try:
        return shared_memory(workers)
    except OSError as error:
        raise StartError(f"Workers can't share memory: {error.strerror or error}.") from error


async def _lead(workers: Sequence["Worker"], ready: Callable[[], None]) -> None:
    """Keep the workers running until a signal says to stop. Raises StartError."""
    leading = asyncio.create_task(_start_and_keep(workers, ready))
    stop_on_signals(leading.cancel)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _hand_on, workers)
    await asyncio.wait([leading])
    if not leading.cancelled():
        leading.result()
    log.info("stopping", workers=len(workers))


async def _start_and_keep(workers: Sequence["Worker"], ready: Callable[[], None]) -> None:
    try:
        async with asyncio.TaskGroup() as starts:
            for worker in workers:
                starts.create_task(worker.start())
    except ExceptionGroup as failed:
        # What keeps one from starting keeps all.
        raise failed.exceptions[0] from None
    ready()
    await asyncio.gather(*(worker.keep() for worker in workers))


def _hand_on(workers: Sequence["Worker"]) -> None:
    for worker in workers:
        worker.tell_statistics()


class Worker:
    """A worker, as its parent sees it: whichever process does its task just now."""

    def __init__(self, module: str, task: Task, rows: Rows) -> None:
        self._module = module
        self._task = task
        self._rows = rows
        self._backoff = Backoff(first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        self._process: Process | None = None
        self._serves = False

    async def start(self) -> None:
        """Start a process, and wait until it serves. Raises StartError."""
        try:
            self._process = process = await self._spawn()
        except OSError as error:
            raise StartError(f"A worker can't start: {error.strerror or error}.") from error
        assert process.stdin is not None
        assert process.stdout is not None
        # It stays open: its end says that this process has ended.
        task = pickle.dumps(self._task)
        with suppress(RuntimeError):
            # uvloop's, for one that has ended by now: which it says next.
            process.stdin.write(task)
        said = (await process.stdout.readline()).decode(errors="replace").strip()
        self._serves = said == READY
        if not self._serves:
            how = _how(await process.wait())
            self._rows.clear(self._task.row)
            raise StartError(said.removeprefix(FAILED) or f"A worker {how} while it started.")

    async def _spawn(self) -> Process:
        task = self._task
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", self._module),
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=(*task.sockets, task.memory),
            # It is this same program, wherever that was found.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            # Ctrl-C at a terminal is for the parent.
            start_new_session=True,
        )

    async def keep(self) -> NoReturn:
        """Have another process take over whenever one ends."""
        while True:
            assert self._process is not None
            how = _how(await self._process.wait())
            self._serves = False
            self._rows.clear(self._task.row)
            log.warning("worker ended", worker=self._task.number, reason=how)
            while not self._serves:
                await asyncio.sleep(self._backoff.pause())
                await self._restart()

    async def _restart(self) -> None:
        try:
            await self.start()
            log.info("worker back", worker=self._task.number)
        except StartError as error:
            log.error("worker can't start", worker=self._task.number, reason=str(error))

    def tell_statistics(self) -> None:
        """Have it log them; one that only starts has none, and would end of the signal."""
        if self._serves and self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGUSR1)

    async def end(self) -> bool:
        """Have it drain, and wait for its end. Returns whether that was in order."""
        process = self._process
        if process is None or process.returncode is not None:
            return True
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM if self._serves else signal.SIGKILL)
        try:
            async with asyncio.timeout(self._task.server.drain + END_TIMEOUT):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            code = await process.wait()
        in_order = code == 0 or not self._serves
        if not in_order:
            log.error("worker ended", worker=self._task.number, reason=_how(code))
        return in_order


def _how(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
