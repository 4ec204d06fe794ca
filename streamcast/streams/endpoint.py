"""Where a store is: its URL, read by redis-py."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import redis.asyncio
from redis.asyncio import connection as redis_py
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from streamcast.errors import StartError

REDIS_PORT = 6379
SENTINEL_PORT = 26379


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One Redis or Valkey node; `path` is set for a unix socket, else `host` and `port`."""

    host: str
    port: int
    path: str
    database: int
    user: str
    password: str = field(repr=False)
    tls: ssl.SSLContext | None
    url: str = field(repr=False, compare=False)

    @classmethod
    def parse(cls, url: str) -> "Endpoint":
        """Read a URL `redis://`, `rediss://` or `unix://`. Raises StartError."""
        try:
            pool = redis_py.ConnectionPool.from_url(url)
            made = pool.make_connection()  # type: ignore[no-untyped-call]
            tls = made.ssl_context.get() if isinstance(made, redis_py.SSLConnection) else None
        except (ValueError, TypeError, OSError) as error:
            raise StartError(f"--redis is not a URL that can be used: {error}") from error
        return cls(
            host=getattr(made, "host", ""),
            port=getattr(made, "port", 0),
            path=getattr(made, "path", ""),
            database=made.db or 0,
            user=made.username or "default",
            password=made.password or "",
            tls=tls,
            url=url,
        )

    def client(self, patience: float) -> Any:
        """Return a client for what is asked now and then; an answer takes `patience` seconds."""
        never = Retry(NoBackoff(), 0)
        return redis.asyncio.Redis.from_url(
            self.url, socket_timeout=patience, socket_connect_timeout=patience, retry=never
        )

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


class Engine(Enum):
    """How many nodes there are, and who says which of them are masters."""

    SINGLE = "redis"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """What `--redis` says.

    `endpoints`: the node; or the sentinels; or some of the cluster's nodes. `service`: the name
    that the sentinels know the master by. `master` is the sentinels' master but for its address.
    """

    engine: Engine
    endpoints: Sequence[Endpoint]
    service: str = ""
    master: Endpoint | None = None

    @classmethod
    def parse(cls, url: str) -> "StoreUrl":
        """Read a URL.

        One node: see `Endpoint`. `redis+sentinel://host:port,host:port/SERVICE/db` and
        `redis+cluster://host:port,host:port`, both with `rediss` for TLS; user and password are
        Redis' own, `sentinel_username` and `sentinel_password` in the query those of the sentinels.
        Raises StartError.
        """
        scheme = url.partition("://")[0]
        if scheme.removeprefix("redis").removeprefix("s") not in {"+sentinel", "+cluster"}:
            return cls(Engine.SINGLE, [Endpoint.parse(url)])
        try:
            return cls._of_several(url, scheme)
        except ValueError as error:
            raise StartError(f"--redis is not a URL that can be used: {error}.") from error

    @classmethod
    def _of_several(cls, url: str, scheme: str) -> "StoreUrl":
        parts = urlsplit(url)
        plain, _, kind = scheme.partition("+")
        credentials, at, hosts = parts.netloc.rpartition("@")
        query = dict(parse_qsl(parts.query))
        sentinel = {name: query.pop(f"sentinel_{name}", "") for name in ("username", "password")}
        options = f"?{urlencode(query)}" if query else ""

        def endpoint(host: str, who: str, database: str = "") -> Endpoint:
            return Endpoint.parse(f"{plain}://{who}{host}/{database}{options}")

        if kind == "cluster":
            if parts.path.strip("/") not in {"", "0"}:
                raise ValueError("a cluster has no other database than 0")
            who = credentials + at
            return cls(Engine.CLUSTER, [endpoint(host, who) for host in _hosts(hosts, REDIS_PORT)])
        service, _, database = parts.path.strip("/").partition("/")
        if not service:
            raise ValueError(
                "the sentinels' name for the master is missing: redis+sentinel://HOST:PORT/NAME"
            )
        if not database.isdecimal() and database:
            raise ValueError(f"{database!r} is not the number of a database")
        who = ":".join(quote(word, safe="") for word in sentinel.values()) + "@"
        return cls(
            Engine.SENTINEL,
            [
                endpoint(host, who if any(sentinel.values()) else "")
                for host in _hosts(hosts, SENTINEL_PORT)
            ],
            unquote(service),
            endpoint("master", credentials + at, database),
        )


def _hosts(hosts: str, port: int) -> list[str]:
    """Return `host:port,host:port` as a list, each with its port. Raises ValueError."""
    found = [host.strip() for host in hosts.split(",") if host.strip()]
    if not found:
        raise ValueError("it names no host")
    return [host if _has_port(host) else f"{host}:{port}" for host in found]


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]
