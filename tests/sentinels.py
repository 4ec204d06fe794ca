"""A primary, two replicas and three sentinels, on a network that can be cut (tests/network.py)."""

from collections import Counter

from tests.network import Host, Network
from tests.nodes import SYNC_AT_ONCE, Node, free_ports
from tests.stores import eventually
from tests.tls import Certificates

SERVICE = "rooms"
# In ms, how often they talk; by default it is 1 s, 2 s, 10 s and 1 s. A link that was lost or is to
# a new primary, is opened at most once in a PING-PERIOD: were it as long as the 1,000 ms below, the
# new primary could be thought down before it was asked, and another failover would follow. What a
# replica told must not be older than five PING-PERIODs, and during a failover it is asked once a
# second only.
FAST = [
    *("PING-PERIOD", "400"),
    *("PUBLISH-PERIOD", "400"),
    *("INFO-PERIOD", "200"),
    *("ASK-PERIOD", "100"),
]


class Member(Node):
    """A node on the network; `host.port`, its `port`, is where others find it."""

    def __init__(
        self,
        program: str,
        host: Host,
        *lines: str,
        password: str = "",
        sentinel: bool = False,
        tls: Certificates | None = None,
    ) -> None:
        own = ["port 0", f"bind-source-addr {host.source}"]
        if tls is not None:
            [port] = free_ports(1)
            own += tls.lines(port)
        super().__init__(
            program, *own, *lines, port=host.port, password=password, sentinel=sentinel
        )
        self.host = host
        host.target = self.path if tls is None else port


class Sentinel(Member):
    """A member that watches the others."""

    def wait_until_ready(self) -> None:
        super().wait_until_ready()
        # This is not kept in its file.
        self.client.execute_command("SENTINEL", "DEBUG", *FAST)

    @property
    def named(self) -> int:
        """The port of what it says is the primary."""
        address = self.client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(address[1])

    @property
    def sees_all(self) -> bool:
        """Whether two replicas follow, there are two other sentinels, and none of them is down."""
        primary, replicas, sentinels = (
            self.client.execute_command("SENTINEL", what, SERVICE)
            for what in ("MASTER", "REPLICAS", "SENTINELS")
        )
        followed = [(each[b"master-port"], each[b"master-link-status"]) for each in replicas]
        flags = [each[b"flags"].split(b",") for each in (primary, *replicas, *sentinels)]
        return (
            followed == [(primary[b"port"], b"ok")] * 2
            and len(sentinels) == 2
            # What else they say may be of the past: that another sentinel found a primary down.
            and not any(b"s_down" in each or b"disconnected" in each for each in flags)
        )


class Sentinels:
    """`options` are for the nodes, as lines of settings; `user` is one beside Redis' default."""

    def __init__(
        self,
        program: str,
        *options: str,
        user: str = "",
        password: str = "",
        sentinel_password: str = "",
        tls: Certificates | None = None,
    ) -> None:
        self.network = Network()
        hosts = [self.network.host() for _ in range(6)]
        first = hosts[0]
        if user:
            options = (*options, f"user {user} on >{password} ~* &* +@all")
        self.nodes = [
            Member(program, host, *_node(host, first), *options, password=password, tls=tls)
            for host in hosts[:3]
        ]
        self.sentinels = [
            Sentinel(
                program,
                host,
                *_sentinel(host, first, password, sentinel_password),
                password=sentinel_password,
                sentinel=True,
                tls=tls,
            )
            for host in hosts[3:]
        ]
        scheme = "redis+sentinel" if tls is None else "rediss+sentinel"
        who = f"{user}:{password}@" if password else ""
        where = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        query = [f"sentinel_password={sentinel_password}"] if sentinel_password else []
        query += [] if tls is None else [tls.query]
        self.url = f"{scheme}://{who}{where}/{SERVICE}{'?' if query else ''}{'&'.join(query)}"

    def start(self) -> None:
        """Start all, and wait until each knows the others."""
        first, *others = self.nodes
        # The others give their first try to reach it, and the next comes a second later.
        first.start()
        for member in (*others, *self.sentinels):
            member.launch()
        for member in (*others, *self.sentinels):
            member.wait_until_ready()
        self.wait_until_linked()

    @property
    def primary(self) -> Member:
        """What the majority of the sentinels says it is."""
        primary = self.master_according_to_majority()
        assert primary is not None
        return primary

    @property
    def replicas(self) -> list[Member]:
        """All other nodes, whatever they believe to be."""
        primary = self.primary
        return [node for node in self.nodes if node is not primary]

    def master_according_to_majority(self) -> Member | None:
        named = Counter(each.named for each in self.sentinels if each.can_answer)
        for node in self.nodes:
            if named[node.port] * 2 > len(self.sentinels):
                return node
        return None

    def wait_for_failover(self, old: Member, within: float = 15.0) -> Member:
        """Wait until the majority names another than `old`, which knows it; returns that one."""

        def new() -> Member | None:
            named = self.master_according_to_majority()
            return None if named in (None, old) or named.role != "master" else named

        promoted: Member = eventually(new, within)
        return promoted

    def wait_until_linked(self, within: float = 15.0) -> None:
        """Wait until both replicas follow the primary, and all sentinels see that it is so."""
        eventually(lambda: all(each.sees_all for each in self.sentinels), within)
        eventually(lambda: _online(self.primary) == 2, within)

    def isolate(self, *members: Member, clients: bool = False, silent: bool = False) -> None:
        """Cut members off, alive, from all others; see Network.isolate."""
        hosts = [member.host for member in members]
        self.network.isolate(*hosts, clients=clients, silent=silent)

    def heal(self, *members: Member) -> None:
        self.network.heal(*[member.host for member in members])

    def close(self) -> None:
        for member in (*self.sentinels, *self.nodes):
            member.close()
        self.network.close()


def _node(host: Host, first: Host) -> list[str]:
    return [
        "replica-announce-ip 127.0.0.1",
        f"replica-announce-port {host.port}",
        *SYNC_AT_ONCE,
        *([] if host is first else [f"replicaof 127.0.0.1 {first.port}"]),
    ]


def _sentinel(host: Host, first: Host, password: str, own_password: str) -> list[str]:
    return [
        "sentinel announce-ip 127.0.0.1",
        f"sentinel announce-port {host.port}",
        f"sentinel monitor {SERVICE} 127.0.0.1 {first.port} 2",
        f"sentinel down-after-milliseconds {SERVICE} 1000",
        f"sentinel failover-timeout {SERVICE} 2000",
        *([f"sentinel auth-pass {SERVICE} {password}"] if password else []),
        *([f"sentinel sentinel-pass {own_password}"] if own_password else []),
    ]


def _online(node: Member) -> int:
    """How many replicas have what it has."""
    told = node.client.info("replication")
    return sum(told.get(f"slave{number}", {}).get("state") == "online" for number in range(2))
