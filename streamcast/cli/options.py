"""Options made from settings: flag, then variable `STREAMCAST_…`, then default.

The law of this file: an option's name, type, default and help stand in `config` and nowhere else.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, get_type_hints

import typer

from streamcast import __version__
from streamcast.cli import units

Run = Callable[..., None]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"streamcast {__version__}")
        raise typer.Exit


version_option = typer.Option(
    "--version", callback=_print_version, is_eager=True, help="Print the version."
)
_VERSION = inspect.Parameter(
    "version",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, version_option],
)

_PARSERS: Mapping[str, tuple[Callable[[str], Any], Callable[[Any], Any]]] = {
    "size": (units.size, units.show_size),
    "duration": (units.duration, units.show_duration),
    "origin": (units.origin, list[str]),
    "dir": (str, str),
    "url": (units.url, list[str]),
    "id": (units.after, str),
    "n": (units.last, str),
    "address": (units.address, str),
    "file": (str, str),
    "limit": (units.limit, list[str]),
    "bound": (units.limit, str),
}


def settings_command(**parts: type) -> Callable[[Run], Run]:
    """Give a command one option for each field of its settings that has help, and --version.

    `parts` names the command's parameters and the settings' classes; the first line of a class's
    docstring becomes the panel that its options are shown in.
    """

    def decorate(run: Run) -> Run:
        groups = {name: _options(settings) for name, settings in parts.items()}

        def command(**given: Any) -> None:
            for name, settings in parts.items():
                own = {each.name: _frozen(given.pop(each.name)) for each in groups[name]}
                given[name] = settings(**own)
            del given[_VERSION.name]
            run(**given)

        options = [option for group in groups.values() for option in group]
        parameters = [*_others(run, parts), *options, _VERSION]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        command.__doc__ = run.__doc__
        command.__name__ = run.__name__
        return command

    return decorate


def _others(run: Run, parts: Mapping[str, type]) -> list[inspect.Parameter]:
    """Return the parameters of a command that are no settings: its arguments."""
    return [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, each in inspect.signature(run).parameters.items()
        if name not in parts
    ]


def _frozen(value: Any) -> Any:
    """Return a value as settings hold it: that of a repeatable option comes as a list."""
    return tuple(value) if isinstance(value, list) else value


def _options(settings: type) -> list[inspect.Parameter]:
    panel = (settings.__doc__ or "").partition("\n")[0].rstrip(".")
    hints = get_type_hints(settings)
    return [
        inspect.Parameter(
            setting.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_option(setting, panel),
            annotation=list[str] if hints[setting.name] == tuple[str, ...] else hints[setting.name],
        )
        for setting in fields(settings)
        if "help" in setting.metadata
    ]


def _option(setting: Field[Any], panel: str) -> Any:
    assert setting.default is not MISSING
    about = setting.metadata
    default, more = setting.default, dict[str, Any]()
    if about["unit"]:
        parse, show = _PARSERS[about["unit"]]
        more = {"parser": units.option(parse, about["at_least"]), "metavar": about["unit"].upper()}
        default = None if default is None else show(default)
    elif about["at_least"] is not None:
        more = {"min": about["at_least"], "max": about["at_most"]}
    return typer.Option(
        default,
        f"--{setting.name.replace('_', '-')}",
        envvar=f"STREAMCAST_{setting.name.upper()}" if about["variable"] else None,
        help=about["help"],
        show_default=True if about["shown"] is None else about["shown"] or False,
        rich_help_panel=panel,
        **more,
    )
