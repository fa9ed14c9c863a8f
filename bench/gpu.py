"""The pipeline on an NVIDIA GPU: latency, stages, throughput, memory, difference to the CPU."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.stages import find_photos

NAME = "gpu"
HELP = "latency, throughput and memory on an NVIDIA GPU, and the difference to the CPU"

PARITY_MM = 0.05  # of 99.9 % of the vertices
_MB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="as for stages")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--lanes",
        type=lambda text: [int(n) for n in text.split(",")],
        default=[1, 4, 16],
        metavar="N,N",
        help="photos worked on at once, for throughput (default: 1,4,16)",
    )
    parser.add_argument(
        "--device", choices=("cuda", "host"), default="cuda", help="host: the twin, to try this out"
    )


def run(options: argparse.Namespace) -> int:
    """Measure, print, and write what was asked for."""
    from extreme3d_fast.errors import DeviceUnavailable

    photos = [p or machine.astronaut() for p in find_photos(options.photos)]
    try:
        report = {
            "command": NAME,
            "machine": machine.describe(),
            "gpu": describe_gpu(options.device),
            "photos": len(photos),
            "repeat": options.repeat,
            "latency": latency(options.device, photos, options.repeat),
            "parity": parity(options.device, photos),
            "throughput": {
                str(n): throughput(options.device, photos, options.repeat, n) for n in options.lanes
            },
        }
    except DeviceUnavailable as error:
        print(error)
        return 1
    print(table(report))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def describe_gpu(kind: Any) -> dict[str, Any]:
    """Name, memory, and what runs the networks."""
    from extreme3d_fast.device import Device

    found = Device(kind).ops.devices()
    if not found:
        return {"name": "the twin on the host"}
    name, major, minor, memory = found[0]
    return {"name": name, "compute_capability": f"{major}.{minor}", "memory_mb": memory // _MB}


def opened(device: str, lanes: int = 1) -> Any:
    from extreme3d_fast import Reconstructor

    return Reconstructor(device=device, lanes=lanes)  # type: ignore[arg-type]


def latency(device: str, photos: Sequence[Any], repeat: int) -> dict[str, Any]:
    """ms of `reconstruct` and of its stages; first calls, which load and record, do not count."""
    from extreme3d_fast import NoFaceFound

    started = time.perf_counter()
    reconstructor = opened(device)
    opening = time.perf_counter() - started
    timings: list[dict[str, float]] = []
    first = 0.0
    for round_ in range(-2, repeat):
        for photo in photos:
            started = time.perf_counter()
            try:
                face = reconstructor.reconstruct(photo)
            except NoFaceFound:
                continue
            total = 1e3 * (time.perf_counter() - started)
            first = first or total
            if round_ >= 0:
                timings.append({**face.timings, "total": total})
    names = dict.fromkeys(name for row in sorted(timings, key=len)[::-1] for name in row)
    order = [*[n for n in names if n != "total"], "total"]
    return {
        "runtime": reconstructor.runtime,
        "open_s": round(opening, 2),
        "first_ms": round(first, 1),
        "stages": {n: percentiles([row[n] for row in timings if n in row]) for n in order},
    }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and number of values."""
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3), "n": len(values)}


def throughput(device: str, photos: Sequence[Any], repeat: int, lanes: int) -> dict[str, float]:
    """Faces a second of `reconstruct_batch`, and the GPU memory that it takes."""
    reconstructor = opened(device, lanes)
    work = list(photos) * max(1, -(-4 * lanes // len(photos)))
    warm = list(reconstructor.stream(work, missing="none"))
    memory = memory_used(device)
    rates = []
    for _ in range(max(2, repeat // 2)):
        started = time.perf_counter()
        faces = list(reconstructor.stream(work, missing="none"))
        rates.append(len(faces) / (time.perf_counter() - started))
    assert len(warm) == len(work)
    return {
        "faces_per_s": round(float(np.median(rates)), 1),
        "best": round(max(rates), 1),
        "gpu_memory_mb": memory,
    }


def memory_used(kind: Any) -> int:
    """MB of the GPU in use by everything on it, this process's driver context included."""
    from extreme3d_fast.device import Device

    free, total = Device(kind).ops.memory()
    return (total - free) // _MB


def parity(device: str, photos: Sequence[Any]) -> dict[str, Any]:
    """How far the GPU's faces are from the CPU's.

    Vertices are compared one by one where the two meshes have the same ones, else each vertex of
    the GPU's with the nearest of the CPU's.
    """
    from scipy.spatial import cKDTree

    from extreme3d_fast import NoFaceFound

    on_cpu, on_gpu = opened("cpu"), opened(device)
    rows = []
    for photo in photos:
        try:
            want, got = on_cpu.reconstruct(photo), on_gpu.reconstruct(photo)
        except NoFaceFound:
            continue
        same = len(want.vertices) == len(got.vertices)
        if same:
            gap = np.linalg.norm(want.vertices - got.vertices, axis=1)
        else:
            gap = cKDTree(want.vertices).query(got.vertices)[0]
        rows.append(
            {
                "same_vertices": same,
                "within": float(np.mean(gap <= PARITY_MM)),
                "p50_mm": float(np.median(gap)),
                "p99_mm": float(np.quantile(gap, 0.99)),
                "p99.9_mm": float(np.quantile(gap, 0.999)),
                "max_mm": float(gap.max()),
                "identity": float(np.abs(want.identity - got.identity).max()),
                "bump_mm": float(np.quantile(np.abs(want.bump - got.bump), 0.999)),
                "mask_px": int((want.face_mask != got.face_mask).sum()),
                "warnings": list(want.warnings) == list(got.warnings),
            }
        )
    middle: Callable[[str], float] = lambda key: round(  # noqa: E731
        float(np.median([row[key] for row in rows])), 4
    )
    return {
        "photos": rows,
        "median": {k: middle(k) for k in rows[0] if k not in ("same_vertices", "warnings")},
    }


def table(report: Mapping[str, Any]) -> str:
    """The report for people."""
    gpu, about = report["gpu"], report["machine"]
    lines = [f"{'stage':<16}{'p50 ms':>10}{'p95 ms':>10}{'n':>6}"]
    for name, row in report["latency"]["stages"].items():
        lines.append(f"{name:<16}{row['p50']:>10.2f}{row['p95']:>10.2f}{row['n']:>6}")
    lines.append(
        f"opened in {report['latency']['open_s']} s, first photo {report['latency']['first_ms']} ms"
    )
    for lanes, row in report["throughput"].items():
        lines.append(
            f"{lanes} lanes: {row['faces_per_s']} faces/s, {row['gpu_memory_mb']} MB of the GPU"
        )
    median = report["parity"]["median"]
    lines.append(
        "against the CPU, median photo: " + ", ".join(f"{k} {v}" for k, v in median.items())
    )
    lines.append(f"networks: {report['latency']['runtime']}")
    lines.append(f"{gpu['name']}; {about['cpu']}, {about['cores']} cores, load {about['load']}")
    return "\n".join(lines)
