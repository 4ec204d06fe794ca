"""Stores and servers for all tests, and the account of which cells of the matrix were run.

A cell is engine × notifier × dialect. In CI an empty cell fails the run.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from tests.in_process import InProcess
from tests.proxy import Proxy
from tests.stores import Server, Store, engines

ENGINES = engines()
EXPECTED_ENGINES = ("valkey", "redis")
NOTIFIERS = ("tracking", "block")
DIALECTS = ("plain", "json")

_cells: Counter[tuple[str, str, str]] = Counter()


@pytest.fixture(scope="session", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    """The name of an engine; every test that takes it runs on each."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def _shared_store(engine: str) -> Iterator[Store]:
    store = Store(ENGINES[engine])
    try:
        store.start()
        yield store
    finally:
        store.close()


@pytest.fixture
def store(_shared_store: Store) -> Store:
    """A store that runs, empty."""
    _shared_store.empty()
    return _shared_store


@pytest.fixture
def own_store(engine: str) -> Iterator[Callable[..., Store]]:
    """Makes stores that a test may ill-treat; with options of its own."""
    with ExitStack() as stack:

        def make(*options: str, port: int = 0) -> Store:
            made = Store(ENGINES[engine], *options, port=port)
            stack.callback(made.close)
            made.start()
            return made

        yield make


@pytest.fixture(params=NOTIFIERS)
def notifier(request: pytest.FixtureRequest) -> str:
    """How the server under test learns of changes."""
    name: str = request.param
    return name


@pytest.fixture
def run() -> Iterator[Callable[..., Server]]:
    """Starts servers; those that still run afterwards must stop in order, exit code 0."""
    servers: list[Server] = []

    def start(*options: str, files: int | None = None) -> Server:
        servers.append(Server(*options, files=files))
        return servers[-1]

    yield start
    stop_in_order(servers)


@pytest.fixture
def serve(run: Callable[..., Server], notifier: str) -> Callable[..., Server]:
    """Starts servers on a store."""

    def start(store: Store | Proxy, *options: str, files: int | None = None) -> Server:
        return run("--redis", store.url, "--follow", notifier, *options, files=files)

    return start


@pytest.fixture(scope="module")
def any_store() -> Iterator[Store]:
    """A store for what does not depend on the engine; the tests of a file share it."""
    store = Store(ENGINES["valkey"])
    try:
        store.start()
        yield store
    finally:
        store.close()


@pytest.fixture(scope="module")
def any_server(any_store: Store) -> Iterator[Server]:
    """A server on it, which the tests of a file share; it must stop in order."""
    server = Server("--redis", any_store.url)
    yield server
    stop_in_order([server])


@pytest.fixture(scope="module")
def in_process(any_store: Store) -> Iterator[InProcess]:
    """One in this process."""
    server = InProcess(any_store)
    yield server
    server.stop()


def stop_in_order(servers: Sequence[Server]) -> None:
    """All are stopped before the first is judged: none may be left over."""
    running = [
        server
        for server in servers
        if server.process.stdout is not None and not server.process.stdout.closed
    ]
    ended = [(server.process.poll() is None, *server.stop()) for server in running]
    for was_running, code, logged in ended:
        assert "Traceback" not in logged, logged
        assert '"fault"' not in logged, logged
        assert code == 0 or not was_running, logged


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest, engine: str, notifier: str) -> str:
    """The dialect that a test speaks; a test that takes it counts for its cell."""
    name: str = request.param
    _cells[engine, notifier, name] += 1
    return name


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep one cell of each test that says that one is enough."""
    chosen = [item for item in items if not item.get_closest_marker("one_cell") or _is_first(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = chosen


def _is_first(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    given = {} if callspec is None else callspec.params
    cell = (given.get("engine", EXPECTED_ENGINES[0]), given.get("notifier", NOTIFIERS[0]))
    return cell == (EXPECTED_ENGINES[0], NOTIFIERS[0])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Add up what the processes of a run have run (pytest-xdist)."""
    for cell, count in node.workeroutput.get("cells", ()):
        _cells[tuple(cell)] += count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which cells were run."""
    if not _cells:
        return
    terminalreporter.section("engine × notifier × dialect")
    for cell in _all_cells():
        terminalreporter.line(f"{' × '.join(cell):<32}{_cells[cell]:>4} tests")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a whole run in CI that left a cell empty."""
    workeroutput = getattr(session.config, "workeroutput", None)
    if workeroutput is not None:
        # One process of several: the one that leads them judges.
        workeroutput["cells"] = [(list(cell), count) for cell, count in _cells.items()]
        return
    whole = not session.config.getoption("-k") and session.config.args_source.name != "ARGS"
    empty = [cell for cell in _all_cells() if not _cells[cell]]
    if os.environ.get("CI") and whole and empty:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _all_cells() -> list[tuple[str, str, str]]:
    return [
        (engine, notifier, dialect)
        for engine in EXPECTED_ENGINES
        for notifier in NOTIFIERS
        for dialect in DIALECTS
    ]
