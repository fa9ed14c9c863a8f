"""The pipeline on an NVIDIA GPU: latency, stages, throughput, memory, difference to the CPU."""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.options import positive
from bench.stages import find_photos
from bench.timing import milliseconds

NAME = "gpu"
HELP = "latency, throughput and memory on an NVIDIA GPU, and the difference to the CPU"

PARITY_MM = 0.05  # the share of the vertices within it is told
_MB = 1 << 20
_FEW = 8  # photos that single operations are timed on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="as for stages")
    parser.add_argument("--repeat", type=positive, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--lanes",
        type=lambda text: [positive(n) for n in text.split(",")],
        default=[1, 4, 16],
        metavar="N,N",
        help="photos worked on at once, for throughput (default: 1,4,16)",
    )


def run(options: argparse.Namespace) -> int:
    """Measure, print, and write what was asked for."""
    from extreme3d_fast.errors import DeviceUnavailable

    photos = [p or machine.astronaut() for p in find_photos(options.photos)]
    try:
        with machine.Watch() as watch:
            report = {
                "command": NAME,
                "machine": machine.describe(),
                "gpu": describe_gpu(),
                "photos": len(photos),
                "repeat": options.repeat,
                "latency": latency(photos, options.repeat),
                "parity": parity(photos),
                "operations_us": operations(photos[:_FEW]),
                "throughput": {
                    str(n): throughput(photos, options.repeat, n) for n in options.lanes
                },
            }
    except DeviceUnavailable as error:
        print(error)
        return 1
    report["watch"] = watch.report
    print(table(report))
    machine.write(report, options.json)
    return 0


def describe_gpu() -> dict[str, Any]:
    """Name, compute capability and memory."""
    from extreme3d_fast.device import Device

    name, major, minor, memory = Device("cuda").ops.devices()[0]
    return {"name": name, "compute_capability": f"{major}.{minor}", "memory_mb": memory // _MB}


def opened(device: str, lanes: int = 1) -> Any:
    from extreme3d_fast import Reconstructor

    return Reconstructor(device=device, lanes=lanes)  # type: ignore[arg-type]


def latency(photos: Sequence[Any], repeat: int) -> dict[str, Any]:
    """ms of `reconstruct` and of its stages; first calls, which load and record, do not count."""
    from extreme3d_fast import NoFaceFound

    started = time.perf_counter()
    reconstructor = opened("cuda")
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


def throughput(photos: Sequence[Any], repeat: int, lanes: int) -> dict[str, float]:
    """Faces a second of `reconstruct_batch`, and the GPU memory that it takes."""
    gc.collect()  # what was measured before
    reconstructor = opened("cuda", lanes)
    work = list(photos) * max(1, -(-4 * lanes // len(photos)))
    warm = list(reconstructor.stream(work, missing="none"))
    memory = memory_used()
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


def memory_used() -> int:
    """MB of the GPU in use by everything on it, this process's driver context included."""
    from extreme3d_fast.device import Device

    free, total = Device("cuda").ops.memory()
    return (total - free) // _MB


def parity(photos: Sequence[Any]) -> dict[str, Any]:
    """How far the GPU's faces are from the CPU's: each vertex from the nearest of the CPU's.

    The two meshes seldom have the same vertices: where a pixel more shows the face, there is one
    more.
    """
    from scipy.spatial import cKDTree

    from extreme3d_fast import NoFaceFound

    on_cpu, on_gpu = opened("cpu"), opened("cuda")
    rows = []
    for photo in photos:
        try:
            want, got = on_cpu.reconstruct(photo), on_gpu.reconstruct(photo)
        except NoFaceFound:
            continue
        gap = cKDTree(want.vertices).query(got.vertices)[0]
        rows.append(
            {
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
        "median": {k: middle(k) for k in rows[0] if k != "warnings"},
    }


class _Clock:
    """Times each operation of a module or of an object by itself: wait, call, wait."""

    def __init__(self, inner: Any, name: str, wait: Callable[[], None], us: dict[str, list[float]]):
        self._inner, self._name, self._wait, self._us = inner, name, wait, us

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if not callable(call):
            return call

        def timed(*arguments: Any, **named: Any) -> Any:
            self._wait()
            started = time.perf_counter()
            result = call(*arguments, **named)
            self._wait()
            took = 1e6 * (time.perf_counter() - started)
            self._us.setdefault(f"{self._name}{name}", []).append(took)
            return result

        return timed


def operations(photos: Sequence[Any]) -> dict[str, float]:
    """Median µs of each recorded piece of work, and of each operation by itself, whose launch and
    the wait after it are counted in: see `nothing`."""
    from extreme3d_fast import HeadModel
    from extreme3d_fast.device_pipeline import device_lanes
    from extreme3d_fast.image_io import load_image
    from extreme3d_fast.lane import PipelineOptions

    lane = device_lanes(HeadModel.load(), PipelineOptions(), 1)[0]
    device, us = lane._device, {}

    def reconstruct(photo: Any) -> None:
        picture = load_image(photo)
        lane.begin()
        found = lane.estimator.find(picture, lambda _, stage: stage)
        if found:
            estimate = lane.estimator.estimate(picture, found[0], 500, lambda _, stage: stage)
            lane.reconstruct(picture, *estimate, {})

    for photo in [*photos, *photos]:  # loaded, then recorded
        reconstruct(photo)
    recorded = [name for name in vars(lane) if name.endswith("_work")]
    for name in recorded:
        work = getattr(lane, name)
        us[f"graph {name.strip('_')}"] = [
            1e3 * milliseconds(work, wait=device.wait) for _ in range(20)
        ]
        setattr(lane, name, getattr(lane, name.removesuffix("_work")))
    ops = device.ops

    def nothing() -> None:
        ops.fill_bytes(lane._b.n_dense, 0, device.stream)

    us["nothing"] = [1e3 * milliseconds(nothing, wait=device.wait) for _ in range(50)]
    device.ops = _Clock(ops, "", lambda: ops.wait(device.stream), us)
    for name, value in list(vars(lane).items()):
        if type(value).__module__ == ops.__name__:
            setattr(lane, name, _Clock(value, f"{name}.", lambda: ops.wait(device.stream), us))
    for photo in photos:
        reconstruct(photo)
    device.ops = ops
    skip = {"wait", "shape", "slice", "set_device", "is_capturing", "pointer", "empty"}
    return {
        name.strip("_"): round(float(np.median(values)), 1)
        for name, values in sorted(us.items(), key=lambda item: -float(np.median(item[1])))
        if name not in skip
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
    lines += [f"{us:>10.1f} µs  {name}" for name, us in report["operations_us"].items()]
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
    total = report["latency"]["stages"]["total"]
    rates = (f"{row['faces_per_s']} faces/s with {n}" for n, row in report["throughput"].items())
    lines.append(
        machine.headline(
            f"{total['p50']:.1f} ms a photo (p95 {total['p95']:.1f}); lanes: {', '.join(rates)}",
            report["watch"],
        )
    )
    return "\n".join(lines)
