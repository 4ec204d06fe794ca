"""Logs on stderr: one line an event, as text or as a JSON object."""

import json
import logging
import sys
import time
from typing import Any

from streamcast.config import LogFormat, LogLevel, LogSettings


def set_up(settings: LogSettings, **always: Any) -> None:
    """Log to stderr from now on. `always`: fields of every line."""
    as_text = settings.log_format == LogFormat.TEXT or (
        settings.log_format == LogFormat.AUTO and sys.stderr.isatty()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Text(always) if as_text else _Json(always))
    logger = logging.getLogger("streamcast")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(settings.log_level.upper())
    # What libraries and asyncio itself have to say is told the same way.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def warnings_only() -> None:
    """Log for one who ran a command at a terminal: what is to be looked at."""
    set_up(LogSettings(log_level=LogLevel.WARNING, log_format=LogFormat.TEXT))


class _Formatter(logging.Formatter):
    def __init__(self, always: dict[str, Any]) -> None:
        super().__init__()
        self._always = always

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        return self._always | getattr(record, "fields", {})


class _Json(_Formatter):
    """`{"time":…,"level":…,"event":…}` and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **self._fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Text(_Formatter):
    """Time, level, event and `name=value` for its fields."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        named = [f"{name}={_shown(value)}" for name, value in self._fields(record).items()]
        words = [stamp, f"{record.levelname.lower():<7}", record.getMessage(), *named]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _shown(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or not text.isprintable() or " " in text else text
