"""The same load against streamcast and others, turn by turn, on one Redis.

What is printed is the median of the rounds, as a table of Markdown.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.arena import NODE_ARTICLE, PEERS, SIZE, Arena, Outcome, Peer, streamcast
from streamcast.bench.dialects import DIALECTS, Said
from streamcast.bench.frames import TEXT, client_frame
from streamcast.bench.plan import broadcast
from streamcast.bench.reception import Shapes

WARMUP = 1.0


class SocketIo:
    """Engine.IO 4 and Socket.IO 5 over a WebSocket, as far as a load needs them."""

    subprotocol: str | None = None
    joins: bool = True
    all_join: bool = True
    shapes: Shapes | None = None

    def path(self, room: str, *, listens: bool) -> str:
        return "/socket.io/?EIO=4&transport=websocket"

    def join(self, room: str) -> bytes:
        return b""

    def rejoin(self, room: str, after: str) -> bytes:
        raise ValueError("Socket.IO has no IDs here")

    def id_of(self, data: bytes) -> str | None:
        return None

    def answer(self, room: str, opcode: int, data: bytes, *, listens: bool) -> bytes:
        if data == b"2":
            return client_frame(TEXT, b"3")
        if data.startswith(b"0{"):
            return client_frame(TEXT, b"40")
        if data.startswith(b"40{"):
            return _event("join", room) if listens else _event("hello")
        return b""

    def publish(self, room: str, payload: bytes, key: str | None = None) -> bytes:
        return _event("publish", room, payload.decode())

    def payload(self, opcode: int, data: bytes) -> bytes | None:
        start = b'42["message","'
        return data[len(start) : -2] if data.startswith(start) else None

    def said(self, opcode: int, data: bytes) -> Said:
        return Said.JOINED if data.startswith(b'42["joined"') else Said.NOTHING


def _event(*words: str) -> bytes:
    return client_frame(TEXT, b"42" + json.dumps(words, separators=(",", ":")).encode())


# Known in the processes of the load as well: they import this file.
DIALECTS["socketio"] = SocketIo()


COMPARED = [
    streamcast("streamcast, JSON", "json"),
    streamcast("streamcast, plain", "plain"),
    Peer("the article's server", "plain", [*NODE_ARTICLE, "one"]),
    Peer("the same, a connection a room", "plain", [*NODE_ARTICLE, "rooms"]),
    Peer(
        "Socket.IO, redis-streams-adapter",
        "socketio",
        ["node", str(PEERS / "socketio.mjs"), "{port}", "{redis}"],
    ),
]


@dataclass(frozen=True)
class Shape:
    """A broadcast: so many listen, `rate` messages a second in all."""

    subscribers: int
    rate: int

    def __str__(self) -> str:
        return f"{self.subscribers} × {self.rate}/s"


def run(arena: Arena, peer: Peer, shape: Shape, duration: float) -> Outcome:
    members = broadcast(
        f"compare-{os.urandom(4).hex()}",
        subscribers=shape.subscribers,
        publishers=1,
        rate=shape.rate,
        duration=WARMUP + duration,
    )
    return arena.run(peer, members, warmup=WARMUP, duration=duration)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds measured")
    parser.add_argument("--shapes", default="200x500,1000x100", help="subscribers x messages/s")
    given = parser.parse_args()
    shapes = [Shape(*map(int, each.split("x"))) for each in given.shapes.split(",")]
    found: dict[tuple[Shape, str], list[Outcome]] = {}
    arena = Arena()
    try:
        for round_ in range(given.rounds):
            for shape in shapes:
                for peer in COMPARED:
                    outcome = run(arena, peer, shape, given.duration)
                    found.setdefault((shape, peer.name), []).append(outcome)
                    report = outcome.report
                    p50, lost = report.latency.percentiles["p50"], report.faults.lost
                    print(
                        f"round {round_ + 1}, {shape}, {peer.name}: {outcome.cpu:.2f} µs, "
                        f"p50 {p50:.2f} ms, {lost} lost",
                        file=sys.stderr,
                    )
        for shape in shapes:
            _print(shape, {peer.name: found[shape, peer.name] for peer in COMPARED})
        rounds = f"Median of {given.rounds} rounds of {given.duration:g} s, turn by turn"
        print(f"\n{rounds}; {arena.footer()}")
    finally:
        arena.close()


def _print(shape: Shape, found: dict[str, Sequence[Outcome]]) -> None:
    print(f"\n{shape.subscribers} subscribers, {shape.rate} messages/s of {SIZE} bytes\n")
    print("| | CPU, µs a delivery | × | p50, ms | p99, ms | lost |")
    print("|---|---|---|---|---|---|")
    ours = statistics.median(each.cpu for each in found[COMPARED[0].name])
    for name, outcomes in found.items():
        reports = [each.report for each in outcomes]
        cpu = statistics.median(each.cpu for each in outcomes)
        p50 = statistics.median(each.latency.percentiles["p50"] for each in reports)
        p99 = statistics.median(each.latency.percentiles["p99"] for each in reports)
        lost = max(each.faults.lost for each in reports)
        wrong = "" if all(each.is_whole for each in reports) else ", not whole"
        busy = ", the load was busy" if any(each.busy for each in reports) else ""
        cells = f"{cpu:.1f} | {cpu / ours:.1f} | {p50:.1f} | {p99:.1f} | {lost}{wrong}{busy}"
        print(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()
