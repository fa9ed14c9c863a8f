"""Whether the face mask agrees with labels, on held-out photos, covered ones and profiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np

from bench import mask_labels
from bench.details import load_masks
from bench.face_views import FaceView, view_face
from bench.pasting import Occluders
from bench.photos import held_out_photos, is_held_out, person_of, read_rgb
from bench.stats import proportion, ratio, summary
from bench.tables import Context, between, cell, missing_lines

NAME = "mask"
HELP = "IoU of the face mask with labels, and occluder pixels removed"

PORTRAITS, COVERED, PROFILES = "celebamask", "celebamask, covered", "fasseg profiles"
SHARES = (0.1, 0.2, 0.3, 0.45)  # of the face's box that is covered, in turn
TARGETS = {PORTRAITS: 0.95, COVERED: 0.93, PROFILES: 0.90}
TARGET_REMOVED = 90  # %
_LEAST = 200  # px: fewer occluded ones give no share


def measure(context: Context) -> dict[str, Any]:
    masks, missing = load_masks(context.open_network)
    records = []
    lost, seen = dict.fromkeys(TARGETS, 0), dict.fromkeys(TARGETS, 0)
    for name, view, labels in samples(context):
        seen[name] += 1
        # where no labelled face is, another one was found
        if view is None or labels is None or not (labels.face & view.region).any():
            lost[name] += 1
            continue
        for title, mask in masks.items():
            found = scores(mask(view), labels, view.region)
            records.append({"set": name, "column": title, **found})
    return {
        "records": records,
        "lost": lost,
        "lost_rate": {name: proportion(lost[name], seen[name]) for name in TARGETS},
        "missing": missing,
        "columns": {
            title: {
                name: of_set([r for r in records if (r["column"], r["set"]) == (title, name)])
                for name in TARGETS
            }
            for title in masks
        },
    }


Sample = tuple[str, FaceView | None, mask_labels.Labels | None]


def samples(context: Context) -> Iterator[Sample]:
    """Pictures of each set with their labels."""
    count = 2 if context.quick else None
    photos = [p for p in held_out_photos(context.data) if p.folder == "celebamask"]
    occluders = Occluders(context.data / "occluders", held_out=True)
    folder = context.data / "photos" / "celebamask_parsing"
    for i, photo in enumerate(photos[:count]):
        image = photo.read()
        parsing = cv2.imread(str(folder / f"{photo.path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        rng = np.random.default_rng([context.seed, photo.key])
        picture, kind = occluders.paste(image, photo.box, SHARES[i % len(SHARES)], rng)
        for name, shown in ((PORTRAITS, image), (COVERED, picture)):
            view = view_face(context.reconstructor, shown)
            if view is None:
                yield name, None, None
                continue
            # glasses are told from skin in the photo as it was
            labels = mask_labels.celebamask_labels(view.of_photo(image), parsing, image.shape)
            yield name, view, labels.covered(kind, view) if name == COVERED else labels
    folder = context.data / "photos" / "fasseg_profile"
    profiles = [
        p for p in sorted(folder.glob("*.jpg")) if is_held_out(person_of(f"{folder.name}/{p.name}"))
    ]
    for path in profiles[:count]:
        image = read_rgb(path)
        view = view_face(context.reconstructor, image)
        labels = None
        if view is not None:
            colours = read_rgb(folder.with_name("fasseg_profile_labels") / f"{path.stem}.png")
            labels = mask_labels.fasseg_labels(view, colours, image.shape)
        yield PROFILES, view, labels


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union; 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def scores(mask: np.ndarray, labels: mask_labels.Labels, region: np.ndarray) -> dict[str, Any]:
    """IoU, and shares in % of the hidden pixels removed and of the face lost, inside a region."""
    inside = region & labels.judged
    face, hidden = inside & labels.face, inside & ~labels.face
    count = len(mask_labels.HIDDEN_BY)
    enough = np.count_nonzero(hidden) >= _LEAST
    return {
        "iou": round(iou(mask & inside, face), 4),
        "removed": round(100 * float(np.mean(~mask[hidden])), 2) if enough else None,
        "face_lost": round(100 * float(np.mean(~mask[face])), 2) if face.any() else None,
        # by what hides them, px
        "hidden_px": np.bincount(labels.hidden_by[hidden], minlength=count).tolist(),
        "removed_px": np.bincount(labels.hidden_by[hidden & ~mask], minlength=count).tolist(),
    }


def of_set(rows: list[dict[str, Any]]) -> dict[str, Any]:
    hidden, removed = (
        np.array([r[key] for r in rows] or [[0] * len(mask_labels.HIDDEN_BY)]).sum(0)
        for key in ("hidden_px", "removed_px")
    )
    share = (100 * removed / np.maximum(hidden, 1)).round(2)
    return {
        "iou": summary([r["iou"] for r in rows]),
        "removed": summary([r["removed"] for r in rows if r["removed"] is not None]),
        "removed_rate": ratio(
            [sum(r["removed_px"]) for r in rows], [sum(r["hidden_px"]) for r in rows]
        ),
        "removed_by_kind": {
            kind: float(share[k]) for k, kind in enumerate(mask_labels.HIDDEN_BY) if hidden[k]
        },
        "hidden_by_kind": {
            kind: round(100 * float(hidden[k] / hidden.sum()), 2)
            for k, kind in enumerate(mask_labels.HIDDEN_BY)
            if hidden[k]
        },
        "face_lost": summary([r["face_lost"] for r in rows if r["face_lost"] is not None]),
    }


def lines(report: Mapping[str, Any]) -> list[str]:
    out = [
        "inside the face region of our foundation; clear lenses are not judged",
        f"{'':<22}{'':<14}{'IoU mean (95 % interval) median':>34}{'n':>5}"
        f"{'removed, % of all px (95 %)':>28}{'photo mean':>12}{'median':>9}{'face lost, %':>14}",
    ]
    for name, target in TARGETS.items():
        for title, sets in report["columns"].items():
            c = sets[name]
            i, r = c["iou"], c["removed"]
            text = "-"
            if i["mean"] is not None:
                text = f"{i['mean']:.3f} ({between(i, 3)}) {i['median']:.3f}"
            out.append(
                f"{name:<22}{title:<14}{text:>34}{i['n']:>5}{_percent(c['removed_rate']):>28}"
                f"{cell(r['mean'], 1, 12)}{cell(r['median'], 1)}"
                f"{cell(c['face_lost']['mean'], 1, 14)}"
            )
        for title, sets in report["columns"].items():
            kinds, shares = (sets[name][key] for key in ("removed_by_kind", "hidden_by_kind"))
            text = ", ".join(f"{k} {v:.0f} ({shares[k]:.0f})" for k, v in kinds.items())
            if any(kinds.values()):
                out.append(f"  {title} removes, % (of all hidden px, %): {text}")
        out.append(
            f"{'  target':<36}{f'>= {target}':>34}{'':>5}{f'>= {TARGET_REMOVED}':>28}"
            f"   ({report['lost'][name]} photos without their face)"
        )
    return out + missing_lines(report)


def _percent(share: Mapping[str, Any]) -> str:
    if share["value"] is None:
        return "-"
    return f"{100 * share['value']:.1f} ({between(share, 1, scale=100)})"
