"""Imports go down only: each floor of the package imports from floors below it."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "streamcast"

FLOORS = [
    ["errors", "log", "backoff", "inlet", "outlet"],
    ["message", "config"],
    ["wire"],
    ["client"],
    ["cursor", "proof", "window"],
    ["row"],
    ["room"],
    ["joining", "fanout", "streams"],
    ["follower"],
    ["relay"],
    ["server"],
    ["bench"],
    ["cli"],
    ["__main__"],
]
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The parts of the package that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            words = name.split(".")
            if words[0] == "streamcast" and len(words) > 1:
                found.add(words[1])
    return found


def test_every_part_has_a_floor() -> None:
    parts = {part(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert parts == set(FLOOR_OF)


def test_imports_go_down_only() -> None:
    for path in PACKAGE.rglob("*.py"):
        here = part(path)
        if here == "__init__":
            assert not imported(path)
            continue
        for there in imported(path) - {here}:
            assert FLOOR_OF[there] < FLOOR_OF[here], f"{path} imports {there}"


def test_the_client_stands_on_the_ground_and_the_wire_alone() -> None:
    for path in (PACKAGE / "client").glob("*.py"):
        ground = {"errors", "log", "backoff", "message", "wire", "client"}
        assert imported(path) <= ground, path


def test_the_core_knows_no_socket_and_no_http() -> None:
    pure = ["message", "wire", "cursor", "proof", "window", "row", "room", "joining"]
    for path in PACKAGE.rglob("*.py"):
        if part(path) in pure:
            assert not {"asyncio", "socket", "redis", "hiredis"} & outside(path), path
        if part(path) in [*pure, "fanout", "follower", "relay"]:
            assert not {"socket", "http", "websockets", "redis", "hiredis"} & outside(path), path


def outside(path: Path) -> set[str]:
    """The top-level modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found
