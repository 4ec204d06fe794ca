"""The set-ups that tests of faults stand on do what they say."""

import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.clusters import Cluster, slot_of
from tests.conftest import ENGINES
from tests.network import Host, Network
from tests.nodes import Node
from tests.sentinels import Sentinels
from tests.tls import Certificates, speaks_tls

PATIENCE = 5.0
KEY = "streamcast:live"
NONE = Retry(NoBackoff(), 0)


class Ends:
    """Two hosts on a network; what the second accepts can be had."""

    def __init__(self) -> None:
        self.network = Network()
        self._listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.here, self.there = self.hosts = [self.network.host() for _ in range(2)]
        for host, listener in zip(self.hosts, self._listeners, strict=True):
            listener.settimeout(PATIENCE)
            host.target = listener.getsockname()[1]

    def link(self, to: Host, source: Host | None = None) -> socket.socket:
        """A connection to a host, of another one or of a client."""
        address = "127.0.0.1" if source is None else source.source
        return socket.create_connection(("127.0.0.1", to.port), PATIENCE, (address, 0))

    def accept(self, host: Host) -> socket.socket:
        accepted, _ = self._listeners[self.hosts.index(host)].accept()
        accepted.settimeout(PATIENCE)
        return accepted

    def is_served(self, to: Host, source: Host | None = None) -> bool:
        """Whether a new connection is; if not, it was reset."""
        listener = self._listeners[self.hosts.index(to)]
        try:
            link = self.link(to, source)
        except ConnectionResetError:
            return False
        with link:
            ready, _, _ = select.select([listener, link], [], [], PATIENCE)
            if ready == [listener]:
                self.accept(to).close()
            return listener in ready

    def close(self) -> None:
        self.network.close()
        for listener in self._listeners:
            listener.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    with closing(Ends()) as made:
        yield made


def is_reset(link: socket.socket) -> bool:
    try:
        return link.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_network_passes_on_what_comes_until_either_end_closes(ends: Ends) -> None:
    for first in (0, 1):
        with ends.link(ends.there) as link, ends.accept(ends.there) as accepted:
            link.sendall(b"ping")
            assert accepted.recv(100) == b"ping"
            accepted.sendall(b"pong")
            assert link.recv(100) == b"pong"
            both = [link, accepted]
            both.pop(first).close()
            assert is_reset(both[0])


def test_a_host_that_is_cut_off_loses_also_the_links_that_it_opened(ends: Ends) -> None:
    with (
        ends.link(ends.there) as to_it,
        ends.accept(ends.there),
        ends.link(ends.here, ends.there) as of_it,
        ends.accept(ends.here),
        ends.link(ends.here) as other,
        ends.accept(ends.here) as still,
    ):
        ends.network.isolate(ends.there)
        assert is_reset(to_it)
        assert is_reset(of_it)
        assert not ends.is_served(ends.there)
        assert not ends.is_served(ends.here, ends.there)
        other.sendall(b"ping")
        assert still.recv(100) == b"ping"
    ends.network.heal(ends.there)
    assert ends.is_served(ends.there)
    assert ends.is_served(ends.here, ends.there)


def test_a_silent_host_closes_nothing_and_takes_connections_for_nothing(ends: Ends) -> None:
    with ends.link(ends.there) as old, ends.accept(ends.there) as accepted:
        ends.network.isolate(ends.there, silent=True)
        with ends.link(ends.there) as new:
            for link in (old, new):
                link.sendall(b"ping")
                link.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    link.recv(100)
                link.settimeout(PATIENCE)
            accepted.settimeout(0.05)
            with pytest.raises(TimeoutError):
                accepted.recv(100)
            ends.network.heal(ends.there)
            assert is_reset(old)
            assert is_reset(new)
    assert ends.is_served(ends.there)


def test_hosts_that_are_cut_off_together_reach_each_other(ends: Ends) -> None:
    ends.network.isolate(*ends.hosts)
    assert ends.is_served(ends.there, ends.here)
    assert not ends.is_served(ends.there)


def test_clients_may_reach_a_host_that_others_do_not(ends: Ends) -> None:
    ends.network.isolate(ends.there, clients=True)
    assert ends.is_served(ends.there)
    assert not ends.is_served(ends.there, ends.here)
    assert not ends.is_served(ends.here, ends.there)


@pytest.fixture(scope="module")
def sentinels(engine: str) -> Iterator[Sentinels]:
    with closing(Sentinels(ENGINES[engine])) as made:
        made.start()
        yield made


def add(node: Node, message: str) -> None:
    """Publish as a client does, over the network."""
    with redis.Redis(port=node.port, protocol=3, retry=NONE) as client:
        client.xadd(KEY, {"message": message})


def kept(node: Node) -> list[bytes]:
    return [fields[b"message"] for _, fields in node.client.xrange(KEY)]


def test_an_isolated_primary_believes_to_be_one_until_it_is_back(sentinels: Sentinels) -> None:
    old = sentinels.primary
    add(old, "for all")
    old.client.execute_command("WAIT", 2, 5000)
    sentinels.isolate(old, clients=True)
    new = sentinels.wait_for_failover(old)
    assert sentinels.primary is new
    assert old.role == "master"
    add(old, "lost")
    add(new, "kept")
    sentinels.isolate(old)
    with pytest.raises(redis.ConnectionError):
        add(old, "refused")
    sentinels.heal(old)
    sentinels.wait_until_linked()
    assert old.role == "slave"
    assert old in sentinels.replicas
    assert kept(old) == kept(new) == [b"for all", b"kept"]


@pytest.mark.one_cell
def test_a_killed_primary_is_replaced(sentinels: Sentinels) -> None:
    old = sentinels.primary
    old.kill()
    new = sentinels.wait_for_failover(old)
    add(new, "after")
    assert kept(new)[-1] == b"after"


@pytest.fixture(scope="module")
def cluster(engine: str) -> Iterator[Cluster]:
    with closing(Cluster(ENGINES[engine])) as made:
        made.start()
        yield made


def test_a_slot_moves_key_by_key(cluster: Cluster) -> None:
    source, target = cluster.node_of("{x}"), cluster.masters()[0]
    assert source is not target
    slot = slot_of("{x}")
    for key in ("one{x}", "two{x}"):
        source.client.xadd(key, {"message": key})
    move = cluster.begin_move(slot, target)
    assert move.keys(limit=1) == 1
    [here] = map(bytes.decode, source.client.keys("*{x}"))
    [there] = {"one{x}", "two{x}"} - {here}
    assert source.client.xlen(here) == 1
    for moved in (there, "new{x}"):
        with pytest.raises(redis.ResponseError, match=f"^{slot} 127.0.0.1:{target.port}$") as told:
            source.client.xlen(moved)
        assert isinstance(told.value, redis.exceptions.AskError)
    with pytest.raises(redis.exceptions.TryAgainError):
        source.client.exists(here, there)
    with pytest.raises(redis.exceptions.MovedError):
        target.client.xlen(there)
    with target.client.pipeline(transaction=False) as asking:
        asking.execute_command("ASKING")
        asking.xlen(there)
        assert asking.execute()[-1] == 1
    move.finish()
    assert cluster.node_of(here) is target
    assert cluster.client_of(here).exists(here, there) == 2
    with pytest.raises(redis.exceptions.MovedError):
        source.client.xlen(here)
    cluster.move_slot(slot, source)
    assert cluster.node_of(here) is source


def test_a_replica_takes_over_in_order(cluster: Cluster) -> None:
    old = cluster.node_of("{x}")
    [new] = cluster.replicas_of(old)
    cluster.failover(new)
    assert cluster.node_of("{x}") is new
    assert cluster.replicas_of(new) == [old]


@pytest.mark.one_cell
def test_a_killed_master_is_replaced_and_comes_back_as_a_replica(cluster: Cluster) -> None:
    old = cluster.masters()[0]
    [new] = cluster.replicas_of(old)
    old.kill()
    cluster.wait_for_failover(old)
    assert new in cluster.masters()
    old.start()
    cluster.wait_for_ok()
    assert cluster.replicas_of(new) == [old]


@pytest.fixture(scope="module")
def certificates() -> Iterator[Certificates]:
    with closing(Certificates()) as made:
        yield made


@pytest.fixture(scope="module")
def program() -> str:
    """An engine that speaks TLS."""
    programs = list(filter(speaks_tls, ENGINES.values()))
    if not programs:
        pytest.skip("no engine here speaks TLS")
    return programs[0]


def is_reached(node: Node, certificates: Certificates, password: str) -> bool:
    """Whether a client that trusts only our authority comes through, and checks the name."""
    with redis.Redis(
        port=node.port,
        password=password,
        ssl=True,
        ssl_ca_certs=str(certificates.authority),
        ssl_check_hostname=True,
        retry=NONE,
    ) as client:
        return bool(client.ping())


def test_sentinels_with_tls_and_passwords(program: str, certificates: Certificates) -> None:
    secrets = {"password": "secret", "sentinel_password": "other"}
    with closing(Sentinels(program, user="relay", tls=certificates, **secrets)) as made:
        made.start()
        assert is_reached(made.primary, certificates, "secret")
        assert is_reached(made.sentinels[0], certificates, "other")
        with pytest.raises(redis.AuthenticationError):
            is_reached(made.primary, certificates, "wrong")


def test_a_cluster_with_tls_and_a_password(program: str, certificates: Certificates) -> None:
    with closing(Cluster(program, replicas=0, password="secret", tls=certificates)) as made:
        made.start()
        source, target = made.node_of(KEY), made.masters()[0]
        source.client.xadd(KEY, {"message": "moves"})
        made.move_slot(slot_of(KEY), target)
        assert is_reached(target, certificates, "secret")
        assert kept(target) == [b"moves"]
