"""The exception tree. A class says whose fault it was and what may be done about it.

StreamcastError
├── StartError             the program can't start; one sentence for its user, exit code 3
├── StoreError             the store could not answer; nothing is known to be wrong with the request
│   ├── Unavailable        it was not stored: a retry is safe
│   └── Unknown            it may have been stored: retry with a `key`
├── NotReplicated          it was stored, but too few replicas had it in time
├── RequestError           a client asked for something that can't be done
│   ├── BadRequest
│   ├── BadRoom
│   ├── BadId
│   ├── TooBig
│   └── TooManyRooms
├── BadUrl                 not the URL of a server
└── Disconnected           the client has no server, and tries for none any more
    └── Unreachable        no server answered, or none would do just now

Every StoreError, NotReplicated and RequestError has a `code`, the word that a client is told.
"""

import os
import re
from typing import Self


class StreamcastError(Exception):
    """The root of everything that streamcast raises on purpose."""


class StartError(StreamcastError):
    """The program can't start; the message is a sentence that tells its user what to do."""


class CodedError(StreamcastError):
    """An error that a client is told: a code of the protocol and a sentence."""

    code: str


class StoreError(CodedError):
    """The store could not answer."""

    code = "unavailable"


class Unavailable(StoreError):
    """It provably was not stored; a retry is safe."""


class Unknown(StoreError):
    """It may have been stored: the connection ended before the store's answer came."""

    code = "unknown"


class NotReplicated(CodedError):
    """It was stored, as `id`, and members get it; but too few replicas had it in time.

    A failover now may lose it. A retry with the same `key` waits for the replicas once more.
    """

    code = "not_replicated"

    def __init__(self, message: str, id: str = "") -> None:
        super().__init__(message)
        self.id = id


class RequestError(CodedError):
    """A client asked for something that can't be done; asking again won't help."""

    code = "bad_request"

    def alone(self) -> Self:
        """Return it without a traceback, for one who keeps it.

        A traceback holds the frames that it went through: one of them is to hold the error, and
        others the connection. Only the collector, which looks rarely, would free them.
        """
        self.__traceback__ = self.__context__ = None
        return self


class BadRequest(RequestError):
    """Not a request of the protocol."""


class BadRoom(RequestError):
    """Not a room name, or the key under that name is not a stream."""

    code = "bad_room"


class BadId(RequestError):
    """Not a message ID."""

    code = "bad_id"


class TooBig(RequestError):
    """More payload bytes than `--max-message`."""

    code = "too_big"


class TooManyRooms(RequestError):
    """More rooms on one connection than the protocol allows."""

    code = "too_many_rooms"


class BadUrl(StreamcastError):
    """Not the URL of a streamcast server."""


class Disconnected(StreamcastError):
    """A client has no connection to a server, and tries for none any more.

    `code`: the close code or the HTTP status that it was told, if any.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Unreachable(Disconnected):
    """No server answered, or none would do just now: trying again may help."""


def reason_of(error: OSError) -> str:
    """Say in a few words what the system said; asyncio says the address instead, or several."""
    said = error.strerror or str(error)
    if "Connect call failed" not in said:
        return said
    number = error.errno or int(re.findall(r"\[Errno (\d+)\]", said)[0])
    return os.strerror(number)


def from_code(code: str, message: str, id: str = "") -> CodedError:
    """Return the error that a server told; a code that we don't know is a RequestError's."""
    if code == NotReplicated.code:
        return NotReplicated(message, id)
    kinds: tuple[type[CodedError], ...] = (Unavailable, Unknown, *RequestError.__subclasses__())
    for kind in kinds:
        if kind.code == code:
            return kind(message)
    error = RequestError(message)
    error.code = code
    return error
