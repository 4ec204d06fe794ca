"""A cluster of three masters with replicas, whose slots can be moved step by step."""

from itertools import combinations
from typing import Any, NamedTuple

from redis.crc import key_slot

from tests.nodes import SYNC_AT_ONCE, Node, free_ports
from tests.stores import eventually
from tests.tls import Certificates

MASTERS = 3
SLOTS = 16384
NODE_TIMEOUT = 1500
"""In ms: a node that is silent for so long is suspected."""


class Known(NamedTuple):
    """What a node says about another (CLUSTER NODES)."""

    id: str
    port: int
    flags: set[str]
    master: str
    is_linked: bool
    slots: list[range]


class Cluster:
    """`options` are for all nodes, as lines of settings."""

    def __init__(
        self,
        program: str,
        *options: str,
        replicas: int = 1,
        password: str = "",
        tls: Certificates | None = None,
    ) -> None:
        self.password = password
        count = MASTERS * (1 + replicas)
        ports = free_ports(2 * count)
        self._buses = dict(zip(ports[:count], ports[count:], strict=True))
        self.nodes = [
            Node(program, *_lines(port, bus, tls), *options, port=port, password=password)
            for port, bus in self._buses.items()
        ]
        scheme = "redis+cluster" if tls is None else "rediss+cluster"
        who = f":{password}@" if password else ""
        where = ",".join(f"127.0.0.1:{port}" for port in self._buses)
        self.url = f"{scheme}://{who}{where}" + ("" if tls is None else f"?{tls.query}")

    def start(self) -> None:
        """Start all nodes, make them known to each other, and wait until all is well.

        It takes 2 s: so long does a node that starts refuse to be a master.
        """
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_until_ready()
        for epoch, node in enumerate(self.nodes, 1):
            _do(node, "SET-CONFIG-EPOCH", epoch)
        for one, other in combinations(self.nodes, 2):
            _do(one, "MEET", "127.0.0.1", other.port, self._buses[other.port])
        masters, replicas = self.nodes[:MASTERS], self.nodes[MASTERS:]
        for number, node in enumerate(masters):
            first, end = (SLOTS * each // MASTERS for each in (number, number + 1))
            _do(node, "ADDSLOTSRANGE", first, end - 1)
        eventually(lambda: all(map(self._knows_all, self.nodes)), within=10)
        for number, node in enumerate(replicas):
            _do(node, "REPLICATE", _id(masters[number % MASTERS]))
        self.wait_for_ok()

    @property
    def running(self) -> list[Node]:
        """The nodes that can answer."""
        return [node for node in self.nodes if node.can_answer]

    def masters(self) -> list[Node]:
        """Those that own slots, in the order of these."""
        owners = [known for known in self._known() if known.slots]
        return [self._node(each.port) for each in sorted(owners, key=lambda each: each.slots[0][0])]

    def replicas_of(self, master: Node) -> list[Node]:
        """Those that follow it, as they say themselves."""
        roles = [(node, node.client.execute_command("ROLE")) for node in self.running]
        return [node for node, role in roles if role[0] == b"slave" and int(role[2]) == master.port]

    def node_of_slot(self, slot: int) -> Node:
        """The master that owns it."""
        [port] = [
            known.port for known in self._known() if any(slot in each for each in known.slots)
        ]
        return self._node(port)

    def node_of(self, key: str) -> Node:
        return self.node_of_slot(slot_of(key))

    def client_of(self, key: str) -> Any:
        return self.node_of(key).client

    def wait_for_ok(self, within: float = 15.0) -> None:
        """Wait until all that run say so, agree on who owns what, and replicas follow."""
        eventually(self._is_ok, within)

    def failover(self, replica: Node, *how: str) -> None:
        """Make it a master, in agreement with its own or by FORCE or TAKEOVER; all know then.

        Redis 7.0: not one that was elected in the last 6 s (4 × NODE_TIMEOUT). Without asking
        for votes it believes to be elected again, and is a master until it hears of the real one.
        """
        _do(replica, "FAILOVER", *how)
        eventually(lambda: replica in self.masters(), within=15)
        self.wait_for_ok()

    def wait_for_failover(self, old: Node, within: float = 15.0) -> None:
        """Wait until a replica has taken the slots of a master that was killed or paused."""
        eventually(lambda: old not in self.masters(), within)
        self.wait_for_ok()

    def begin_move(self, slot: int, to: Node) -> "Move":
        """A slot on its way; call finish() in the end."""
        return Move(self, slot, to)

    def move_slot(self, slot: int, to: Node) -> None:
        """Move a slot and its keys to another master."""
        self.begin_move(slot, to).finish()

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def _node(self, port: int) -> Node:
        [node] = [node for node in self.nodes if node.port == port]
        return node

    def _known(self) -> list[Known]:
        """What the node says that heard the latest news."""
        return _known(max(self.running, key=_epoch))

    def _knows_all(self, node: Node) -> bool:
        known = _known(node)
        return (
            len(known) == len(self.nodes)
            and all(each.is_linked and "handshake" not in each.flags for each in known)
            and sum(bool(each.slots) for each in known) == MASTERS
        )

    def _is_ok(self) -> bool:
        running = self.running
        ports = {node.port for node in running}
        # Who follows whom as well: a master that doesn't know its replica hands nothing over.
        views = [
            {each.port: (each.master, each.slots) for each in _known(node) if each.port in ports}
            for node in running
        ]
        return (
            all(view == views[0] for view in views)
            and all(map(_says_ok, running))
            and all(_is_linked(node) for node in running if views[0][node.port][0] != "-")
        )


class Move:
    """A slot on its way to another master, in the classic way: key by key, by MIGRATE.

    Until it is finished the source sends those on (ASK) who ask for a key that it has not.
    """

    def __init__(self, cluster: Cluster, slot: int, to: Node) -> None:
        self._cluster = cluster
        self.slot = slot
        self.source = cluster.node_of_slot(slot)
        self.target = to
        # First the target, or it would send back those that the source sends on.
        _do(to, "SETSLOT", slot, "IMPORTING", _id(self.source))
        _do(self.source, "SETSLOT", slot, "MIGRATING", _id(to))

    def keys(self, limit: int = 100) -> int:
        """Move some of its keys; returns how many."""
        keys = _do(self.source, "GETKEYSINSLOT", self.slot, limit)
        if keys:
            password = self._cluster.password
            login = ["AUTH", password] if password else []
            where = ["127.0.0.1", self.target.port, "", 0, 5000]
            self.source.client.execute_command("MIGRATE", *where, *login, "KEYS", *keys)
        return len(keys)

    def finish(self) -> None:
        """Move the rest of its keys, and tell all masters; returns when all nodes know."""
        while self.keys():
            pass
        others = [node for node in self._cluster.masters() if node is not self.target]
        # First the target: nobody would own it for a moment, if the source knew before.
        for node in (self.target, *others):
            _do(node, "SETSLOT", self.slot, "NODE", _id(self.target))
        self._cluster.wait_for_ok()


def slot_of(key: str) -> int:
    slot: int = key_slot(key.encode())
    return slot


def _do(node: Node, *words: str | int) -> Any:
    # As two words, or redis-py would take the reply apart.
    return node.client.execute_command("CLUSTER", *words)


def _id(node: Node) -> str:
    mine: bytes = _do(node, "MYID")
    return mine.decode()


def _info(node: Node) -> dict[str, str]:
    lines = _do(node, "INFO").decode().splitlines()
    return dict(line.split(":", 1) for line in lines)


def _epoch(node: Node) -> int:
    return int(_info(node)["cluster_current_epoch"])


def _says_ok(node: Node) -> bool:
    return _info(node)["cluster_state"] == "ok"


def _is_linked(replica: Node) -> bool:
    name, *rest = replica.client.execute_command("ROLE")
    return bool(name == b"slave" and rest[2] == b"connected")


def _known(node: Node) -> list[Known]:
    """All nodes that it knows, itself among them."""
    return [_parsed(line.split()) for line in _do(node, "NODES").decode().splitlines()]


def _parsed(words: list[str]) -> Known:
    id, address, flags, master, _, _, _, link, *slots = words
    port = address.partition("@")[0].rpartition(":")[2]
    # In brackets stand slots that move.
    ends = [list(map(int, each.split("-"))) for each in slots if not each.startswith("[")]
    owned = [range(each[0], each[-1] + 1) for each in ends]
    return Known(id, int(port), set(flags.split(",")), master, link == "connected", owned)


def _lines(port: int, bus: int, tls: Certificates | None) -> list[str]:
    return [
        *([f"port {port}"] if tls is None else ["port 0", "tls-cluster yes", *tls.lines(port)]),
        "bind 127.0.0.1",
        "cluster-enabled yes",
        f"cluster-port {bus}",
        f"cluster-node-timeout {NODE_TIMEOUT}",
        *SYNC_AT_ONCE,
    ]
