"""How long networks and landmark fit take, and how large the shipped files are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.photos import held_out_photos
from bench.tables import Context

NAME = "time"
HELP = "ms of the networks and of the landmark fit, sizes of the files"

PHOTOS = 40
STAGES = ("detect", "landmarks", "pose", "foundation", "fit")
NETWORKS = ("pose", "foundation")
TARGET_MS = 20.0  # both networks on two cores
TARGET_MB = 20.0


def measure(context: Context) -> dict[str, Any]:
    from extreme3d_fast import NoFaceFound

    photos = held_out_photos(context.data)
    rows = np.random.default_rng(context.seed).permutation(len(photos))
    images = [photos[i].read() for i in rows[: 2 if context.quick else PHOTOS]]
    columns = {}
    for title, column in context.columns.items():
        timings: list[dict[str, float]] = []
        column(images[0])  # the first run also reads and prepares
        for image in images:
            started = time.perf_counter()
            if column(image) is None:
                continue
            whole = 1e3 * (time.perf_counter() - started)
            try:
                stages = column.reconstructor.reconstruct(image).timings
            except NoFaceFound:
                continue
            row = {name: stages[name] for name in STAGES if name in stages}
            if all(name in stages for name in NETWORKS):
                row["both networks"] = sum(stages[name] for name in NETWORKS)
            timings.append({**row, "whole estimate": whole})
        columns[title] = of_stages(timings)
    import extreme3d_fast

    assets = Path(extreme3d_fast.__file__).parent / "assets"
    sizes = {p.name: round(p.stat().st_size / 1e6, 2) for p in sorted(assets.glob("*.onnx"))}
    threads = next(iter(context.columns.values())).reconstructor.threads
    return {"threads": threads, "columns": columns, "megabytes": sizes}


def of_stages(timings: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median and quartiles of each stage, ms."""
    out = {}
    for name in dict.fromkeys(name for row in timings for name in row):
        values = [row[name] for row in timings if name in row]
        q1, q2, q3 = np.percentile(values, [25, 50, 75])
        out[name] = {
            "median": round(float(q2), 2),
            "q1": round(float(q1), 2),
            "q3": round(float(q3), 2),
            "n": len(values),
        }
    return out


def lines(report: Mapping[str, Any]) -> list[str]:
    out = [f"ms with {report['threads']} threads: median (quartiles)"]
    for title, stages in report["columns"].items():
        for name, s in stages.items():
            target = f"   target {TARGET_MS:.0f}" if name == "both networks" else ""
            spread = f"({s['q1']:.1f}-{s['q3']:.1f})"
            out.append(f"{title:<16}{name:<16}{s['median']:>8.1f} {spread:<14}{s['n']:>5}{target}")
    files = ", ".join(f"{name} {size:.1f}" for name, size in report["megabytes"].items())
    out.append(f"MB: {files}; target for both new networks {TARGET_MB:.0f}")
    return out
