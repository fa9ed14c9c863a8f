"""Whether filled bump maps still tell persons apart (§5.2): clean, under a hand, filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.pasting import Occluders
from bench.tables import Context, verification
from bench.tables.verification import MEASURES, Pairs, draws, interval, separations

NAME = "bump_verification"
HELP = "same person or not, by a network that sees bump maps alone: clean, occluded, filled"

FILLS = ("none", "smooth", "reference")
TARGET = 0.5  # of the drop recovered with "reference"; the paper has 0.48 (92.8, 75.7, 83.9 %)
# Title -> fill and photos of the first of a pair, of the second. "none" leaves what the bump-map
# network makes of the hand.
CLEAN, HANDS = ("none", "clean"), ("none", "hands")
CONDITIONS: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "clean": (CLEAN, CLEAN),
    "one occluded": (CLEAN, HANDS),
    "one filled, smooth": (CLEAN, ("smooth", "hands")),
    "one filled, reference": (CLEAN, ("reference", "hands")),
    "both occluded": (HANDS, HANDS),
    "both filled, smooth": (("smooth", "hands"), ("smooth", "hands")),
    "both filled, reference": (("reference", "hands"), ("reference", "hands")),
    # what filling does where nothing was pasted: hair, glasses, shadows
    "clean, filled, smooth": (("smooth", "clean"), ("smooth", "clean")),
    "clean, filled, reference": (("reference", "clean"), ("reference", "clean")),
}
_WIDTH = 25  # of a printed column


@dataclass(frozen=True, eq=False)
class Recognised:
    identity: np.ndarray  # what the recogniser says of the face's bump map


class BumpColumn:
    """Reconstructs a face, filling holes in one way, and describes its bump map."""

    def __init__(
        self,
        fill: str,
        recogniser: Any,
        *,
        references: Path | None = None,
        threads: int = 1,
        runtime: str | None = None,
    ) -> None:
        from extreme3d_fast import Reconstructor

        options: dict[str, Any] = {
            **{"occlusion": fill, "threads": threads, "runtime": runtime},
            "symmetry": False,
        }
        if fill == "reference" and references:
            options["references"] = references
        self.reconstructor = Reconstructor(**options)
        self.recogniser = recogniser
        wanted = recogniser.metadata.get("head_model")
        if wanted != self.reconstructor.head_model.fingerprint:
            raise SystemExit(f"{recogniser.path} was trained with another head model")

    def __call__(self, image: np.ndarray) -> Recognised | None:
        """(H, W, 3) uint8 RGB in; None where no face is found."""
        from extreme3d_fast import NoFaceFound

        try:
            face = self.reconstructor.reconstruct(image)
        except NoFaceFound:
            return None
        return Recognised(describe(self.recogniser, face))


def describe(recogniser: Any, face: Any) -> np.ndarray:
    """(K,) embedding of a face's bump map."""
    pose = np.asarray(face.camera_from_head, np.float64)
    points = face.camera.project(face.foundation @ pose[:3, :3].T + pose[:3, 3])
    feeds = {"bump": face.bump[None], "points": points[None].astype(np.float32)}
    return np.asarray(recogniser.run(feeds)["descriptor"][0], np.float64)


def load_columns(context: Context) -> tuple[dict[str, BumpColumn], dict[str, str]]:
    """By way of filling, and why others are missing."""
    from extreme3d_fast import Extreme3DError
    from extreme3d_fast.session import Session

    threads = context.reconstructor.threads
    recogniser = Session(context.recogniser, threads=threads)  # type: ignore[arg-type]
    columns, missing = {}, {}
    for fill in FILLS:
        try:
            columns[fill] = BumpColumn(
                fill,
                recogniser,
                references=context.references,
                threads=threads,
                runtime=context.runtime,
            )
        except (FileNotFoundError, Extreme3DError) as error:
            missing[fill] = str(error)
    return columns, missing


def measure(context: Context) -> dict[str, Any]:
    if context.recogniser is None:
        return {"skipped": "needs --recogniser FILE, see train/README.md"}
    columns, missing = load_columns(context)
    occluders = Occluders(context.data / "occluders")
    photos = verification.youtube_photos(context)
    pairs = verification.all_pairs(photos)
    identities = verification.clean_and_hands(columns, photos, occluders, context.seed)
    report: dict[str, Any] = {
        "missing": missing,
        "photos": len(photos),
        "persons": len(set(pairs.person)),
        "pairs": {
            "same": int(pairs.same.sum()),
            "same_other_video": int((pairs.same & pairs.other_video).sum()),
            "different": int((~pairs.same).sum()),
        },
        "not_found": {
            f"{condition}, {fill}": sum(row is None for row in rows)
            for fill, found in identities.items()
            for condition, rows in found.items()
        },
        **of_identities(identities, pairs, context.seed),
    }
    if context.lfw:
        report["lfw"] = verification.lfw(
            columns, context.lfw, context.pairs, occluders, context.seed
        )
    return report


def of_identities(
    identities: Mapping[str, Mapping[str, Sequence[np.ndarray | None]]], pairs: Pairs, seed: int
) -> dict[str, Any]:
    """Each measure of the conditions, and the share of the drop that filling recovers.

    Intervals (95 %) are bootstrapped over persons, the same draws for all conditions.
    """
    n = len(pairs.person)
    scores = {
        title: verification.similarities(
            [*identities[a][x], *identities[b][y]], pairs.first, pairs.second + n
        )
        for title, ((a, x), (b, y)) in CONDITIONS.items()
        if a in identities and b in identities
    }
    weights = draws(pairs, seed)
    # (1 + resamples, measures): the first row is the sample itself
    values = {title: separations(score, pairs, weights) for title, score in scores.items()}
    report: dict[str, Any] = {
        "conditions": {
            title: {
                name: interval(found[:, k], 4)
                for k, name in enumerate(MEASURES)
                if np.isfinite(found[0, k])
            }
            for title, found in values.items()
        },
        "recovered": {},
    }
    for number in ("one", "both"):
        clean, occluded = values["clean"], values[f"{number} occluded"]
        for fill in FILLS[1:]:
            title = f"{number} filled, {fill}"
            if title not in values:
                continue
            with np.errstate(divide="ignore", invalid="ignore"):
                share = (values[title] - occluded) / (clean - occluded)
            report["recovered"][title] = {
                name: interval(share[:, k], 3)
                for k, name in enumerate(MEASURES)
                if np.isfinite(share[0, k])
            }
    return report


def lines(report: Mapping[str, Any]) -> list[str]:
    if "skipped" in report:
        return [f"skipped: {report['skipped']}"]
    pairs = report["pairs"]
    out = [f"without {fill}: {why}" for fill, why in report["missing"].items()]
    out += [
        f"YouTube Faces: {report['photos']} photos of {report['persons']} held-out persons, "
        f"{pairs['same']} same ({pairs['same_other_video']} of other videos) and "
        f"{pairs['different']} different pairs; 95 % intervals over persons",
        f"{'':<26}{'accuracy, %':>{_WIDTH}}{'AUC':>{_WIDTH}}{'AUC, other video':>{_WIDTH}}",
    ]
    for title, found in report["conditions"].items():
        cells = "".join(
            _cell(found.get(name), 100 if name == "accuracy" else 1, 1 if name == "accuracy" else 3)
            for name in MEASURES
        )
        out.append(f"{title:<26}{cells}")
    out.append("share of the drop that filling recovers, %")
    for title, found in report["recovered"].items():
        out.append(f"{title:<26}{''.join(_cell(found.get(n), 100, 0) for n in MEASURES)}")
    out.append(f"{'  target, reference':<26}{100 * TARGET:>{_WIDTH}.0f}")
    lost = ", ".join(f"{title} {n}" for title, n in report["not_found"].items() if n)
    out.append(
        "accuracy is balanced, at its best threshold; photos not found are like none (0): "
        f"{lost or 'there are none'}"
    )
    if "lfw" in report:
        part = report["lfw"]
        out.append(f"LFW layout: {part['photos']} photos, {part['folds']} folds, accuracy in %")
        for fill, column in part["columns"].items():
            for condition, c in column.items():
                value = c["accuracy"]
                out.append(f"{f'{condition}, {fill}':<26}{value['mean']:.2f} +- {value['std']:.2f}")
    return out


def _cell(found: Mapping[str, float] | None, scale: float, digits: int) -> str:
    if found is None:
        return f"{'-':>{_WIDTH}}"
    v, low, high = (f"{scale * found[k]:.{digits}f}" for k in ("value", "low", "high"))
    return f"{f'{v} ({low} to {high})':>{_WIDTH}}"
