"""Opening a lane: connect, authenticate, and make sure that it is a node to rely on."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis

from streamcast.errors import StoreError, Unavailable, reason_of
from streamcast.streams.endpoint import Endpoint
from streamcast.streams.lane import Lane

CONNECT_TIMEOUT = 5.0
"""Seconds within which a node has to answer the first commands."""

OLDEST = (7, 0)
"""The oldest Redis that can prove that nothing was missed: it keeps `entries-added`."""


class Refused(Unavailable):
    """The node answered, but won't do: it takes a change of settings, or another node."""


SetUp = Callable[[Lane], Awaitable[None]]


async def open_lane(
    endpoint: Endpoint,
    name: str,
    silence: float,
    on_push: Callable[[list[Any]], None],
    on_lost: Callable[[str], None],
    set_up: SetUp | None = None,
    *,
    in_cluster: bool = False,
    to_master: bool = True,
) -> Lane:
    """Connect to a node. Raises Unavailable, Refused where trying again won't help.

    `name` is how the connection appears in CLIENT LIST. `set_up` is awaited before the lane counts
    as open. `on_lost` is called once, if the lane is lost after this returned. `in_cluster`: who
    connects knows how to speak to one. `to_master`: a replica won't do.
    """
    opened = False

    def lost(reason: str) -> None:
        if opened:
            on_lost(reason)

    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            lane = await _connect(endpoint, lambda: Lane(silence, on_push, lost))
            await _prepare(lane, endpoint, name, set_up, in_cluster=in_cluster, to_master=to_master)
    except TimeoutError:
        raise Unavailable(f"Redis at {endpoint} does not answer.") from None
    except OSError as error:
        raise Unavailable(f"Redis at {endpoint} can't be reached: {reason_of(error)}.") from error
    except hiredis.ReplyError as error:
        raise _explained(endpoint, str(error)) from None
    if not lane.is_open:
        raise Unavailable(f"Redis at {endpoint} closed the connection.")
    opened = True
    lane.where = endpoint
    return lane


async def _connect(endpoint: Endpoint, make: Callable[[], Lane]) -> Lane:
    loop = asyncio.get_running_loop()
    if endpoint.path:
        return (await loop.create_unix_connection(make, endpoint.path))[1]
    made = await loop.create_connection(make, endpoint.host, endpoint.port, ssl=endpoint.tls)
    return made[1]


async def _prepare(
    lane: Lane,
    endpoint: Endpoint,
    name: str,
    set_up: SetUp | None,
    *,
    in_cluster: bool,
    to_master: bool,
) -> None:
    try:
        hello = await _greet(lane, endpoint, name)
        _check_version(endpoint, hello)
        _check_place(endpoint, hello, in_cluster=in_cluster, to_master=to_master)
        # HELLO is answered by a node that still loads what it has, and nothing else is.
        await lane.ask("PING")
        if endpoint.database:
            await lane.ask("SELECT", endpoint.database)
        if set_up is not None:
            await set_up(lane)
    except Refused:
        lane.close()
        raise
    except StoreError as error:
        lane.close()
        raise Unavailable(f"Redis at {endpoint} closed the connection.") from error
    except BaseException:
        lane.close()
        raise


async def _greet(lane: Lane, endpoint: Endpoint, name: str) -> dict[bytes, Any]:
    words = ["HELLO", "3"]
    if endpoint.password:
        words += ["AUTH", endpoint.user, endpoint.password]
    hello = await lane.ask(*words, "SETNAME", name)
    if not isinstance(hello, dict):
        raise Refused(f"What answers at {endpoint} is not Redis.")
    lane.client_id = hello.get(b"id", 0)
    return hello


def _check_place(
    endpoint: Endpoint, hello: dict[bytes, Any], *, in_cluster: bool, to_master: bool
) -> None:
    mode = hello.get(b"mode")
    if mode == b"sentinel":
        raise Refused(f"{endpoint} is a sentinel: write redis+sentinel://{endpoint}/NAME.")
    if mode == b"cluster" and not in_cluster:
        raise Refused(f"{endpoint} is a node of a cluster: write redis+cluster://{endpoint}.")
    if to_master and hello.get(b"role") != b"master":
        raise Refused(f"Redis at {endpoint} is a replica; streamcast needs the master.")


def _check_version(endpoint: Endpoint, hello: dict[bytes, Any]) -> None:
    if hello.get(b"server") == b"valkey":
        return
    version = hello.get(b"version", b"").decode(errors="replace")
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST:
        raise Refused(
            f"Redis at {endpoint} is version {version}; streamcast needs Redis 7.0 or newer, "
            f"or Valkey."
        )


def _explained(endpoint: Endpoint, error: str) -> Unavailable:
    word = error.partition(" ")[0]
    if word in {"WRONGPASS", "NOAUTH", "NOPERM"}:
        return Refused(
            f"Redis at {endpoint} refuses the user or the password in its URL ({error})."
        )
    if "unknown command" in error.lower() or word == "NOPROTO":
        return Refused(
            f"Redis at {endpoint} is too old: streamcast needs Redis 7.0 or newer, or Valkey."
        )
    if word in {"LOADING", "BUSY", "MASTERDOWN"}:
        return Unavailable(f"Redis at {endpoint} is not ready: {error}.")
    return Refused(f"Redis at {endpoint} refused: {error}.")
