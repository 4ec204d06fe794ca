"""What stops a server."""

import asyncio
import os
import signal
from collections.abc import Callable


def stop_on_signals(stop: Callable[[], object]) -> None:
    """Stop at the first SIGTERM or SIGINT; a second ends the process at once."""
    loop = asyncio.get_running_loop()
    asked = False

    def ask(number: int) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)
        asked = True
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
