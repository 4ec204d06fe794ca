"""A report as one page, which needs nothing but itself.

The law of this file: it is pure, and what stands in the page is escaped.
"""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Any

from streamcast.bench.report import Report, Times, written

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 34
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --soft: #6e6e73; --line: #d2d2d7;
  --ground: #fff; --one: #a21caf; --two: #0369a1; --bad: #b91c1c; }
@media (prefers-color-scheme: dark) { :root { --ink: #f2f2f7; --soft: #a1a1a6; --line: #3a3a3c;
  --ground: #161618; --one: #e879f9; --two: #38bdf8; --bad: #f87171; } }
body { background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  margin: 0 auto; max-width: 720px; padding: 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p, figcaption, td.name, th { color: var(--soft); } p { margin: .25rem 0; }
.bad { color: var(--bad); font-weight: 600; }
figure { margin: 0; } svg { display: block; height: auto; width: 100%; }
svg text { fill: var(--soft); font-size: 12px; } svg .grid { stroke: var(--line); }
svg polyline { fill: none; stroke-width: 2; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th { font-weight: 500; text-align: right; } th:first-child, td.name { text-align: left; }
td, th { border-top: 1px solid var(--line); padding: .3rem .5rem .3rem 0; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; text-align: right; }
.facts td { white-space: normal; }
.one { stroke: var(--one); } .two { stroke: var(--two); }
.key { display: inline-block; height: .2rem; margin: 0 .3rem .2rem .8rem; width: 1.2rem; }
"""

Point = tuple[float, float]


def page(report: Report) -> str:
    """Return a report as HTML."""
    settings, about = report.settings, report.about
    title = f"{settings['profile']}, {settings['connections']} connections"
    rates = report.rates
    facts = [
        *_storm(report),
        ("connections/s", f"{report.connections_per_s:,.0f}"),
        ("messages published", f"{report.published:,}"),
        ("deliveries measured", f"{report.deliveries:,}"),
        ("messages/s", f"{rates['messages_per_s']:,.1f}"),
        ("deliveries/s", f"{rates['deliveries_per_s']:,.1f}"),
        ("MB/s", f"{rates['mb_per_s']:,.2f}"),
        ("worst receiver's p99", f"{written(report.worst)} ms"),
        *_server(report),
        ("CPU of the load", f"{report.load_per_delivery:.2f} µs a delivery"),
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>streamcast bench: {escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>{escape(_words(settings))}</p>
<p>{escape(_words(about))}</p>
{_verdict(report)}
<h2>Latency, from when a message was due</h2>
<div class="scroll"><table>{_head(report.latency)}
{_row("of each delivery, ms", report.latency)}
{_row("until the last has it, ms", report.last)}</table></div>
<h2>Percentiles</h2>
{_percentile_curve(report)}
<h2>Over time</h2>
{_over_time(report)}
<h2>Figures</h2>
<table class="facts">{"".join(_fact(name, value) for name, value in facts)}</table>
</body></html>
"""


def _words(named: Mapping[str, Any]) -> str:
    return " · ".join(f"{name.replace('_', ' ')} {value}" for name, value in named.items())


def _server(report: Report) -> list[tuple[str, str]]:
    use = report.server
    if use is None:
        return []
    return [
        (
            "CPU of the server",
            f"{use.per_delivery:.2f} µs a delivery, {use.cpu_share:.0%} of a core",
        ),
        ("memory of the server", f"{use.memory_bytes / 1e6:.1f} MB"),
        ("memory of a connection", f"{use.memory_per_connection:,} bytes"),
    ]


def _storm(report: Report) -> list[tuple[str, str]]:
    times = report.caught_up
    if times is None:
        return []
    reads = "unknown" if report.store_reads is None else f"{report.store_reads:,}"
    return [
        ("caught up again, the last", f"{written(times.max)} ms"),
        ("never back", str(report.behind)),
        ("reads of the store meanwhile", reads),
    ]


def _verdict(report: Report) -> str:
    faults = report.faults
    counts = (
        f"{faults.lost} lost, {faults.duplicate} duplicate, {faults.out_of_order} out of order, "
        f"{faults.unknown} unknown, {report.refused} refused, {report.disconnected} disconnected"
    )
    words = [f'<p class="{"" if report.is_whole else "bad"}">{escape(counts)}</p>']
    if report.busy:
        words.append(
            '<p class="bad">The load itself used more than 80% of a core, and may have been '
            "what was slow.</p>"
        )
    if report.interrupted:
        words.append('<p class="bad">Interrupted: this is what there was so far.</p>')
    return "".join(words)


def _head(times: Times) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in [*times.percentiles, "max"])
    return f"<tr><th></th>{names}</tr>"


def _row(name: str, times: Times) -> str:
    cells = "".join(f"<td>{written(t)}</td>" for t in [*times.percentiles.values(), times.max])
    return f'<tr><td class="name">{escape(name)}</td>{cells}</tr>'


def _fact(name: str, value: str) -> str:
    return f'<tr><td class="name">{escape(name)}</td><td>{escape(value)}</td></tr>'


# Charts


def _percentile_curve(report: Report) -> str:
    """Draw the latency that so many percent don't exceed; each step right is ten times rarer."""
    total = sum(count for _, count in report.buckets)
    points, seen = list[Point](), 0
    for time, count in report.buckets:
        seen += count
        # The last one is drawn where one in all would stand.
        points.append((log10(total / max(total - seen, 0.5)), time))
    marks = [(0.0, "0"), (log10(2), "50%"), (1.0, "90%"), (2.0, "99%"), (3.0, "99.9%")]
    marks += [(4.0, "99.99%"), (5.0, "99.999%")]
    return _chart([("one", points)], marks, "how many have it by then", "ms")


def _over_time(report: Report) -> str:
    seconds = report.over_time
    p50 = [(float(each.second), each.p50) for each in seconds]
    p99 = [(float(each.second), each.p99) for each in seconds]
    longest = max((each.second for each in seconds), default=0)
    step = max(1, ceil(longest / 10))
    marks = [(float(second), f"{second} s") for second in range(0, longest + 1, step)]
    legend = (
        '<span class="key" style="background:var(--two)"></span>p50'
        '<span class="key" style="background:var(--one)"></span>p99'
    )
    return _chart([("two", p50), ("one", p99)], marks, "when it was due", "ms", legend)


def _chart(
    lines: Sequence[tuple[str, Sequence[Point]]],
    marks: Sequence[tuple[float, str]],
    across: str,
    up: str,
    legend: str = "",
) -> str:
    """Draw lines; upwards each step is ten times as long."""
    points = [point for _, line in lines for point in line if point[1] > 0]
    if not points:
        return "<p>Nothing was measured.</p>"
    right = max(1.0, *(x for x, _ in points))
    low = floor(log10(min(y for _, y in points)))
    high = max(ceil(log10(max(y for _, y in points))), low + 1)

    def at(x: float, y: float) -> Point:
        across_share = x / right
        up_share = (log10(max(y, 10.0**low)) - low) / (high - low)
        return (
            LEFT + across_share * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up_share * (HEIGHT - TOP - BOTTOM),
        )

    parts = []
    for power in range(low, high + 1):
        _, y = at(0, 10.0**power)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g} {up}</text>'
        )
    for mark, name in marks:
        if mark <= right:
            x, _ = at(mark, 1)
            parts.append(
                f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{name}</text>'
            )
    for kind, line in lines:
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        parts.append(f'<polyline class="{kind}" points="{drawn}"/>')
    box = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(across)}">'
    caption = f"<figcaption>{escape(across)}{legend}</figcaption>"
    return f"<figure>{box}{''.join(parts)}</svg>{caption}</figure>"
