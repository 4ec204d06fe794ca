"""The server: sockets, HTTP heads, WebSocket connections, keepalive, start and stop."""

from streamcast.server.app import serve

__all__ = ["serve"]
