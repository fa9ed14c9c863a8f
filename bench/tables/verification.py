"""Whether α tells persons apart: held-out persons of YouTube Faces, and LFW's own protocol."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.columns import Column
from bench.pasting import Occluders
from bench.photos import Photo, held_out_photos, read_rgb
from bench.stats import (
    accuracy_at,
    auc,
    best_threshold,
    equal_error_rate,
    roc,
    summary,
    weighted_separation,
)
from bench.tables import Context

NAME = "verification"
HELP = "same person or not, by the cosine of identity coefficients"

HAND = 75 / 250  # length of a pasted hand, of the photo's side: 75 px in LFW's 250
CENTER = (
    0.15  # of the side: how far from the middle of an LFW photo, where its face is, a hand lies
)
TARGETS = {"clean": 0.93, "hands": 0.88}  # AUC
RESAMPLES = 500
MEASURES = ("accuracy", "auc", "auc_other_video")
INTERVALS = (*MEASURES, "one_minus_eer")
ROC_POINTS = 101  # of a curve, at even false positive rates


def measure(context: Context) -> dict[str, Any]:
    folder = context.data / "occluders"
    occluders = Occluders(folder) if folder.is_dir() else None
    report: dict[str, Any] = {"youtube": {"skipped": "needs the research data"}}
    if context.has_data and occluders:
        report["youtube"] = youtube(context, occluders)
    if context.lfw:
        report["lfw"] = lfw(context.columns, context.lfw, context.pairs, occluders, context.seed)
    return report


def youtube(context: Context, occluders: Occluders) -> dict[str, Any]:
    """All pairs of photos of held-out persons."""
    photos = youtube_photos(context)
    pairs = all_pairs(photos)
    first, second, same = pairs.first, pairs.second, pairs.same
    other_video = pairs.other_video
    identities = clean_and_hands(context.columns, photos, occluders, context.seed)
    weights = draws(pairs, context.seed)
    columns: dict[str, Any] = {}
    for title, conditions in identities.items():
        columns[title] = {}
        for condition, found in conditions.items():
            scores = similarities(found, first, second)
            columns[title][condition] = {
                "not_found": sum(f is None for f in found),
                **of_scores(scores, same),
                "intervals": intervals(separations(scores, pairs, weights)),
                "roc": curve(scores, same),
                "auc_other_video": round(auc(scores[other_video], same[other_video]), 4)
                if same[other_video].any()
                else None,
            }
    return {
        "photos": len(photos),
        "persons": len(set(pairs.person)),
        "pairs": {"same": int(same.sum()), "different": int((~same).sum())},
        "columns": columns,
    }


def youtube_photos(context: Context) -> list[Photo]:
    photos = held_out_photos(context.data, ("youtube_faces",))
    if context.quick:
        persons = sorted({p.person for p in photos})[:2]
        photos = [p for p in photos if p.person in persons][:12:3]
    return photos


def intervals(values: np.ndarray) -> dict[str, dict[str, float]]:
    """95 % of each measure over persons, as shares; those that are defined."""
    return {
        name: interval(values[:, k], 4)
        for k, name in enumerate(INTERVALS)
        if np.isfinite(values[0, k])
    }


def curve(scores: np.ndarray, same: np.ndarray) -> list[float]:
    """True positive rate at ROC_POINTS even false positive rates from 0 to 1.

    Where the curve rises straight up, it is the upper end that counts.
    """
    fpr, tpr, _ = roc(scores, same)
    at = np.linspace(0, 1, ROC_POINTS)
    last = np.r_[np.flatnonzero(np.diff(fpr)), len(fpr) - 1]
    return [round(float(v), 4) for v in np.interp(at, fpr[last], tpr[last])]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of photos, as rows of the two, and what is known of them."""

    person: np.ndarray  # of each photo
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray  # of each pair: the same person
    other_video: np.ndarray


def all_pairs(photos: Sequence[Photo]) -> Pairs:
    first, second = np.triu_indices(len(photos), 1)
    person = np.array([p.person for p in photos])
    # names end in the video and the frame in it
    video = np.array([p.path.stem[:-1] for p in photos])
    same, other_video = person[first] == person[second], video[first] != video[second]
    return Pairs(person, first, second, same, other_video)


def clean_and_hands(
    columns: Mapping[str, Column | Callable[[np.ndarray], Any]],
    photos: Sequence[Photo],
    occluders: Occluders,
    seed: int,
) -> dict[str, dict[str, list[np.ndarray | None]]]:
    """Identity that each column sees in the photos, "clean" and with "hands" on the face."""
    identities: dict[str, dict[str, list[np.ndarray | None]]] = {
        title: {"clean": [], "hands": []} for title in columns
    }
    for photo in photos:
        image = photo.read()
        rng = np.random.default_rng([seed, photo.key])
        low, high = photo.points.min(0), photo.points.max(0)
        center = low + rng.uniform(0.2, 0.8, 2) * (high - low)
        pictures = {
            "clean": image,
            "hands": occluders.paste_hand(image, center, HAND * max(image.shape[:2]), rng),
        }
        for title, column in columns.items():
            for condition, picture in pictures.items():
                answer = column(picture)
                identities[title][condition].append(None if answer is None else answer.identity)
    return identities


def similarities(
    identities: Sequence[np.ndarray | None], first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Cosine of each pair; 0 where one of the two was not found."""
    size = next((len(f) for f in identities if f is not None), 1)
    rows = np.array([np.zeros(size) if f is None else f for f in identities], np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.einsum("nk,nk->n", rows[first], rows[second])


def of_scores(scores: np.ndarray, same: np.ndarray) -> dict[str, float]:
    return {
        "auc": round(auc(scores, same), 4),
        "one_minus_eer": round(100 * (1 - equal_error_rate(scores, same)), 2),
        "accuracy": round(100 * best_threshold(scores, same)[1], 2),
    }


def draws(pairs: Pairs, seed: int) -> np.ndarray:
    """(1 + RESAMPLES, pairs) float32: how often each pair is in a resample of the persons."""
    names, person = np.unique(pairs.person, return_inverse=True)
    rng = np.random.default_rng(seed)
    count = np.ones((1 + RESAMPLES, len(names)), np.float32)
    for row in count[1:]:
        row[:] = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
    a, b = person[pairs.first], person[pairs.second]
    # a person drawn twice is no pair of different persons
    return np.where(pairs.same, count[:, a], count[:, a] * count[:, b])


def separations(scores: np.ndarray, pairs: Pairs, weights: np.ndarray) -> np.ndarray:
    """(draws, 4) accuracy, AUC, AUC of the same pairs from other videos, 1 - equal error rate."""
    order = np.argsort(-scores, kind="stable")
    ranked, same = scores[order], pairs.same[order]
    other = pairs.other_video[order] | ~same
    out = np.full((len(weights), 4), np.nan)
    for k, row in enumerate(weights):
        w = row[order]
        out[k, 1], out[k, 0], errors = weighted_separation(ranked, same, w)
        out[k, 3] = 1 - errors
        out[k, 2] = weighted_separation(ranked, same, w * other)[0]
    return out


def interval(values: np.ndarray, digits: int) -> dict[str, float]:
    """The first value, and the middle 95 % of the others, or of all where those are undefined."""
    rest = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(rest if len(rest) else values[:1], [2.5, 97.5])
    found = {"value": values[0], "low": low, "high": high}
    return {name: round(float(v), digits) for name, v in found.items()}


# === LFW ===


def read_pairs(path: Path) -> list[list[tuple[tuple[str, int], tuple[str, int], bool]]]:
    """Folds of (photo, photo, same) of a pairs.txt; a photo is a name and a number.

    The first line gives the number of folds and of pairs of either kind in each; a file with one
    number there has one fold.
    """
    header, *rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    folds = int(header[0]) if len(header) > 1 else 1
    size = 2 * int(header[-1])
    if len(rows) != folds * size:
        raise SystemExit(f"{path} should have {folds * size} pairs, has {len(rows)}")
    pairs = []
    for row in rows:
        if len(row) == 3:
            pairs.append(((row[0], int(row[1])), (row[0], int(row[2])), True))
        else:
            pairs.append(((row[0], int(row[1])), (row[2], int(row[3])), False))
    return [pairs[i : i + size] for i in range(0, len(pairs), size)]


def photo_path(folder: Path, photo: tuple[str, int]) -> Path:
    name, number = photo
    stem = folder / name / f"{name}_{number:04d}"
    for suffix in (".jpg", ".png"):
        if stem.with_suffix(suffix).exists():
            return stem.with_suffix(suffix)
    raise SystemExit(f"no photo {stem}.jpg")


def lfw(
    columns: Mapping[str, Column | Callable[[np.ndarray], Any]],
    folder: Path,
    pairs: Path | None,
    occluders: Occluders | None,
    seed: int,
) -> dict[str, Any]:
    """The paper's Table 1: each fold at the threshold that is best on the others.

    Without cut-outs of hands there are the clean photos alone.
    """
    folds = read_pairs(pairs or folder / "pairs.txt")
    photos = sorted({photo for fold in folds for pair in fold for photo in pair[:2]})
    row = {photo: i for i, photo in enumerate(photos)}
    found: dict[tuple[str, str], list[np.ndarray | None]] = {
        (title, condition): []
        for title in columns
        for condition in (("clean", "hands") if occluders else ("clean",))
    }
    for photo in photos:
        image = read_rgb(photo_path(folder, photo))
        rng = np.random.default_rng([seed, zlib.crc32(f"{photo[0]}_{photo[1]}".encode())])
        size = np.array(image.shape[1::-1])
        center = size * (0.5 + rng.uniform(-CENTER, CENTER, 2))
        pictures = {"clean": image}
        if occluders:
            pictures["hands"] = occluders.paste_hand(image, center, HAND * size.max(), rng)
        for title, column in columns.items():
            for condition, picture in pictures.items():
                answer = column(picture)
                found[title, condition].append(None if answer is None else answer.identity)
    out: dict[str, Any] = {title: {} for title in columns}
    for (title, condition), identities in found.items():
        scores, same = [], []
        for fold in folds:
            first = np.array([row[a] for a, _, _ in fold])
            second = np.array([row[b] for _, b, _ in fold])
            scores.append(similarities(identities, first, second))
            same.append(np.array([is_same for _, _, is_same in fold]))
        out[title][condition] = {
            "not_found": sum(f is None for f in identities),
            **over_folds(scores, same),
        }
    return {"photos": len(photos), "folds": len(folds), "columns": out}


def over_folds(scores: Sequence[np.ndarray], same: Sequence[np.ndarray]) -> dict[str, Any]:
    """Mean, standard deviation and interval over folds, %, of 100 % - EER, accuracy and AUC."""
    values: dict[str, list[float]] = {"one_minus_eer": [], "accuracy": [], "auc": []}
    for k, (s, y) in enumerate(zip(scores, same, strict=True)):
        others = [i for i in range(len(scores)) if i != k] or [k]
        threshold, _ = best_threshold(
            np.concatenate([scores[i] for i in others]), np.concatenate([same[i] for i in others])
        )
        values["one_minus_eer"].append(100 * (1 - equal_error_rate(s, y)))
        values["accuracy"].append(100 * accuracy_at(threshold, s, y))
        values["auc"].append(100 * auc(s, y))
    return {
        name: {
            "mean": round(float(np.mean(v)), 2),
            "std": round(float(np.std(v)), 2),
            **over_some(v),
        }
        for name, v in values.items()
    }


def over_some(values: Sequence[float]) -> dict[str, float | int | None]:
    """95 % interval of the mean over folds; one fold has none."""
    found = summary(values)
    return {k: found[k] for k in ("low", "high", "n")}


def lines(report: Mapping[str, Any]) -> list[str]:
    return [
        *_youtube_lines(report["youtube"]),
        *(_lfw_lines(report["lfw"]) if "lfw" in report else []),
    ]


def _youtube_lines(part: Mapping[str, Any]) -> list[str]:
    if "skipped" in part:
        return [f"YouTube Faces: skipped, {part['skipped']}"]
    out = [
        f"YouTube Faces: {part['photos']} photos of {part['persons']} held-out persons, "
        f"{part['pairs']['same']} same and {part['pairs']['different']} different pairs",
        "95 % intervals over persons",
        f"{'':<26}{'AUC':>22}{'other video':>22}{'100%-EER':>20}{'accuracy':>20}{'not found':>11}",
    ]
    for condition, target in TARGETS.items():
        for title, column in part["columns"].items():
            c = column[condition]
            i = c["intervals"]
            out.append(
                f"{title + ', ' + condition:<26}{_cell(i.get('auc'), 1, 3):>22}"
                f"{_cell(i.get('auc_other_video'), 1, 3):>22}"
                f"{_cell(i.get('one_minus_eer'), 100, 1):>20}"
                f"{_cell(i.get('accuracy'), 100, 1):>20}{c['not_found']:>11}"
            )
        out.append(f"{'  target':<26}{target:>22.3f}")
    out.append("accuracy is balanced, at its best threshold; photos not found are like none (0)")
    return out


def _lfw_lines(part: Mapping[str, Any]) -> list[str]:
    out = [
        f"LFW layout: {part['photos']} photos, {part['folds']} folds, mean and deviation in %",
        f"{'':<26}{'100%-EER':>16}{'accuracy':>16}{'AUC':>16}{'not found':>11}",
    ]
    for title, column in part["columns"].items():
        for condition, c in column.items():
            values = "".join(
                f"{c[k]['mean']:.2f} +- {c[k]['std']:.2f}".rjust(16)
                for k in ("one_minus_eer", "accuracy", "auc")
            )
            out.append(f"{title + ', ' + condition:<26}{values}{c['not_found']:>11}")
    return out


def _cell(found: Mapping[str, float] | None, scale: float, digits: int) -> str:
    if found is None:
        return "-"
    value, low, high = (f"{scale * found[k]:.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low}-{high})"
