"""The Python client, for asyncio: rooms that are followed, and published to, through restarts.

    async with connect("ws://127.0.0.1:8080") as client:
        await client.publish("live", "hello")
        async for message in client.subscribe("live", last=10):
            print(message)

It connects again by itself, joins each room where it was, yields no message twice, and yields a
`Gap` where something may be missing. What it publishes is stored once, in order, or an error says
that it was not, or may not have been.
"""

from streamcast.client.client import Client, Connected, ConnectionEvent, Interrupted, connect
from streamcast.client.subscription import Subscription
from streamcast.errors import (
    BadUrl,
    Disconnected,
    NotReplicated,
    RequestError,
    StreamcastError,
    TooBig,
    Unavailable,
    Unknown,
    Unreachable,
)
from streamcast.message import MessageId
from streamcast.wire.told import Gap, Item, Message, Skipped

__all__ = [
    "BadUrl",
    "Client",
    "Connected",
    "ConnectionEvent",
    "Disconnected",
    "Gap",
    "Interrupted",
    "Item",
    "Message",
    "MessageId",
    "NotReplicated",
    "RequestError",
    "Skipped",
    "StreamcastError",
    "Subscription",
    "TooBig",
    "Unavailable",
    "Unknown",
    "Unreachable",
    "connect",
]
