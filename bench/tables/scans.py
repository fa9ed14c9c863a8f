"""How far real scans lie from the foundation that a picture of them gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from bench.pasting import Occluders
from bench.photos import held_out_photos
from bench.scan_files import load_folder
from bench.scan_views import FACE_RADIUS, Scan, face_surface, load_scans, render
from bench.stats import proportion, summary
from bench.surface import align, distances, similarity
from bench.tables import Context, between

NAME = "scans"
HELP = "distance of the foundation from real scans, rendered"

YAWS = (0, 30, 60, 90)
COVERED = (0, 30)  # % of the face box
DISTANCES = (500.0, 800.0, 1500.0)  # mm, one picture each, with another light
MAX_POINTS = 6000  # of a scan's face
TARGET = 1.4  # mm mean
TARGET_WORSE = 15  # % with occluders
MEAN_FACE = "mean face"
_NAMED = 6  # scans that are named one by one in the printed table


def measure(context: Context) -> dict[str, Any]:
    placed: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    if context.scans:
        scans, placed, skipped = load_folder(context.scans, context.reconstructor, context.unit)
        if not scans:
            return {"why": f"no scan of {context.scans.name} can be used", "skipped": skipped}
    elif (context.data / "scans").is_dir():
        scans = load_scans(context.data / "scans", context.model)
    else:
        return {"why": "needs --scans DIR, or the research data", "skipped": skipped}
    background = backgrounds(context)
    folder = context.data / "occluders"
    occluders = Occluders(folder) if folder.is_dir() else None
    yaws, distances_mm = (YAWS, DISTANCES)
    if context.quick:
        scans, yaws, distances_mm = scans[:1], (0,), (800.0,)
    records = []
    reference = {scan.name: scan_error(scan, context.model, None, None) for scan in scans}
    for scan in scans:
        for yaw in yaws:
            for k, distance in enumerate(distances_mm):
                key = [context.seed, scans.index(scan), yaw, k]
                rng = np.random.default_rng(key)
                view = render(
                    scan,
                    context.model,
                    background(rng),
                    yaw=yaw if k % 2 == 0 else -yaw,
                    distance=distance,
                    seed=int(rng.integers(2**31)),
                )
                for covered in COVERED if occluders else COVERED[:1]:
                    image = view.image
                    if covered and occluders:
                        image, _ = occluders.cover(image, view.box, covered / 100, rng)
                    for title, column in context.columns.items():
                        answer = column(image)
                        error = None
                        if answer is not None:
                            error = scan_error(
                                scan, context.model, answer.identity, answer.expression
                            )
                        records.append(
                            {
                                "scan": scan.name,
                                "yaw": yaw,
                                "distance": distance,
                                "covered": covered,
                                "column": title,
                                "median": None if error is None else error[0],
                                "mean": None if error is None else error[1],
                            }
                        )
    return {
        "folder": context.scans.name if context.scans else None,
        "placed": {name: asdict(p) for name, p in placed.items()},
        "skipped": skipped,
        "region_mm": FACE_RADIUS,
        "records": records,
        MEAN_FACE: {name: {"median": e[0], "mean": e[1]} for name, e in reference.items()},
        "columns": {title: of_column(records, title) for title in context.columns},
    }


def backgrounds(context: Context) -> Callable[[np.random.Generator], np.ndarray]:
    """What draws something to stand behind a scan: a held-out portrait, without them noise."""
    if not context.has_data:
        return lambda rng: cv2.resize(
            rng.integers(0, 256, (4, 4, 3), np.uint8), (400, 400), interpolation=cv2.INTER_CUBIC
        )
    portraits = [p for p in held_out_photos(context.data) if p.folder == "celebamask"]
    return lambda rng: portraits[int(rng.integers(len(portraits)))].read()


def scan_error(
    scan: Scan, model: Any, identity: np.ndarray | None, expression: np.ndarray | None
) -> tuple[float, float]:
    """Median and mean distance, mm, from the scan's face to the foundation after a similarity."""

    def f32(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values.astype(np.float32)

    mesh = face_surface(model, model.vertices(f32(identity), f32(expression)))
    landmarks = model.landmark_basis("68")
    inner = landmarks.mean.astype(np.float64)
    for values, basis in ((identity, landmarks.identity), (expression, landmarks.expression)):
        if values is not None:
            inner = inner + np.tensordot(values, basis, 1)
    start = similarity(inner[17:], scan.landmarks)
    points = scan.face
    if len(points) > MAX_POINTS:
        points = points[np.random.default_rng(0).choice(len(points), MAX_POINTS, replace=False)]
    d = distances(mesh, points, align(mesh, points, start))
    return round(float(np.median(d)), 4), round(float(d.mean()), 4)


def of_column(records: list[dict[str, Any]], title: str) -> dict[str, dict[str, Any]]:
    """Per yaw and share covered: mean over the pictures of their mean and median distance, with
    its interval over scans."""
    out: dict[str, dict[str, Any]] = {}
    for yaw in dict.fromkeys(r["yaw"] for r in records):
        for covered in dict.fromkeys(r["covered"] for r in records):
            rows = [
                r for r in records if (r["column"], r["yaw"], r["covered"]) == (title, yaw, covered)
            ]
            found = [r for r in rows if r["mean"] is not None]
            out[f"{yaw}/{covered}"] = {
                **{
                    key: summary([r[key] for r in found], groups=[r["scan"] for r in found])
                    for key in ("mean", "median")
                },
                "lost": len(rows) - len(found),
                "lost_rate": proportion(len(rows) - len(found), len(rows)),
            }
    return out


def lines(report: Mapping[str, Any]) -> list[str]:
    left_out = [f"left out, {name}: {why}" for name, why in report["skipped"].items()]
    if "why" in report:
        return [report["why"], *left_out]
    columns = report["columns"]
    keys = [tuple(map(int, key.split("/"))) for key in next(iter(columns.values()))]
    yaws, shares = (list(dict.fromkeys(k[i] for k in keys)) for i in (0, 1))
    reference = report[MEAN_FACE]
    mean, median = (float(np.mean([v[k] for v in reference.values()])) for k in ("mean", "median"))
    each = ", ".join(f"{name} {v['mean']:.2f}" for name, v in list(reference.items())[:_NAMED])
    n = max(c["mean"]["n"] + c["lost"] for c in next(iter(columns.values())).values())
    out = [
        "mean (median) distance in mm, after a similarity, from a scan's vertices within "
        f"{report['region_mm']:.0f} mm of the tip of its nose",
        f"{n} pictures a cell, of {len(reference)} scans; those without a result (lost) do not "
        "enter the means; [95 % interval of the mean over scans]",
        f"{'':<30}" + "".join(f"{f'yaw {yaw}':>34}" for yaw in yaws),
    ]
    for title, cells in columns.items():
        for share in shares:
            name = f"{title}, {share} % covered" if share else title
            values = "".join(f"{_cell(cells[f'{yaw}/{share}']):>34}" for yaw in yaws)
            out.append(f"{name:<30}{values}")
        if len(shares) > 1:
            worse = [_worse(cells[f"{yaw}/0"], cells[f"{yaw}/{shares[1]}"]) for yaw in yaws]
            out.append(f"{'  worse by, %':<30}" + "".join(f"{w:>34}" for w in worse))
    out += [
        f"{MEAN_FACE:<30}{f'{mean:.2f} ({median:.2f})':>34}   {each}",
        f"target: mean <= {TARGET} at every yaw, at most {TARGET_WORSE} % worse when covered, "
        "below MediaPipe from 30 degrees on",
    ]
    for name, p in report["placed"].items():
        out.append(
            f"{name}: {p['vertices']} vertices, unit {p['unit']} ({p['mm_per_unit']:g} mm), "
            f"colours {p['colors']}, landmarks {p['landmark_rms_mm']:.1f} mm RMS off"
        )
    return out + left_out


def _cell(c: Mapping[str, Any]) -> str:
    lost = f", {c['lost']} lost" if c["lost"] else ""
    if c["mean"]["mean"] is None:
        return f"-{lost}"
    mean = c["mean"]
    interval = f" [{between(mean, 2)}]" if mean["low"] is not None else ""
    return f"{mean['mean']:.2f} ({c['median']['mean']:.2f}){interval}{lost}"


def _worse(clean: Mapping[str, Any], covered: Mapping[str, Any]) -> str:
    a, b = clean["mean"]["mean"], covered["mean"]["mean"]
    return "-" if a is None or b is None else f"{100 * (b / a - 1):.0f}"
