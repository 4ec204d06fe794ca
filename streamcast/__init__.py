"""Broadcasts messages to WebSocket clients through Redis Streams."""

__version__ = "0.1.0.dev0"
