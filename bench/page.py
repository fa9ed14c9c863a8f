"""A report of `bench quality` as one HTML page that needs nothing else: no script, no link out."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bench import machine
from bench.pictures import Picture
from bench.sections import Cell, Glance, Grid, Section, section

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto;
  max-width: 1180px; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem } h2 { margin: 2.6rem 0 .4rem; padding-top: .6rem;
  border-top: 2px solid #222; font-size: 1.3rem } h3 { margin: 1.4rem 0 .3rem; font-size: 1rem }
p { max-width: 52rem; margin: .4rem 0 } .warning { background: #fff3cd; padding: .5rem .8rem }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right;
  vertical-align: top } th:first-child, td:first-child { text-align: left }
thead th { border-bottom: 1.5px solid #222 } td small { color: #666; white-space: nowrap;
  display: block } .wide { overflow-x: auto } .plots { display: flex; flex-wrap: wrap; gap: 1rem }
.plots svg { flex: 1 1 480px; max-width: 575px; font: 12px system-ui, sans-serif }
svg .grid { stroke: #e2e2e2 } svg .axis { stroke: #222 } svg text { fill: #333 }
.facts td { text-align: left }
svg .target { stroke: #444; stroke-width: 1.5; stroke-dasharray: 2 3 }
.missed { color: #a40000; font-weight: 600 } .met { color: #1a6b2a } nav a { margin-right: 1rem }
figure { margin: .8rem 0 } figure img { max-width: 100%; height: auto; display: block }
figcaption { font-size: .86rem; color: #444 } pre { font-size: .75rem; overflow-x: auto;
  background: #f6f6f6; padding: .8rem } summary { cursor: pointer; color: #0059a0 }
"""


def page(
    report: Mapping[str, Any], texts: Mapping[str, Sequence[str]], pictures: Sequence[Picture] = ()
) -> str:
    """The page.

    Args:
        report: what `quality.run` writes as JSON.
        texts: of each table, its printed lines.
        pictures: where they were made.
    """
    sections = {name: section(name, table) for name, table in report["tables"].items()}
    links = " ".join(
        f'<a href="#{escape(name)}">{escape(s.title)}</a>' for name, s in sections.items()
    )
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>extreme3d_fast: quality</title><style>{_STYLE}</style></head><body>",
        "<h1>extreme3d_fast: quality</h1>",
        _about(report),
        f"<nav>{links}</nav>",
        _glances([g for s in sections.values() for g in s.glances], bool(report.get("quick"))),
    ]
    for name, s in sections.items():
        own = [p for p in pictures if p.table == name]
        parts.append(_section(name, s, report["tables"][name], texts[name], own))
    return "\n".join([*parts, "</body></html>", ""])


def _about(report: Mapping[str, Any]) -> str:
    """Where, when and with what, and what a reader should beware of."""
    m = report["machine"]
    facts = {
        "date": report.get("date", "unknown"),
        "commit": m.get("commit") or "unknown",
        "seed": f"{report['seed']}: photos, occluders, backgrounds and resampling",
        "machine": f"{m['cpu']}, {m['cores']} cores, {m['system']}",
        "threads": report["threads"],
        "networks": report.get("runtime", "unknown"),
        "versions": ", ".join(f"{k} {v}" for k, v in m["versions"].items()),
    }
    rows = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>"
        for key, value in facts.items()
    )
    warnings = []
    if report.get("quick"):
        warnings.append(
            "A run with --quick, on a few photos each: it shows that the bench runs, and its "
            "numbers mean nothing."
        )
    watch = report.get("watch")
    if watch is None:
        warnings.append("The run did not come to its end, or is of a version that did not watch.")
    # that of the table itself, where it has one
    of_times = report["tables"].get("time", {}).get("watch", watch)
    if "time" in report["tables"] and of_times and machine.is_loaded(of_times):
        warnings.append(machine.headline("the times below", of_times))
    warnings += [f"Without {title}: {why}" for title, why in report.get("missing", {}).items()]
    return (
        f'<table class="facts">{rows}</table>'
        + "".join(f'<p class="warning">{escape(text)}</p>' for text in warnings)
        + "<p>Numbers are means; beside them the 95 % interval and n. Intervals are bootstrapped "
        "(of shares: Wilson's) over what is independent: photos, persons or scans; n 45 of 3 are "
        "45 pictures or pairs of 3 of them. A dotted line is a target that was set "
        "beforehand.</p>"
    )


def _glances(glances: Sequence[Glance], quick: bool) -> str:
    if not glances:
        return ""
    rows = ""
    for g in glances:
        said = "not judged" if quick or g.met is None else "met" if g.met else "missed"
        kind = said if said != "not judged" else ""
        if kind and not g.sure:
            said += ", but its interval holds the target"
        rows += (
            f"<tr><td>{escape(g.text)}</td>{_cell(g.cell)}<td>{escape(g.target)}</td>"
            f'<td class="{kind}">{said}</td></tr>'
        )
    return (
        '<h2>At a glance</h2><div class="wide"><table><thead><tr><th>ours</th><th>value</th>'
        f"<th>target</th><th>target is</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _section(
    name: str,
    s: Section,
    table: Mapping[str, Any],
    text: Sequence[str],
    pictures: Sequence[Picture],
) -> str:
    out = [f'<h2 id="{escape(name)}">{escape(s.title)}</h2>']
    out += [f"<p>{escape(note)}</p>" for note in s.notes]
    if not s.grids:
        out += [f"<p>{escape(line)}</p>" for line in text]
    plots = [plot for plot in s.plots if plot]
    if plots:
        out.append(f'<div class="plots">{"".join(plots)}</div>')
    out += [_grid(grid) for grid in s.grids]
    out += [_picture(p) for p in pictures]
    if s.grids:
        printed = escape("\n".join(text))
        seed = f"seed {table['seed']}" if "seed" in table else "as printed"
        out.append(f"<details><summary>All numbers, {seed}</summary><pre>{printed}</pre></details>")
    return "\n".join(out)


def _grid(grid: Grid) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *grid.head))
    rows = "".join(
        f"<tr><td>{escape(label)}</td>{''.join(map(_cell, cells))}</tr>"
        for label, cells in grid.rows
    )
    return (
        f'<h3>{escape(grid.title)}</h3><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(c: Cell) -> str:
    if c.value is None:
        return "<td>–</td>"
    about = []
    if c.low is not None and c.high is not None:
        interval = f"{c.low:.{c.digits}f} to {c.high:.{c.digits}f}"
        about.append(f"({interval})" if c.quartiles else interval)
    if c.n is not None:
        about.append(f"n {c.n}" + (f" of {c.of}" if c.of is not None and c.of != c.n else ""))
    return f"<td>{c.value:.{c.digits}f}<small>{escape(', '.join(about))}</small></td>"


def _picture(p: Picture) -> str:
    data = base64.b64encode(p.jpeg).decode()
    return (
        f'<figure><img alt="{escape(p.caption)}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{escape(p.caption)}</figcaption></figure>"
    )
