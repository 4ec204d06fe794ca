"""The server: sockets, HTTP heads, WebSocket connections, keepalive, start and stop, workers."""

from streamcast.server.app import serve
from streamcast.server.workers import serve_by_workers

__all__ = ["serve", "serve_by_workers"]
