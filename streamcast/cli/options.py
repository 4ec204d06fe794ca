"""Options made from settings: flag, then variable `STREAMCAST_…`, then default.

The law of this file: an option's name, type, default and help stand in `config` and nowhere else.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, get_type_hints

import typer

from streamcast.cli import units

Run = Callable[..., None]

_PARSERS: Mapping[str, tuple[Callable[[str], Any], Callable[[Any], Any]]] = {
    "size": (units.size, units.show_size),
    "duration": (units.duration, units.show_duration),
    "origin": (units.origin, list[str]),
    "dir": (str, str),
}


def settings_command(**parts: type) -> Callable[[Run], Run]:
    """Give a command one option for each field of its settings that has help.

    `parts` names the command's parameters and the settings' classes; the first line of a class's
    docstring becomes the panel that its options are shown in.
    """

    def decorate(run: Run) -> Run:
        groups = {name: _options(settings) for name, settings in parts.items()}

        def command(**given: Any) -> None:
            run(
                **{
                    name: settings(
                        **{each.name: _frozen(given[each.name]) for each in groups[name]}
                    )
                    for name, settings in parts.items()
                }
            )

        options = [option for group in groups.values() for option in group]
        command.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        command.__annotations__ = {option.name: option.annotation for option in options}
        command.__doc__ = run.__doc__
        command.__name__ = run.__name__
        return command

    return decorate


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
        more = {"parser": _usage(parse, about["at_least"]), "metavar": about["unit"].upper()}
        default = None if default is None else show(default)
    elif about["at_least"] is not None:
        more = {"min": about["at_least"], "max": about["at_most"]}
    return typer.Option(
        default,
        f"--{setting.name.replace('_', '-')}",
        envvar=f"STREAMCAST_{setting.name.upper()}",
        help=about["help"],
        show_default=about["shown"] or True,
        rich_help_panel=panel,
        **more,
    )


def _usage(parse: Callable[[str], Any], at_least: float | None) -> Callable[[str], Any]:
    """Have a value that can't be read told as a mistake in usage."""

    def parsed(text: str) -> Any:
        try:
            value = parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        if at_least is not None and value < at_least:
            raise typer.BadParameter(f"{text!r} is too small.")
        return value

    return parsed
