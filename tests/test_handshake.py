"""Requests that are read in one go: none is accepted that the library would refuse."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request

from streamcast.server import handshake
from streamcast.wire import DIALECTS, PLAIN
from tests.clients import JSON
from tests.raw import request

BROWSER = (
    "Pragma: no-cache",
    "Cache-Control: no-cache",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36",
    "Origin: http://x",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-US,en;q=0.9",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
)


def by_library(head: bytes) -> tuple[int, dict[str, str]]:
    """The status of the library's answer, and its headers."""
    protocol = handshake.server_protocol()
    protocol.receive_data(head)
    events = protocol.events_received()
    if protocol.parser_exc is not None or not events or not isinstance(events[0], Request):
        return 400, {}
    response = handshake.accept(protocol, events[0], (), 1000)
    return response.status_code, {name.lower(): value for name, value in response.headers.items()}


def in_one_go(head: bytes) -> dict[str, str] | None:
    """The headers of our answer; None: it is left to the library."""
    asked = handshake.read(head)
    if asked is None or not asked.may_connect(()):
        return None
    first, *lines = asked.answer(1000).decode().split("\r\n")[:-2]
    assert first == "HTTP/1.1 101 Switching Protocols"
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


def check(head: bytes) -> bool:
    """Whether it is read in one go; then the answer is the library's, but for the date."""
    ours = in_one_go(head)
    if ours is None:
        return False
    status, theirs = by_library(head)
    assert status == 101, head
    theirs.pop("date", None)
    assert ours == theirs
    return True


@pytest.mark.parametrize(
    "head",
    [
        request(),
        request("/rooms/live?last=3", *BROWSER),
        request("/rooms", f"Sec-WebSocket-Protocol: {JSON}", *BROWSER),
        request("/rooms", f"Sec-WebSocket-Protocol: chat, {JSON}"),
        request(Connection="keep-alive, Upgrade", Upgrade="WebSocket"),
        request("/", "X-Empty:", "x-tab:\ta\t"),
    ],
    ids=range(6),
)
def test_what_clients_send(head: bytes) -> None:
    assert check(head)


def test_what_it_says() -> None:
    asked = handshake.read(request("/rooms?x", f"Sec-WebSocket-Protocol: {JSON}", "Origin: o"))
    assert asked is not None
    assert asked.path == "/rooms?x"
    assert asked.dialect is DIALECTS[JSON]
    assert (asked.origin, asked.host) == ("o", "x")
    plain = handshake.read(request())
    assert plain is not None
    assert plain.dialect is PLAIN
    # RFC 6455 section 1.3.
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in plain.answer(1)


@pytest.mark.parametrize(
    "head",
    [
        request(line="POST {} HTTP/1.1"),
        request(line="GET {} HTTP/1.0"),
        request(line="GET  {} HTTP/1.1"),
        request("/a b"),
        request("rooms"),
        request(Upgrade="h2c"),
        request(Connection="close"),
        request(Connection="upgraded"),
        request(Connection="a b, Upgrade"),
        request(Connection="@, Upgrade"),
        request("/", f"Sec-WebSocket-Protocol: b d, {JSON}"),
        request(Sec_WebSocket_Version="12"),
        request(Sec_WebSocket_Version=None),
        request(Sec_WebSocket_Key=None),
        request(Sec_WebSocket_Key="AAAA"),
        request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZR=="),
        request("/", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        request("/", "Host: y"),
        request("/", "Content-Length: 3"),
        request("/", "Transfer-Encoding: chunked"),
        request("/", "Sec-WebSocket-Protocol: chat"),
        request("/", "Sec-WebSocket-Protocol:"),
        request("/", "Origin: http://elsewhere"),
        request("/", "Bad name: x"),
        request("/", " folded"),
        request("/", "X: \x01"),
        request("/", "X: é"),
        request("/", "X: " + "y" * 9000),
        request("/", *(f"X-{number}: y" for number in range(70))),
    ],
    ids=range(29),
)
def test_what_is_left_to_the_library(head: bytes) -> None:
    assert in_one_go(head) is None


usual = re.split(rb"(?<=\r\n)", request("/rooms/live", f"Sec-WebSocket-Protocol: {JSON}", *BROWSER))


lists = st.lists(
    st.sampled_from(["Upgrade", "keep-alive", "a b", "", "@", JSON, "chat", "é"]), max_size=3
)


@given(lists, lists, st.sampled_from([",", ", ", "\t,", " , ", ";"]))
def test_lists_are_read_as_the_library_does(
    connection: list[str], offered: list[str], between: str
) -> None:
    protocols = [f"Sec-WebSocket-Protocol: {between.join(offered)}"] if offered else []
    check(request("/rooms", *protocols, Connection=between.join(connection)))


@given(
    st.lists(st.integers(0, len(usual) - 1), max_size=4),
    st.lists(st.tuples(st.integers(0, 700), st.binary(max_size=3)), max_size=3),
)
def test_nothing_is_accepted_that_the_library_refuses(
    moved: list[int], written: list[tuple[int, bytes]]
) -> None:
    """Lines of a usual request are left out, and bytes of it written over."""
    head = b"".join(line for number, line in enumerate(usual) if number not in moved)
    for place, data in written:
        at = place % len(head)
        head = head[:at] + data + head[at + len(data) :]
    end = head.find(b"\r\n\r\n")
    if end >= 0:
        check(head[: end + 4])
