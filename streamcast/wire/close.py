"""Close codes. Each carries the rule whether a client should come back (RFC 6455 section 7.4).

Reconnect on 1001, 1006, 1011, 1012, 1013 and 4000 to 4399; not on others.
"""

from enum import IntEnum
from typing import NamedTuple


class Code(IntEnum):
    """The codes that a server closes with."""

    GOING_AWAY = 1001
    BAD_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TRY_LATER = 1013
    GAP = 4300
    BAD_ROOM = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403


def may_come_back(code: int) -> bool:
    """Whether a client that was closed with this code should connect again."""
    # 1005 stands for a close without a code: nobody said to stay away.
    return code in {1001, 1005, 1006, 1011, 1012, 1013} or 4000 <= code <= 4399


class Close(NamedTuple):
    """How a connection is to be closed; `reason` has at most 123 bytes."""

    code: Code
    reason: str
