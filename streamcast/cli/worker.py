"""A worker of `streamcast serve --workers`; its parent starts it, nobody else."""

import pickle
import signal
import sys

import uvloop

from streamcast.cli.logs import set_up
from streamcast.errors import StartError
from streamcast.server.worker import FAILED, Task, say, work


def main() -> None:
    """Do the task that comes on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        task = pickle.load(sys.stdin.buffer)  # noqa: S301 - the parent wrote it
    except EOFError:
        # It has ended already.
        return
    assert isinstance(task, Task)
    set_up(task.logs, worker=task.number)
    try:
        uvloop.run(work(task))
    except StartError as error:
        say(f"{FAILED}{error}")


if __name__ == "__main__":
    main()
