"""Where a store is: its URL, read by redis-py."""

import ssl
from dataclasses import dataclass, field

from redis.asyncio import connection as redis_py

from streamcast.errors import StartError


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
        )

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"
