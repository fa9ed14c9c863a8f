"""How long networks and landmark fit take, how long detail takes, and how large the files are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.face_views import view_face
from bench.pasting import Occluders
from bench.photos import held_out_photos
from bench.stages import SECTION_4_2, TARGET_4_2_MS, of_section_4_2
from bench.stats import quartiles
from bench.tables import Context, missing_lines
from bench.timing import milliseconds, spread

NAME = "time"
HELP = "ms of the networks, of the landmark fit and of detail, sizes of the files"

PHOTOS = 40
STAGES = ("detect", "landmarks", "pose", "foundation", "fit")
NETWORKS = ("pose", "foundation")
TARGET_MS = 20.0  # both networks on two cores
TARGET_MB = 20.0
BUMP_FILE = "bump.onnx"
TARGET_BUMP_MS = 60.0  # on two cores, the whole map
TARGET_BUMP_MB = 12.0
COVERED = 0.3  # share of the face's box that is covered for the times of section 4.2
MAP_SIDE = 512  # px of the network's map; the pipeline runs a window of it


def measure(context: Context) -> dict[str, Any]:
    from extreme3d_fast import NoFaceFound

    photos = held_out_photos(context.data)
    rows = np.random.default_rng(context.seed).permutation(len(photos))
    photos = [photos[i] for i in rows[: 2 if context.quick else PHOTOS]]
    images = [photo.read() for photo in photos]
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

    threads = context.reconstructor.threads
    assets = Path(extreme3d_fast.__file__).parent / "assets"
    views = [v for v in (view_face(context.reconstructor, image) for image in images) if v]
    detail: dict[str, list[float]] = {}
    for title, source in context.sources[0].items():
        detail[title] = [milliseconds(lambda s=source, v=view: s(v)) for view in views]
    if (assets / BUMP_FILE).exists():
        whole = whole_map(context.open_network(assets / BUMP_FILE))
        whole()
        detail[f"network, {MAP_SIDE} px"] = [milliseconds(whole) for _ in views]
    occluders = Occluders(context.data / "occluders")
    covered = [
        occluders.cover(
            image, photo.box, COVERED, np.random.default_rng([context.seed, photo.key])
        )[0]
        for photo, image in zip(photos, images, strict=True)
    ]
    sizes = {p.name: round(p.stat().st_size / 1e6, 2) for p in sorted(assets.glob("*.onnx"))}
    return {
        "threads": threads,
        "columns": columns,
        "detail": of_stages(
            [{title: times[i] for title, times in detail.items()} for i in range(len(views))]
        ),
        "occlusion": of_stages(of_occlusion(context.reconstructor, covered)),
        "missing": context.sources[1],
        "megabytes": sizes,
    }


def of_occlusion(reconstructor: Any, images: list[np.ndarray]) -> list[dict[str, float]]:
    """ms of the stages of section 4.2 on each photo; the whole where a reference filled it."""
    from extreme3d_fast import NoFaceFound

    timings = []
    for i, image in enumerate([images[0], *images]):
        try:
            stages = reconstructor.reconstruct(image).timings
        except NoFaceFound:
            continue
        if i == 0:  # the first run also reads and prepares
            continue
        row = {name: stages[name] for name in SECTION_4_2 if name in stages}
        whole = of_section_4_2(stages)
        timings.append(row if whole is None else {**row, "whole": whole})
    return timings


def whole_map(session: Any) -> Callable[[], Any]:
    """A run of the bump-map network alone, on all of its map."""
    channels = int(session.metadata["channels"])
    image = np.zeros((1, channels, MAP_SIDE, MAP_SIDE), np.float32)
    return lambda: session.run({"image": image})


def of_stages(timings: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Median and quartiles of each stage, ms."""
    out = {}
    for name in dict.fromkeys(name for row in timings for name in row):
        values = [row[name] for row in timings if name in row]
        out[name] = quartiles(values)
    return out


def lines(report: Mapping[str, Any]) -> list[str]:
    out = [f"ms with {report['threads']} threads: median (quartiles)"]

    def add(title: str, name: str, ms: Mapping[str, Any], target: float | None) -> None:
        said = "" if target is None else f"   target {target:.0f}"
        out.append(f"{title:<16}{name:<16}{spread(ms, '.1f'):>22}{ms['n']:>5}{said}")

    for title, stages in report["columns"].items():
        for name, ms in stages.items():
            add(title, name, ms, TARGET_MS if name == "both networks" else None)
    for name, ms in report["detail"].items():
        add("detail", name, ms, TARGET_BUMP_MS if name.startswith("network,") else None)
    for name, ms in report["occlusion"].items():
        add("occlusion", name, ms, TARGET_4_2_MS if name == "whole" else None)
    out.append(f"occlusion: photos covered by {COVERED:.0%}; whole: those filled from a reference")
    out.append(
        "detail: each source as a whole with face mask and filling, the network on its window; "
        f"network, {MAP_SIDE} px: its run alone"
    )
    files = ", ".join(f"{name} {size:.1f}" for name, size in report["megabytes"].items())
    out.append(
        f"MB: {files}; target for pose and foundation {TARGET_MB:.0f}, bump {TARGET_BUMP_MB:.0f}"
    )
    return out + missing_lines(report)
