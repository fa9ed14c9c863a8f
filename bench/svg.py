"""Small plots as SVG text: lines with bands, and points with whiskers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

# Told apart by people who see colours otherwise (Okabe and Ito 2008), and in grey by lightness.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777", "#222222")
WIDTH, HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 26, 12, 44  # px round the axes
_ROW = 16  # px of a series in a plot of points
_LABEL = 150  # px of a row's name
_CHAR = 6.4  # px, about, of a letter
_ENTRY = 42  # px of a legend's entry beside its letters

Number = float | None


@dataclass(frozen=True)
class Series:
    """Values with intervals; None where there is none."""

    title: str
    values: Sequence[Number]
    low: Sequence[Number] = ()
    high: Sequence[Number] = ()
    colour: int = 0
    dashed: bool = False


def line_chart(
    x: Sequence[float],
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_names: Sequence[str] = (),
    target: Sequence[Number] = (),
    top: float | None = None,
    markers: bool = True,
) -> str:
    """Lines over x with their intervals as bands.

    Args:
        x: where the values are.
        series: one line each; dashed ones, which would cover the others, have no band.
        title: what the plot shows, for readers that do not see it too.
        x_label, y_label: of the axes, with units.
        x_names: what to call each x; without them, round numbers.
        target: (len(x),) a dotted line, called target.
        top: end of the y axis; None: what the values ask for.
        markers: a dot at each value.
    """
    known = [v for s in series for v in (*s.values, *s.high) if v is not None]
    known += [v for v in target if v is not None]
    if not known:
        return ""
    y_ticks = ticks(0.0, top if top is not None else max(known))
    y_top = top if top is not None else y_ticks[-1]
    x_low, x_high = min(x), max(x)
    span = (x_high - x_low) or 1.0
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def px(v: float) -> float:
        return (
            _LEFT + (right - _LEFT) * (v - x_low) / span if x_high > x_low else (_LEFT + right) / 2
        )

    def py(v: float) -> float:
        return bottom - (bottom - _TOP) * min(v / y_top, 1.0)

    out = []
    for tick in y_ticks:
        if tick > y_top:
            continue
        out.append(_line(_LEFT, py(tick), right, py(tick), "grid"))
        out.append(_text(_LEFT - 6, py(tick) + 4, _number(tick), "end"))
    named = list(zip(x, x_names, strict=True)) if x_names else []
    for at, name in named or [
        (t, _number(t)) for t in ticks(x_low, x_high) if x_low <= t <= x_high
    ]:
        out.append(_text(px(at), bottom + 16, name, "middle"))
    out.append(_line(_LEFT, bottom, right, bottom, "axis"))
    out.append(_text((_LEFT + right) / 2, HEIGHT - 8, x_label, "middle"))
    out.append(
        f'<text transform="translate(14 {(_TOP + bottom) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    if any(v is not None for v in target):
        out.append(_path([(px(a), py(b)) for a, b in zip(x, target, strict=True) if b is not None]))
    # the first on top, and thinner: where lines coincide both show
    for k, s in reversed(list(enumerate(series))):
        colour = COLOURS[s.colour % len(COLOURS)]
        if s.low and s.high and not s.dashed:
            band = [
                (px(a), py(low), py(high))
                for a, low, high in zip(x, s.low, s.high, strict=True)
                if low is not None and high is not None
            ]
            if len(band) > 1:
                ring = [(a, h) for a, _, h in band] + [(a, low) for a, low, _ in band[::-1]]
                out.append(
                    f'<polygon points="{_points(ring)}" fill="{colour}" fill-opacity="0.14"/>'
                )
        at = [(px(a), py(v)) for a, v in zip(x, s.values, strict=True) if v is not None]
        dash = ' stroke-dasharray="5 4"' if s.dashed else ""
        out.append(
            f'<polyline points="{_points(at)}" fill="none" stroke="{colour}" '
            f'stroke-width="{2 + min(k, 1) * 1.5:g}"{dash}/>'
        )
        if markers:
            out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in at]
    return _figure(title, series, out, HEIGHT, has_target=bool(target))


def point_chart(
    rows: Sequence[str],
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    target: Sequence[Number] = (),
    low: float | None = None,
    high: float | None = None,
) -> str:
    """Points with their intervals as whiskers, a row each; a tick where the row's target is.

    Points, unlike bars, do not ask for an axis that begins at 0.
    """
    known = [v for s in series for v in (*s.values, *s.low, *s.high) if v is not None]
    known += [v for v in target if v is not None]
    if not known:
        return ""
    begin = min(known) if low is None else low
    end = max(known) if high is None else high
    at = ticks(begin, end)
    begin, end = (at[0] if low is None else low), (at[-1] if high is None else high)
    left, right = _LABEL, WIDTH - _RIGHT - 8
    each = _ROW * len(series) + 8
    bottom = _TOP + each * len(rows)

    def px(v: float) -> float:
        return left + (right - left) * (v - begin) / ((end - begin) or 1.0)

    out = []
    for tick in at:
        if begin <= tick <= end:
            out.append(_line(px(tick), _TOP, px(tick), bottom, "grid"))
            out.append(_text(px(tick), bottom + 16, _number(tick), "middle"))
    out.append(_text((left + right) / 2, bottom + 36, x_label, "middle"))
    for i, name in enumerate(rows):
        y0 = _TOP + i * each
        out.append(_text(left - 8, y0 + each / 2 + 4, name, "end"))
        out.append(_line(0, y0 + each, WIDTH, y0 + each, "grid"))
        if target and target[i] is not None:
            out.append(_path([(px(target[i]), y0 + 2), (px(target[i]), y0 + each - 2)]))  # type: ignore[arg-type]
        for k, s in enumerate(series):
            value = s.values[i]
            if value is None:
                continue
            colour, y = COLOURS[s.colour % len(COLOURS)], y0 + 4 + _ROW * (k + 0.5)
            if s.low and s.low[i] is not None and s.high[i] is not None:
                out.append(
                    f'<line x1="{px(s.low[i]):.1f}" y1="{y:.1f}" x2="{px(s.high[i]):.1f}" '  # type: ignore[arg-type]
                    f'y2="{y:.1f}" stroke="{colour}" stroke-width="2"/>'
                )
            fill = "white" if s.dashed else colour
            out.append(
                f'<circle cx="{px(value):.1f}" cy="{y:.1f}" r="3.5" fill="{fill}" '
                f'stroke="{colour}" stroke-width="1.5"/>'
            )
    return _figure(title, series, out, bottom + _BOTTOM, has_target=bool(target))


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers that hold [low, high]."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** np.floor(np.log10(span / 5))
    step = next(step * k for k in (1, 2, 2.5, 5, 10) if span / (step * k) <= 6)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [float(round(k * step, 10)) for k in np.arange(first, last + 1)]


def _figure(
    title: str, series: Sequence[Series], body: Sequence[str], height: float, *, has_target: bool
) -> str:
    """The drawing under its legend."""
    legend, x, y = [], 4.0, 12.0
    entries = [(s.title, COLOURS[s.colour % len(COLOURS)], s.dashed) for s in series]
    for name, colour, dashed in [*entries, *([("target", "#444", True)] if has_target else [])]:
        width = _ENTRY + _CHAR * len(name)
        if x + width > WIDTH and x > 4:
            x, y = 4.0, y + 18
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        legend.append(
            f'<line x1="{x:.0f}" y1="{y - 4:.0f}" x2="{x + 20:.0f}" y2="{y - 4:.0f}" '
            f'stroke="{colour}" stroke-width="2.5"{dash}/>'
        )
        legend.append(_text(x + 25, y, name, "start"))
        x += width
    head = y + 8
    return (
        f'<svg viewBox="0 0 {WIDTH} {height + head:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(legend)}"
        f'<g transform="translate(0 {head:.0f})">{"".join(body)}</g></svg>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _path(at: Sequence[tuple[float, float]]) -> str:
    return f'<polyline class="target" points="{_points(at)}" fill="none"/>'


def _points(at: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in at)


def _number(value: float) -> str:
    return f"{value:g}"
