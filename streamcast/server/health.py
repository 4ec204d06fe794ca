"""`/livez` and `/readyz`, for load balancers and supervisors.

The law of this file: the process lives as long as it answers; it is ready while deliveries work.
"""

from http import HTTPStatus

from streamcast.server.context import Context
from streamcast.streams import State

LIVE, READY = "/livez", "/readyz"
STOPPING = "stopping"


def answer(path: str, context: Context) -> tuple[HTTPStatus, str] | None:
    """Return what is said at a path: a status and a word; None if there is nothing there."""
    if path == LIVE:
        return HTTPStatus.OK, "live"
    if path != READY:
        return None
    if context.stopping:
        return HTTPStatus.SERVICE_UNAVAILABLE, STOPPING
    state = context.relay.streams.health.state
    if state in {State.READY, State.READ_ONLY}:
        return HTTPStatus.OK, state
    return HTTPStatus.SERVICE_UNAVAILABLE, state
