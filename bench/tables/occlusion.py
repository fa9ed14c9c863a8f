"""What pasted occluders do to a result: lost faces, drift of landmarks and of the rotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.columns import Answer, geodesic
from bench.pasting import Occluders
from bench.photos import Photo, held_out_photos
from bench.stats import proportion, summary
from bench.tables import Context, between

NAME = "occlusion"
HELP = "pasted occluders against the own result on the clean photo"

PHOTOS = 60
_WIDTH = 23  # of a printed column
LEVELS = (15, 30, 45, 60)  # % of the tight face box
MAX_YAW = 45.0  # degrees
LOST = 0.5  # face sizes between the centre of a result and the face: another face, or none
TARGETS = {"drift": (1.5, 2.5, 3.5, 5.0), "turn": (2.0, 3.0, 5.0, 7.0), "lost": (0, 0, 0, 0)}


def measure(context: Context) -> dict[str, Any]:
    photos = choose(held_out_photos(context.data), 2 if context.quick else PHOTOS, context.seed)
    occluders = Occluders(context.data / "occluders")
    results: dict[str, list[dict[int, tuple[float, float] | None]]] = {
        title: [] for title in context.columns
    }
    clean_lost = dict.fromkeys(context.columns, 0)
    covered: dict[int, list[float]] = {level: [] for level in LEVELS}
    for photo in photos:
        image = photo.read()
        pictures = {}
        for level in LEVELS:
            rng = np.random.default_rng([context.seed, photo.key, level])
            pictures[level], share = occluders.cover(image, photo.box, level / 100, rng)
            covered[level].append(share)
        for title, column in context.columns.items():
            clean = kept(column(image), photo)
            clean_lost[title] += clean is None
            row: dict[int, tuple[float, float] | None] = {}
            for level, picture in pictures.items():
                answer = kept(column(picture), photo)
                row[level] = None
                if clean is not None and answer is not None:
                    row[level] = (drift(clean, answer, photo), turn(clean, answer))
            results[title].append(row)
    return {
        "photos": len(photos),
        "clean_lost": clean_lost,
        "records": [
            {
                "photo": photo.name,
                "column": title,
                "drift": {level: v and round(v[0], 3) for level, v in rows[i].items()},
                "turn": {level: v and round(v[1], 3) for level, v in rows[i].items()},
            }
            for i, photo in enumerate(photos)
            for title, rows in results.items()
        ],
        "covered": {level: round(float(np.mean(s)), 4) for level, s in covered.items()},
        "columns": {title: of_column(rows, results.values()) for title, rows in results.items()},
    }


def choose(photos: Sequence[Photo], count: int, seed: int) -> list[Photo]:
    """`count` photos, as many from each folder, none turned further than `MAX_YAW`."""
    from extreme3d_fast.camera import angles_from_rotation

    rng = np.random.default_rng(seed)
    facing = [p for p in photos if abs(angles_from_rotation(p.whenet)[0]) < MAX_YAW]
    folders = sorted({p.folder for p in facing})
    chosen: list[Photo] = []
    for i, folder in enumerate(folders):
        among = [p for p in facing if p.folder == folder]
        share = count // len(folders) + (i < count % len(folders))
        rows = rng.permutation(len(among))[:share]
        chosen += [among[row] for row in sorted(rows)]
    return chosen


def face_size(photo: Photo) -> float:
    """px, square root of the area of the tight box."""
    x0, y0, x1, y1 = photo.box
    return float(np.sqrt((x1 - x0) * (y1 - y0)))


def kept(answer: Answer | None, photo: Photo) -> Answer | None:
    """The answer, unless it lies somewhere else than the photo's face."""
    if answer is None:
        return None
    off = np.linalg.norm(answer.center - (photo.box[:2] + photo.box[2:]) / 2)
    return answer if off <= LOST * face_size(photo) else None


def drift(clean: Answer, answer: Answer, photo: Photo) -> float:
    """Mean distance of the 68 landmarks, % of the face size."""
    moved = np.linalg.norm(answer.landmarks - clean.landmarks, axis=1).mean()
    return float(100 * moved / face_size(photo))


def turn(clean: Answer, answer: Answer) -> float:
    return geodesic(clean.rotation, answer.rotation)


def of_column(
    rows: Sequence[Mapping[int, tuple[float, float] | None]],
    everyone: Any,
) -> dict[str, Any]:
    """Per level: how many are lost, and drift of those kept, and of those that all columns kept."""
    everyone = list(everyone)
    out = {}
    for level in LEVELS:
        own = [row[level] for row in rows]
        both = [
            row[level]
            for i, row in enumerate(rows)
            if all(other[i][level] is not None for other in everyone)
        ]
        out[str(level)] = {
            "lost": sum(v is None for v in own),
            "lost_rate": proportion(sum(v is None for v in own), len(own)),
            **{
                f"{name}{suffix}": summary([v[k] for v in values if v is not None])
                for suffix, values in (("", own), ("_common", both))
                for k, name in enumerate(("drift", "turn"))
            },
        }
    return out


def lines(report: Mapping[str, Any]) -> list[str]:
    columns = report["columns"]

    def row(title: str, cells: Any, text: str = "") -> str:
        values = "".join(f"{cell:>{_WIDTH}}" for cell in cells)
        return f"{title:<16}{values}   {text}".rstrip()

    def at_levels(title: str, key: str) -> list[Any]:
        return [columns[title][str(level)][key] for level in LEVELS]

    out = [
        f"{report['photos']} held-out photos; mean (95 % interval) median over those kept; "
        "the face size is the square root of the tight box's area",
        row("covered, %", LEVELS),
    ]
    out += [
        row(title, map(_lost, at_levels(title, "lost_rate")), "lost (95 % interval, %)")
        for title in columns
    ]
    out.append(row("  target", TARGETS["lost"]))
    for key, text in (("drift", "landmark drift, % of face"), ("turn", "rotation drift, degrees")):
        out += [row(title, map(_drifts, at_levels(title, key)), text) for title in columns]
        out.append(row("  target", TARGETS[key]))
    if len(columns) > 1:
        for key in ("drift_common", "turn_common"):
            text = f"{key.split('_')[0]}, photos that all kept"
            out += [row(title, map(_drifts, at_levels(title, key)), text) for title in columns]
        first = next(iter(columns))
        out.append(row("  n", [c["n"] for c in at_levels(first, "drift_common")]))
    clean = ", ".join(f"{title} {n}" for title, n in report["clean_lost"].items())
    out.append(f"lost on the clean photo (counted as lost above): {clean}")
    return out


def _lost(rate: Mapping[str, Any]) -> str:
    return f"{rate['count']} ({between(rate, 0, scale=100)})"


def _drifts(summary: Mapping[str, Any]) -> str:
    if summary["mean"] is None:
        return "-"
    return f"{summary['mean']:.1f} ({between(summary, 1)}) {summary['median']:.1f}"
