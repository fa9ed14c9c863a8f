"""Relief, its normals and what albedo leaks into it, on rendered heads with known relief."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import details
from bench.bands import relief_band
from bench.face_views import FaceView, into_crop, view_face
from bench.relief import (
    Truth,
    angle_error,
    camera_in_crop,
    normals_of_depth,
    rms,
    truth_in_crop,
)
from bench.stats import ratio, summary
from bench.tables import Context, between, lower, missing_lines

NAME = "relief"
HELP = "error of relief and normals on heads with known relief, and leaks of albedo patterns"

FILE = "relief_bench.npz"  # in the folder of --synthetic
YAWS = (0, 30, 60)  # degrees: a head belongs to the nearest
TARGET = 35  # % below the foundation, angles
TARGET_LEAK = 25  # % of the shading rule's

# What normals and relief are held against. In the first the foundation is the head itself without
# its relief; in the others it is ours, with its errors of shape and pose.
PUT_ON, GAP, DEPTH = "relief put on", "gap in the band", "true depth"
TRUTHS = {
    PUT_ON: "the relief put on the head, with the head without it as the foundation",
    GAP: "all that lies between our foundation and the true face, band of bump maps",
    DEPTH: "the true depth as it is, from our foundation",
}


@dataclass(frozen=True, eq=False)
class Head:
    """One rendered head; pictures and maps of the same pixels."""

    relief: np.ndarray  # (S, S, 3) uint8 RGB, with relief and albedo pattern
    pattern: np.ndarray  # (S, S, 3) with the pattern alone
    plain: np.ndarray  # (S, S, 3) with neither
    depth: np.ndarray  # (S, S) mm with relief, inf outside
    depth_smooth: np.ndarray  # (S, S) mm without
    face: np.ndarray  # (S, S) bool, the pixel shows the face: no hair, no background
    camera: Any
    yaw: float  # degrees


def read_heads(path: Path, count: int | None = None) -> list[Head]:
    from extreme3d_fast.camera import Camera

    with np.load(path) as data:
        maps = {
            name: data[name][:count]
            for name in (
                "photo_relief",
                "photo_pattern",
                "photo_plain",
                "depth",
                "depth_smooth",
                "face",
            )
        }
        cameras, yaws = data["camera"][:count].astype(float), data["yaw"][:count]
    size = maps["depth"].shape[1]
    return [
        Head(*layers, Camera(*map(float, camera), size, size), float(yaw))
        for *layers, camera, yaw in zip(*maps.values(), cameras, yaws, strict=True)
    ]


def measure(context: Context) -> dict[str, Any]:
    sources, missing = context.sources
    path = None if context.synthetic is None else context.synthetic / FILE
    if path is None or not path.exists():
        return {"why": f"needs --synthetic DIR with {FILE}", "missing": missing}
    heads = read_heads(path)
    if context.quick:
        heads = heads[:2]
    records, lost = [], 0
    for head in heads:
        record: dict[str, Any] = {"yaw": min(YAWS, key=lambda y: abs(y - abs(head.yaw)))}
        view = view_face(context.reconstructor, head.relief)
        plain = view_face(context.reconstructor, head.plain)
        if view is None or plain is None:
            lost += 1
            continue
        truth = truth_in_crop(view, np.where(head.face, head.depth, np.inf), head.camera)
        own = on_own_foundation(head, view)
        put_on = truth_in_crop(own, np.where(head.face, head.depth, np.inf), head.camera)
        record["true_rms_mm"] = {
            PUT_ON: round(rms(put_on.relief(), put_on.judged), 4),
            GAP: round(rms(truth.relief(), truth.judged), 4),
        }
        record["columns"] = {
            title: {
                **errors(view, source(view).bump, truth, own, source(own).bump, put_on),
                "leak_mm": round(leak(source, plain, head), 4),
            }
            for title, source in sources.items()
        }
        records.append(record)
    return {
        "records": records,
        "lost": lost,
        "missing": missing,
        "columns": of_columns(records),
    }


def on_own_foundation(head: Head, view: FaceView) -> FaceView:
    """The view whose foundation is the head without its relief, in the same crop."""
    depth = into_crop(head.depth_smooth, view.crop_from_image, view.size)
    known = np.isfinite(depth)
    return replace(
        view,
        depth=np.where(known, depth, np.inf).astype(np.float32),
        weight=np.where(known, view.weight, 0).astype(np.float32),
        camera=camera_in_crop(head.camera, view.crop_from_image, view.size),
    )


def errors(
    view: FaceView,
    bump: np.ndarray,
    truth: Truth,
    own: FaceView,
    own_bump: np.ndarray,
    put_on: Truth,
) -> dict[str, dict[str, float]]:
    """RMS in mm and mean angle in degrees against each truth."""

    def off(bump: np.ndarray, truth: Truth) -> float:
        banded = relief_band(bump, truth.known, truth.mm_per_pixel)
        return round(rms(banded - truth.relief(), truth.judged), 4)

    def angle(view: FaceView, bump: np.ndarray, truth: Truth) -> float:
        of_band = normals_of_depth(view.depth + truth.relief(), view.camera)
        return round(angle_error(view, bump, of_band, truth.judged), 4)

    return {
        "rms_mm": {PUT_ON: off(own_bump, put_on), GAP: off(bump, truth)},
        "angle": {
            PUT_ON: angle(own, own_bump, put_on),
            GAP: angle(view, bump, truth),
            DEPTH: round(angle_error(view, bump, truth.normal, truth.judged), 4),
        },
    }


def leak(source: details.Source, plain: FaceView, head: Head) -> float:
    """RMS in mm of what an albedo pattern changes in the relief of one foundation."""
    change = source(plain.of_photo(head.pattern)).bump - source(plain).bump
    seen = into_crop(head.face, plain.crop_from_image, plain.size) > 0.99
    inside = np.isfinite(plain.depth) & (plain.weight > 0) & seen
    return rms(
        relief_band(change, inside, plain.mm_per_pixel), inside & plain.face & plain.in_photo
    )


def of_columns(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per |yaw| and over all: errors, how far below the foundation's, and leaks."""
    groups = {f"yaw {y}": [r for r in records if r["yaw"] == y] for y in YAWS}
    groups["all"] = records
    out: dict[str, dict[str, Any]] = {}
    for title in dict.fromkeys(t for r in records for t in r["columns"]):
        out[title] = {}
        for group, rows in groups.items():
            own = [r["columns"][title] for r in rows]
            base = [r["columns"][details.FOUNDATION] for r in rows]
            rule = [r["columns"].get(details.RULE) for r in rows]
            cell: dict[str, Any] = {"leak_mm": summary([o["leak_mm"] for o in own])}
            if all(rule) and rule:
                share = ratio([o["leak_mm"] for o in own], [r["leak_mm"] for r in rule if r])
                value = share["value"]
                cell["leak_of_rule"] = None if value is None else round(100 * value, 2)
                cell["leak_of_rule_interval"] = share
            for key in ("rms_mm", "angle"):
                for truth in own[0][key] if own else ():
                    cell[f"{key}/{truth}"] = {
                        "value": summary([o[key][truth] for o in own]),
                        "lower": summary(
                            [
                                lower(o[key][truth], b[key][truth])
                                for o, b in zip(own, base, strict=True)
                            ]
                        ),
                    }
            out[title][group] = cell
    return out


def lines(report: Mapping[str, Any]) -> list[str]:
    if "why" in report:
        return [report["why"]]
    columns = report["columns"]
    if not columns:
        return [f"no face found in {report['lost']} heads", *missing_lines(report)]
    names = list(next(iter(columns.values())))
    width = 34
    out = [
        "face weight above 0.5; mean [median] (mean % below the foundation alone, its 95 % "
        f"interval); {report['lost']} heads without a face",
        f"{'':<16}" + "".join(f"{name:>{width}}" for name in names),
        f"{'  n':<16}"
        + "".join(f"{c['leak_mm']['n']:>{width}}" for c in next(iter(columns.values())).values()),
    ]
    for key, name in (("angle", "angle in degrees"), ("rms_mm", "RMS error in mm")):
        for truth, text in TRUTHS.items():
            if f"{key}/{truth}" not in next(iter(columns.values()))["all"]:
                continue
            out.append(f"{name} to {text}:")
            for title, cells in columns.items():
                values = [_cell(cells[g].get(f"{key}/{truth}")) for g in names]
                out.append(f"{title:<16}" + "".join(f"{v:>{width}}" for v in values))
    out.append(f"target: angle to {PUT_ON} >= {TARGET} % below the foundation")
    out.append(
        "the heads are new, but wrinkles and patterns are drawn by what drew the network's training"
    )
    out.append(
        "relief of the pattern less that of the plain face, RMS in mm (% of the rule's, interval):"
    )
    for title, cells in columns.items():
        out.append(f"{title:<16}" + "".join(f"{_leak(cells[g]):>{width}}" for g in names))
    out.append(f"target: <= {TARGET_LEAK} % of the shading rule's")
    return out + missing_lines(report)


def _cell(c: Mapping[str, Any] | None) -> str:
    if c is None or c["value"]["mean"] is None:
        return "-"
    v, p = c["value"], c["lower"]
    return f"{v['mean']:.2f} [{v['median']:.2f}] ({p['mean']:.0f}, {between(p, 0, to=' to ')})"


def _leak(c: Mapping[str, Any]) -> str:
    if c["leak_mm"]["mean"] is None:
        return "-"
    share = c.get("leak_of_rule")
    text = f"{c['leak_mm']['mean']:.3f}"
    if share is None:
        return text
    return f"{text} ({share:.0f}, {between(c['leak_of_rule_interval'], 0, scale=100, to=' to ')})"
