"""What people write in options and arguments: sizes, durations, URLs, rooms, IDs."""

import re
from collections.abc import Callable
from typing import Any

import typer

from streamcast.errors import BadId, BadRequest, BadRoom, BadUrl
from streamcast.message import room_name

_SIZES = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3}
_SIZES |= {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# As a browser sends it: lower case, and nothing behind the port (RFC 6454 section 6.2).
_HOST = r"(?:[a-z0-9._~-]+|\[[0-9a-f:.]+\])"
_ORIGIN = re.compile(rf"null|[a-z][a-z0-9+.-]*://{_HOST}(?::[1-9][0-9]{{0,4}})?")
# Which a browser leaves out.
_DEFAULT_PORT = re.compile(r"http:.*:80|https:.*:443")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", re.ASCII)


def option(parse: Callable[[str], Any], at_least: float | None = None) -> Callable[[str], Any]:
    """Return what reads an option's value, and tells one that can't be read as a wrong usage."""

    def parsed(text: str) -> Any:
        try:
            value = parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        if at_least is not None and value < at_least:
            raise typer.BadParameter(f"{text!r} is too small.")
        return value

    return parsed


def size(text: str) -> int:
    """Read a size in bytes, such as `64KiB`, `1MB` or `100`. Raises ValueError."""
    amount, unit = _split(text)
    for name, factor in _SIZES.items():
        if unit.lower() == name.lower():
            return int(amount * factor)
    raise ValueError(f"{text!r} is not a size; write one like 64KiB, 1MB or 100B.")


def duration(text: str) -> float:
    """Read a duration in seconds, such as `500ms`, `20s`, `5m`, `1h`. Raises ValueError."""
    amount, unit = _split(text)
    if unit not in _DURATIONS:
        raise ValueError(f"{text!r} is not a duration; write one like 500ms, 20s, 5m or 1h.")
    return amount * _DURATIONS[unit]


def origin(text: str) -> str:
    """Return `text` if a browser could send it as an Origin. Raises ValueError."""
    if _ORIGIN.fullmatch(text) is None or _DEFAULT_PORT.fullmatch(text):
        raise ValueError(
            f"{text!r} is not an origin as browsers send it; write one like https://example.com."
        )
    return text


def url(text: str) -> str:
    """Return `text` if it is the URL of a server. Raises ValueError."""
    from streamcast.client.dial import dial_to

    try:
        dial_to(text)
    except BadUrl as error:
        raise ValueError(str(error)) from error
    return text


def room(text: str) -> str:
    """Return `text` if it is a room's name. Raises ValueError."""
    try:
        return room_name(text)
    except BadRoom as error:
        raise ValueError(str(error)) from error


def after(text: str) -> str:
    """Return `text` if it is a message ID, or 0 for all that is kept. Raises ValueError."""
    from streamcast.wire import Start

    try:
        Start.parse_after(text)
    except BadId as error:
        raise ValueError(str(error)) from error
    return text


def last(text: str) -> int:
    """Read how many of the newest messages are asked for. Raises ValueError."""
    from streamcast.wire.json_v1 import count_of_last

    if not re.fullmatch(r"[0-9]+", text):
        raise ValueError(f"{text!r} is not a number of messages.")
    try:
        return count_of_last(int(text))
    except BadRequest as error:
        raise ValueError(str(error)) from error


def address(text: str) -> str:
    """Return `text` if it is a URL that a load can go to. Raises ValueError."""
    from streamcast.bench.target import address_of

    try:
        address_of(text)
    except BadUrl as error:
        raise ValueError(str(error)) from error
    return text


def limit(text: str) -> str:
    """Return `text` if it is a bound of a report. Raises ValueError."""
    from streamcast.bench.limits import Limit

    Limit.parse(text)
    return text


def show_size(amount: int) -> str:
    """Write a size as `size` reads it."""
    for name, factor in reversed(_SIZES.items()):
        if factor > 1 and amount and amount % factor == 0:
            return f"{amount // factor}{name}"
    return f"{amount}B"


def show_duration(amount: float) -> str:
    """Write a duration as `duration` reads it."""
    for name, factor in (("h", 3600), ("m", 60), ("s", 1)):
        if amount and amount % factor == 0:
            return f"{amount // factor:.0f}{name}"
    return f"{amount * 1000:g}ms"


def _split(text: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a number with a unit.")
    return float(match[1]), match[2]
