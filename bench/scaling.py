"""How the time of each stage grows with the pixels of the crop and the vertices of the head.

Each size has a reconstructor of its own, warm before it counts; all take turns on the same photos.
An exponent e is that of ms = c n^e, fitted to the logarithms of the medians; a stage with a
constant part shows less than its own at small sizes, so the slope of the last step stands beside.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bench import machine
from bench.heads import BUILT_IN_LEVEL, LEVELS, head_at
from bench.stats import quartiles
from bench.timing import in_turn

SIZES = (250, 350, 500, 700, 1000, 1400, 2000)
SIZE = 500  # px of the crop while the head changes
PHOTOS = 3  # spread over those that there are


def add_arguments(parser: argparse.ArgumentParser) -> None:
    def integers(text: str) -> list[int]:
        return [int(n) for n in text.split(",")]

    group = parser.add_argument_group("scaling")
    group.add_argument(
        "--scaling",
        action="store_true",
        help=f"instead: ms of each stage by crop size and head, fitted exponents, on {PHOTOS} of "
        "the photos; needs scipy",
    )
    group.add_argument(
        "--sizes",
        type=integers,
        default=list(SIZES),
        metavar="PX,PX",
        help=f"sides of the crop (default: {','.join(map(str, SIZES))})",
    )
    group.add_argument(
        "--levels",
        type=integers,
        default=list(LEVELS),
        metavar="N,N",
        help=f"subdivisions of the head, 0 to {LEVELS[-1]} (default: all)",
    )


def refusal(options: argparse.Namespace) -> str | None:
    """Why these options cannot be measured; None if they can."""
    try:
        import scipy  # noqa: F401
    except ModuleNotFoundError:
        return "--scaling needs scipy: pip install .[bench]"
    if not set(options.levels) <= set(LEVELS):
        return f"--levels: expected some of {LEVELS}, got {options.levels}"
    if not all(64 <= size <= 4096 for size in options.sizes):
        return f"--sizes: expected 64 to 4096 px, got {options.sizes}"
    return None


def some(photos: Sequence[str]) -> list[str]:
    """At most `PHOTOS` of them, spread evenly."""
    return list(photos[:: max(1, len(photos) // PHOTOS)][:PHOTOS])


def measure(
    photos: Sequence[str], sizes: Sequence[int], levels: Sequence[int], rounds: int, threads: int
) -> dict[str, Any]:
    """Both series: `pixels` on the built-in head's skin, `vertices` in crops of `SIZE` px."""
    from extreme3d_fast import Reconstructor

    heads = {level: head_at(level) for level in dict.fromkeys([*levels, BUILT_IN_LEVEL])}
    sources = [photo or machine.astronaut() for photo in photos]

    def opened(size: int, level: int) -> Any:
        return Reconstructor(threads=threads, crop_size=size, head_model=heads[level])

    by_size = {n * n: lambda n=n: opened(n, BUILT_IN_LEVEL) for n in sorted(sizes)}
    by_head = {heads[n].vertex_count: lambda n=n: opened(SIZE, n) for n in sorted(levels)}
    return {
        "pixels": series(by_size, sources, rounds),
        "vertices": series(by_head, sources, rounds),
    }


def series(
    openers: Mapping[int, Callable[[], Any]], photos: Sequence[Any], rounds: int
) -> dict[str, Any]:
    """ms of each stage at each size, and what went wrong where.

    Args:
        openers: by size (pixels, vertices), ascending: opens a reconstructor.
        photos: sources.
        rounds: times that each photo counts.
    """
    failed: dict[str, str] = {}
    results: dict[str, Any] = {}
    rows: dict[int, list[dict[str, float]]] = {}
    calls: dict[str, Callable[[], Any]] = {}
    for size, opener in openers.items():
        try:
            reconstructor = opener()
            faces = [reconstructor.reconstruct(photo) for photo in photos]
        except Exception as error:  # a size that breaks is a result, and the others go on
            failed[str(size)] = f"{type(error).__name__}: {error}"
            continue
        results[str(size)] = [_checked(face) for face in faces]
        rows[size] = []

        def call(reconstructor: Any = reconstructor, into: Any = rows[size]) -> None:
            for photo in photos:
                # stages run beside each other: their sum is more than the whole
                started = time.perf_counter()
                timings = reconstructor.reconstruct(photo).timings
                into.append({**timings, "total": 1e3 * (time.perf_counter() - started)})

        calls[str(size)] = call
    in_turn(calls, rounds=rounds, warm_up=0)  # each has run once
    names = dict.fromkeys(n for of_size in rows.values() for row in of_size for n in row)
    stages = {}
    for name in [*(n for n in names if n != "total"), *(n for n in names if n == "total")]:
        ms = {s: quartiles([r[name] for r in of_size if name in r]) for s, of_size in rows.items()}
        ms = {size: q for size, q in ms.items() if q["n"]}
        medians = [float(q["median"] or 0.0) for q in ms.values()]
        fit = exponent(list(ms), medians)
        stages[name] = {"ms": {str(size): q for size, q in ms.items()}, **fit}
    return {"sizes": list(openers), "stages": stages, "results": results, "failed": failed}


def exponent(sizes: Sequence[float], ms: Sequence[float]) -> dict[str, float | int | None]:
    """Exponent e of ms = c size^e, its 95 % interval, and that between the last two sizes.

    Least squares on logarithms; the interval is that of Student's t, None of fewer than 3 sizes.
    """
    from scipy.stats import t

    x, y = np.log(np.asarray(sizes, np.float64)), np.log(np.maximum(ms, 1e-6))
    n = len(x)
    if n < 2:
        return {"exponent": None, "low": None, "high": None, "last": None, "n": n}
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    last = float((y[-1] - y[-2]) / (x[-1] - x[-2]))
    low = high = None
    if n > 2:
        rest = y - y.mean() - slope * (x - x.mean())
        half = float(t.ppf(0.975, n - 2)) * float(np.sqrt((rest**2).sum() / (n - 2) / spread))
        low, high = round(slope - half, 3), round(slope + half, 3)
    return {"exponent": round(slope, 3), "low": low, "high": high, "last": round(last, 3), "n": n}


def _checked(face: Any) -> dict[str, Any]:
    """What came out at a size: a mesh that is broken there is worth no time."""
    from extreme3d_fast.mesh import mesh_report

    report = mesh_report(face.vertices, face.faces)
    return {
        "valid": report.is_valid,
        **dataclasses.asdict(report),
        "warnings": list(face.warnings),
    }


def broken(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Sizes whose meshes are not one finite, oriented, manifold piece."""
    return [
        f"{size} on photo {i}: {result}"
        for size, of_size in results.items()
        for i, result in enumerate(of_size)
        if not result["valid"]
    ]


def table(report: Mapping[str, Any]) -> str:
    """Both series for people."""
    lines = []
    for kind in ("pixels", "vertices"):
        of_kind = report[kind]
        done = [str(s) for s in of_kind["sizes"] if str(s) in of_kind["results"]]
        if not done:
            continue
        lines.append(f"ms by {kind}")
        lines.append(
            f"{'stage':<14}"
            + "".join(f"{int(s):>10,}" for s in done)
            + f"{'exponent (95 %)':>24}{'last':>7}"
        )
        for name, s in of_kind["stages"].items():
            cells = (s["ms"].get(size, {}).get("median") for size in done)
            lines.append(
                f"{name:<14}"
                + "".join(f"{'-' if ms is None else format(ms, '.2f'):>10}" for ms in cells)
                + f"{_interval(s):>24}{_number(s['last']):>7}"
            )
        lines += [f"failed at {size}: {why}" for size, why in of_kind["failed"].items()]
        lines += [f"broken mesh at {line}" for line in broken(of_kind["results"])]
        lines.append("")
    total = report["pixels"]["stages"].get("total")
    if total:
        text = f"the whole grows as pixels^{_interval(total)}"
        if "total" in report["vertices"]["stages"]:
            text += f", as vertices^{_interval(report['vertices']['stages']['total'])}"
        lines.append(machine.headline(text, report["watch"]))
    return "\n".join(lines)


def _interval(fit: Mapping[str, Any]) -> str:
    if fit["exponent"] is None:
        return "-"
    if fit["low"] is None:
        return _number(fit["exponent"])
    return f"{fit['exponent']:.2f} ({fit['low']:.2f}-{fit['high']:.2f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
