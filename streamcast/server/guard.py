"""The boundary between one connection and all others.

The law of this file: a fault, an exception that nobody thought of, ends the connection in whose
handling it came up, and no other; and it is logged once.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from streamcast import log


class Fails(Protocol):
    """One whose methods are guarded."""

    def fail(self) -> None:
        """End, for a fault; called once a fault, and not to raise itself."""


P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Fails)


def guarded(method: Callable[Concatenate[F, P], R]) -> Callable[Concatenate[F, P], R | None]:
    """Have a fault in a method end its own object; the method then returns None."""

    @wraps(method)
    def call(self: F, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(self, *args, **kwargs)
        except Exception as fault:  # noqa: BLE001 - the boundary between one connection and all
            end_for(fault, self)
            return None

    return call


def end_for(fault: Exception, connection: Fails) -> None:
    """End a connection for a fault."""
    where = type(connection).__name__.lower()
    log.error("fault", where=where, fault=repr(fault), exc_info=fault)
    connection.fail()
