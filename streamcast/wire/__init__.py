"""The wire: what clients and servers say to each other. Pure: a batch in, bytes out, once."""

from streamcast.wire.close import Close
from streamcast.wire.dialect import MAX_MESSAGE_HEADER, Batch, Dialect, Reply
from streamcast.wire.json_v1 import JsonV1
from streamcast.wire.plain import Plain
from streamcast.wire.requests import Invalid, Join, Leave, Ping, Publish, Request, Start

__all__ = [
    "DIALECTS",
    "MAX_MESSAGE_HEADER",
    "PLAIN",
    "Batch",
    "Close",
    "Dialect",
    "Invalid",
    "Join",
    "JsonV1",
    "Leave",
    "Ping",
    "Plain",
    "Publish",
    "Reply",
    "Request",
    "Start",
]

PLAIN: Dialect = Plain()
"""Spoken with a client that offers no subprotocol."""

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (JsonV1(),)}
"""The dialects by the subprotocol that a client offers."""
