"""`streamcast serve`."""

import typer

from streamcast.cli.options import settings_command
from streamcast.config import LogSettings, RelaySettings, ServerSettings, StreamSettings


@settings_command(
    server=ServerSettings, streams=StreamSettings, messages=RelaySettings, logs=LogSettings
)
def serve(
    server: ServerSettings, streams: StreamSettings, messages: RelaySettings, logs: LogSettings
) -> None:
    """Serve rooms over WebSocket.

    Needs nothing set up: without --redis it runs a Valkey of its own.

    Examples:
    [bold]streamcast serve[/bold]
    [bold]streamcast serve --port 8080 --redis redis://127.0.0.1:6379[/bold]
    """
    # What only a running server needs is not loaded for --help.
    import uvloop

    from streamcast import server as servers
    from streamcast.cli.logs import set_up

    set_up(logs)
    if server.workers == 1:
        uvloop.run(servers.serve(streams, messages, server, _tell))
    else:
        module = "streamcast.cli.worker"
        uvloop.run(servers.serve_by_workers(streams, messages, server, logs, module, _tell))


def _tell(url: str, store: str | None) -> None:
    typer.echo(f"Listening on {url}")
    if store is not None:
        typer.echo(f"Rooms are in an embedded Valkey: redis-cli -s {store}")
