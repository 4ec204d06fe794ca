"""`streamcast bench`."""

import typer

from streamcast.cli.options import settings_command
from streamcast.config import LoadSettings, Profile, ReportSettings, Speech, TargetSettings


@settings_command(load=LoadSettings, target=TargetSettings, report=ReportSettings)
def bench(load: LoadSettings, target: TargetSettings, report: ReportSettings) -> None:
    """Measure how fast and how evenly messages arrive, and whether any is lost.

    Needs nothing set up: without --url it starts a server of its own.
    Each message is published when it is due, whether or not those before it have come, and its
    latency counts from when it was due: a stall is not hidden by a sender that waited for it.
    Every listener is checked: exit code 1 if it lost a message, or got one twice or out of order.

    Examples:
    [bold]streamcast bench[/bold]
    [bold]streamcast bench --subscribers 1000 --rate 1000 --duration 5s[/bold]
    [bold]streamcast bench --profile live --rooms 500 --fail-if 'p99>50ms' --json report.json[/bold]
    """
    from streamcast.bench.limits import Limit

    if target.url is not None and target.redis is not None:
        raise typer.BadParameter("--redis is for the bench's own server; give either, or --url.")
    if load.find_max is not None and load.profile not in {Profile.BROADCAST, Profile.LIVE}:
        raise typer.BadParameter("--find-max is for --profile broadcast and live.")
    if load.find_max is not None and Limit.parse(load.find_max).compare.startswith(">"):
        raise typer.BadParameter(
            "--find-max wants a bound that breaks as the rate grows: p99<50ms."
        )
    if load.profile == Profile.STORM and load.dialect != Speech.JSON:
        raise typer.BadParameter("--profile storm needs IDs, and so --dialect json.")
    # What only a running command needs is not loaded for --help.
    from streamcast.cli.benching import run

    raise typer.Exit(run(load, target, report))
