"""Settings: one frozen dataclass a part. The only place where defaults and their help stand.

Sizes are bytes, times are seconds unless a name says otherwise.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

N = TypeVar("N", int, float)

DEFAULT_HISTORY = 1000
DEFAULT_RETAIN = 3600.0
DEFAULT_PREFIX = "streamcast:"
DEFAULT_MAX_MESSAGE = 64 * 1024


class Follow(StrEnum):
    """How a server learns which rooms changed."""

    AUTO = "auto"
    TRACKING = "tracking"
    BLOCK = "block"


class Profile(StrEnum):
    """What a load looks like."""

    BROADCAST = "broadcast"
    LIVE = "live"
    STORM = "storm"
    IDLE = "idle"


class Speech(StrEnum):
    """The dialect that a load speaks."""

    JSON = "json"
    PLAIN = "plain"


class LogLevel(StrEnum):
    """The least important events that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How events are logged; `auto` is text on a terminal and JSON elsewhere."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


def _setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    at_least: float | None = None,
    at_most: int | None = None,
    shown: str | None = None,
    variable: bool = True,
) -> Any:
    """A field that is an option too.

    `shown`: the default as its help says it; empty: it says none. `variable`: there is an
    environment variable as well.
    """
    more = {"help": help, "unit": unit, "at_least": at_least, "at_most": at_most}
    return field(default=default, metadata={**more, "shown": shown, "variable": variable})


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """The rooms' streams and the store that holds them."""

    redis: str = _setting(
        "",
        "The Redis or Valkey that holds the rooms: redis://, rediss:// or unix://, with user, "
        "password and database; redis+sentinel://HOST:PORT,HOST:PORT/NAME or "
        "redis+cluster://HOST:PORT,HOST:PORT. None: an embedded Valkey, started and ended with the "
        "server.",
        shown="an embedded Valkey",
    )
    data: str = _setting(
        "",
        "The folder in which the embedded Valkey keeps the rooms over restarts.",
        unit="dir",
        shown="nothing is kept",
    )
    prefix: str = _setting(
        DEFAULT_PREFIX,
        "What a stream's key has in front of the room's name. Empty: streams as they are named; "
        "then --history and --retain are off unless given.",
    )
    history: int | None = _setting(
        None,
        "How many messages a room keeps at least; 0 never trims.",
        at_least=0,
        shown=str(DEFAULT_HISTORY),
    )
    retain: float | None = _setting(
        None,
        "How long a room that nobody is in keeps its messages, between half of it and the whole; "
        "0 forever.",
        unit="duration",
        shown="1h",
    )
    follow: Follow = _setting(
        Follow.AUTO,
        "How to learn which rooms changed: the store pushes it (tracking), or connections wait for "
        "it (block); auto takes tracking if a push really comes.",
    )
    audit: float = _setting(
        30.0,
        "Each room is read again once in this time, whether or not a change was told of.",
        unit="duration",
        at_least=0.1,
    )
    replicas_ack: int = _setting(
        0,
        "How many replicas must have a message before it is acknowledged (WAIT). One WAIT is under "
        "way at a time, and nothing else meanwhile: publishing is as slow as the replicas.",
        at_least=0,
    )
    replicas_timeout: float = _setting(
        1.0,
        "How long replicas have for it; later the publisher is told not_replicated, and the "
        "message's ID.",
        unit="duration",
        at_least=0.01,
    )
    young: float = 10.0
    """Messages younger than this are never trimmed."""
    silence: float = 4.0
    """A connection to the store that owes an answer for so long is given up. One that owes
    none is asked eight times as often."""
    pace: float = 0.00025
    """Seconds from one write to the store to the next, at least, about: what comes meanwhile goes
    together. 0: each goes at once."""

    @property
    def kept(self) -> int:
        """How many messages a room keeps at least; 0: it is never trimmed."""
        return self._or_default(self.history, DEFAULT_HISTORY)

    @property
    def waits_for_replicas(self) -> float:
        """For how many seconds the store may answer nothing, since it waits for replicas."""
        return self.replicas_timeout if self.replicas_ack else 0.0

    @property
    def retained(self) -> float:
        """How long an empty room keeps its messages; 0: forever."""
        return self._or_default(self.retain, DEFAULT_RETAIN)

    def _or_default(self, given: N | None, default: N) -> N:
        if given is not None:
            return given
        return default if self.prefix else type(default)(0)


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Messages and the memory for them."""

    max_message: int = _setting(
        DEFAULT_MAX_MESSAGE, "The largest message, in payload bytes.", unit="size", at_least=1
    )
    window: int = 256 * 1024
    """How many bytes of newest messages a room keeps in memory."""
    windows: int = 64 * 1024 * 1024
    """How many bytes all rooms together do."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The listening server and its connections."""

    host: str = _setting("127.0.0.1", "The address to listen on.")
    port: int = _setting(
        8080, "The port to listen on; 0 picks a free one.", at_least=0, at_most=65535
    )
    workers: int = _setting(
        1,
        "How many processes serve clients on the port, each on a core of its own.",
        at_least=1,
    )
    default_room: str = _setting("lobby", "The room that / joins.")
    allow_origin: tuple[str, ...] = _setting(
        (),
        "An origin, such as https://example.com, whose pages may connect, besides the server's "
        "own. Repeat it for more; in the variable, put white space between them.",
        unit="origin",
    )
    max_connections: int = _setting(
        100_000, "How many clients may be connected, to all workers together.", at_least=1
    )
    ping: float = _setting(
        20.0, "How often a silent client is asked for a sign.", unit="duration", at_least=0.1
    )
    stall: float = _setting(
        300.0,
        "How long a client may take nothing of what waits for it.",
        unit="duration",
        at_least=1,
    )
    drain: float = _setting(
        5.0,
        "Over how long a stop spreads the ends of its connections, at most 10 ms between two, so "
        "that the clients don't all come to other servers in one instant.",
        unit="duration",
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Logs, which go to stderr."""

    log_level: LogLevel = _setting(LogLevel.INFO, "The least important events that are logged.")
    log_format: LogFormat = _setting(
        LogFormat.AUTO, "How: text, or one JSON object a line; auto is text on a terminal."
    )


@dataclass(frozen=True, slots=True)
class PlaceSettings:
    """Where the rooms are."""

    url: tuple[str, ...] = _setting(
        ("ws://127.0.0.1:8080",),
        "A server, ws:// or wss://. Repeat it for others that will do as well; in the variable, "
        "put white space between them.",
        unit="url",
    )
    redis: str | None = _setting(
        None,
        "The Redis or Valkey that holds the rooms, to go straight there and to no server: "
        "redis://, rediss:// or unix://, redis+sentinel:// or redis+cluster://, as serve has it.",
        variable=False,
    )
    prefix: str = _setting(
        DEFAULT_PREFIX, "With --redis: what a stream's key has in front of the room's name."
    )
    max_message: int = _setting(
        DEFAULT_MAX_MESSAGE,
        "With --redis: the largest message, in payload bytes.",
        unit="size",
        at_least=1,
    )


@dataclass(frozen=True, slots=True)
class PublishSettings:
    """What is published."""

    lines: bool = _setting(
        False, "Publish standard input line by line, as the lines come.", variable=False
    )
    binary: bool = _setting(
        False, "Publish as binary; without it, what is not UTF-8 is refused.", variable=False
    )
    count: int = _setting(1, "Publish the message so many times.", at_least=1, variable=False)
    interval: float = _setting(
        0.0, "The time between two messages.", unit="duration", shown="", variable=False
    )
    key: str | None = _setting(
        None,
        "Names the message: another with the same key within 2 minutes is not stored again, and "
        "gets the same ID.",
        variable=False,
    )
    json: bool = _setting(
        False, "Print an object a message, with its ID or what failed.", variable=False
    )
    quiet: bool = _setting(False, "Print no IDs.", variable=False)


@dataclass(frozen=True, slots=True)
class TailSettings:
    """Which messages."""

    last: int | None = _setting(
        None,
        "Begin with the newest N that are kept.",
        unit="n",
        shown="only new ones",
        variable=False,
    )
    after: str | None = _setting(
        None, "Begin behind the message with this ID.", unit="id", variable=False
    )
    all: bool = _setting(False, "Begin with all that is kept.", variable=False)
    count: int | None = _setting(
        None, "End after so many messages.", at_least=1, shown="", variable=False
    )
    wait: float | None = _setting(
        None,
        "End when no message came for so long.",
        unit="duration",
        at_least=0.1,
        shown="",
        variable=False,
    )


@dataclass(frozen=True, slots=True)
class ShowSettings:
    """How they are shown."""

    json: bool = _setting(
        False, "An object a line: type, room, id, time, data; gaps too.", variable=False
    )
    raw: bool = _setting(
        False,
        "The payload and nothing else, as without a terminal.",
        variable=False,
    )


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """The load."""

    profile: Profile = _setting(
        Profile.BROADCAST,
        "broadcast: one room, in which --subscribers listen. live: --rooms with --players each, "
        "who all publish and hear each other. storm: the subscribers of a broadcast lose their "
        "connections at one moment, half-way, and come back. idle: --connections and nothing else.",
        variable=False,
    )
    subscribers: int = _setting(
        100, "With broadcast, storm: how many listen.", at_least=1, variable=False
    )
    publishers: int = _setting(
        1, "With broadcast, storm: how many publish, in turn.", at_least=1, variable=False
    )
    rooms: int = _setting(200, "With live: how many rooms.", at_least=1, variable=False)
    players: int = _setting(5, "With live: how many in each.", at_least=1, variable=False)
    connections: int = _setting(10_000, "With idle: how many.", at_least=1, variable=False)
    rate: float | None = _setting(
        None,
        "How many messages a second: with broadcast and storm in all, with live of each player.",
        at_least=0.001,
        shown="100; with live 1",
        variable=False,
    )
    size: int = _setting(100, "The size of a message.", unit="size", at_least=48, variable=False)
    duration: float = _setting(
        10.0, "How long to measure.", unit="duration", at_least=0.1, variable=False
    )
    warmup: float = _setting(
        1.0, "How long to publish before that.", unit="duration", variable=False
    )
    dialect: Speech = _setting(Speech.JSON, "What to speak.", variable=False)
    find_max: str | None = _setting(
        None,
        "Raise the rate of broadcast or live until this bound, such as p99<50ms, does not hold, "
        "and find the highest at which it does.",
        unit="bound",
        variable=False,
    )
    load_processes: int = _setting(
        1, "How many processes share the load.", at_least=1, at_most=64, variable=False
    )

    @property
    def published(self) -> float:
        """How many messages a second, as `rate` counts them."""
        if self.rate is not None:
            return self.rate
        return 1.0 if self.profile == Profile.LIVE else 100.0


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """The server."""

    url: str | None = _setting(
        None,
        "A server that runs already, ws://.",
        unit="address",
        shown="one of the bench's own",
        variable=False,
    )
    redis: str | None = _setting(
        None,
        "The Redis or Valkey for the bench's own server.",
        shown="an embedded Valkey",
        variable=False,
    )


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """The report."""

    json: str | None = _setting(
        None, "A file for everything, as JSON; - is standard output.", unit="file", variable=False
    )
    html: str | None = _setting(None, "A file for a page to look at.", unit="file", variable=False)
    fail_if: tuple[str, ...] = _setting(
        (),
        "A bound, such as p99>50ms, lost>0 or deliveries_per_s<10000: where it is so, the exit "
        "code is 99. Repeat it for more.",
        unit="limit",
        variable=False,
    )
    allow_loss: bool = _setting(
        False,
        "Do not fail where the run was not whole: messages lost, refused, doubled.",
        variable=False,
    )
