"""A report as people read it at a terminal, and how far a load is while it runs."""

from collections.abc import Iterator, Sequence

from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streamcast.bench.report import Report, written

BARS = 11
"""Into how many rows the histogram is gathered."""


def shown(report: Report) -> RenderableType:
    """Return a report."""
    return Group(*_parts(report))


def _parts(report: Report) -> Iterator[RenderableType]:
    settings, rates = report.settings, report.rates
    yield Text(
        f"{settings['profile']}: {settings['connections']} connections, "
        f"{report.published} messages of {settings['size']} bytes published, "
        f"{report.deliveries} deliveries measured in {report.seconds:.1f} s"
    )
    yield ""
    if report.deliveries:
        yield _percentiles(report)
        yield ""
        yield _bars(report.buckets)
        yield ""
    yield _facts(
        *_storm(report),
        ("connections/s", f"{report.connections_per_s:,.0f}"),
        ("messages/s", f"{rates['messages_per_s']:,.1f}"),
        ("deliveries/s", f"{rates['deliveries_per_s']:,.1f}"),
        ("MB/s", f"{rates['mb_per_s']:,.2f}"),
        ("worst receiver's p99", written(report.worst)),
        *_server(report),
        ("load", _load(report)),
    )
    yield ""
    yield _verdict(report)


def _percentiles(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("latency, ms")
    names = [*report.latency.percentiles, "max"]
    for name in names:
        table.add_column(name, justify="right")
    rows = ("of each delivery", report.latency), ("until the last has it", report.last)
    for title, times in rows:
        table.add_row(title, *map(written, [*times.percentiles.values(), times.max]))
    return table


def _bars(buckets: Sequence[tuple[float, int]]) -> Table:
    """Gather a histogram into rows that are equally far apart, in factors."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_column(ratio=1, min_width=20)
    if not buckets:
        return table
    shortest, longest = max(buckets[0][0], 1e-3), max(buckets[-1][0], 1e-3)
    step = max((longest / shortest) ** (1 / BARS), 1.0001)
    counts = [0] * BARS
    for time, count in buckets:
        row, bound = 0, shortest * step
        while time > bound and row < BARS - 1:
            row, bound = row + 1, bound * step
        counts[row] += count
    for row, count in enumerate(counts):
        bar = Bar(max(counts), 0, count, color="magenta")
        table.add_row(f"≤ {written(shortest * step ** (row + 1))} ms", f"{count}", bar)
    return table


def _facts(*facts: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts:
        table.add_row(name, value)
    return table


def _storm(report: Report) -> Iterator[tuple[str, str]]:
    times = report.caught_up
    if times is not None:
        p50, p99 = written(times.percentiles["p50"]), written(times.percentiles["p99"])
        yield "caught up again", f"p50 {p50} ms, p99 {p99} ms, the last {written(times.max)} ms"
        if report.behind:
            yield "never back", str(report.behind)
        if report.store_reads is not None:
            yield "reads of the store", f"{report.store_reads:,} until then"


def _server(report: Report) -> Iterator[tuple[str, str]]:
    use = report.server
    if use is not None:
        cpu = f"{use.cpu_share:.0%} of a core, {use.per_delivery:.2f} µs of CPU a delivery"
        memory = f"{use.memory_bytes / 1e6:.1f} MB, {use.memory_per_connection} bytes a connection"
        yield "server", f"{cpu}, {memory}"


def _load(report: Report) -> str:
    shares = ", ".join(f"{share:.0%}" for share in report.load)
    return f"{shares} of a core, {report.load_per_delivery:.2f} µs of CPU a delivery"


def _verdict(report: Report) -> Text:
    faults = report.faults
    words = [
        f"{count} {name}"
        for name, count in (
            ("lost", faults.lost),
            ("duplicate", faults.duplicate),
            ("out of order", faults.out_of_order),
            ("unknown", faults.unknown),
            ("refused", report.refused),
            ("disconnected", report.disconnected),
        )
        if count or name == "lost"
    ]
    text = Text(", ".join(words), style="bold" if report.is_whole else "bold red")
    if report.busy:
        text.append(
            "\nThe load itself used more than 80% of a core and may have been what was slow: "
            "give it more --load-processes, or cores.",
            style="red",
        )
    if report.interrupted:
        text.append("\nInterrupted: this is what there was so far.")
    return text
