"""When Python looks for garbage (module `gc`).

The law of this file: what is still needed is not looked through again and again. Connections, rooms
and their windows are hundreds of thousands of objects that live long; Python's own thresholds look
through all of them many times a minute, which takes a twentieth of the CPU and stands still for up
to a tenth of a second. Nothing here leaves cycles behind in its usual course: reference counts
free it.
"""

import gc

YOUNG = 10_000
"""After how many more containers the youngest are looked through; Python's own: 700."""
OLDER = 10
"""After how many of those looks the older ones are as well."""
ALL = 1_000
"""After how many of those in turn all are: a hundred million containers."""


def collect_rarely() -> None:
    """Set aside what was made to start with, and look for garbage more rarely from now on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, OLDER, ALL)
