"""One way to log: a short name of what happened, and fields. Never payloads, never secrets."""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_logger = logging.getLogger("streamcast")


def debug(event: str, **fields: Any) -> None:
    """Log what only one who looks for a fault wants to know."""
    _log(logging.DEBUG, event, fields)


def info(event: str, **fields: Any) -> None:
    """Log what happens in good order."""
    _log(logging.INFO, event, fields)


def warning(event: str, **fields: Any) -> None:
    """Log what somebody should look at."""
    _log(logging.WARNING, event, fields)


def error(event: str, **fields: Any) -> None:
    """Log what went wrong."""
    _log(logging.ERROR, event, fields)


def fault_of(task: "asyncio.Task[Any]", where: str) -> None:
    """Log the exception that ended a task, which nobody thought of."""
    if not task.cancelled() and (fault := task.exception()) is not None:
        error("fault", where=where, fault=repr(fault), exc_info=fault)


def _log(level: int, event: str, fields: dict[str, Any]) -> None:
    if _logger.isEnabledFor(level):
        exc_info = fields.pop("exc_info", None)
        _logger.log(level, event, extra={"fields": fields}, exc_info=exc_info)
