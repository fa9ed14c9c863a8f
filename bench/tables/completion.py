"""How often a photo gives a head, with which warnings, and whether its mesh is whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.mesh_check import faults_of, mesh_counts
from bench.pasting import Occluders
from bench.photos import HELD_OUT, held_out_photos, is_held_out, person_of, read_rgb, teacher_points
from bench.stats import proportion, summary
from bench.tables import Context, between
from bench.tables.occlusion import LOST

NAME = "completion"
HELP = "how often a photo gives a head, and whether its mesh is whole"

PER_GROUP = 80
COVERED = (30, 60)  # % of the face's box, by cut-outs that training never saw
OF_COVERED = 40  # photos of each
# Of these training saw nine persons in ten; the paper's photos it never saw.
TRAINED_ON = ("celebamask", "utkface", "youtube_faces", "fasseg_profile", "masked_people")
PAPER = "paper_photos"
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, eq=False)
class Sample:
    group: str
    name: str  # folder/file
    image: np.ndarray  # (H, W, 3) uint8 RGB
    points: np.ndarray | None  # (n, 2) px of the face that is meant; None: nobody has labelled it


def measure(context: Context) -> dict[str, Any]:
    records = [record(context, sample) for sample in samples(context)]
    groups = list(dict.fromkeys(r["group"] for r in records))
    return {
        "records": records,
        "groups": {
            **{g: of_group([r for r in records if r["group"] == g]) for g in groups},
            "all": of_group(records),
        },
    }


def samples(context: Context) -> Iterator[Sample]:
    count, of_covered = (2, 1) if context.quick else (PER_GROUP, OF_COVERED)
    rng = np.random.default_rng(context.seed)
    labels = teacher_points(context.data)
    for folder in TRAINED_ON:
        among = photos_of(context.data / "photos" / folder)
        among = [p for p in among if is_held_out(person_of(f"{folder}/{p.name}"))]
        for row in sorted(rng.permutation(len(among))[:count]):
            name = f"{folder}/{among[row].name}"
            yield Sample(folder, name, read_rgb(among[row]), labels.get(name))
    for path in [p for p in photos_of(context.data / PAPER) if "_" not in p.stem][:count]:
        yield Sample(PAPER, f"{PAPER}/{path.name}", read_rgb(path), None)
    held_out = held_out_photos(context.data)
    occluders = Occluders(context.data / "occluders", held_out=True)
    for share in COVERED:
        for row in sorted(rng.permutation(len(held_out))[:of_covered]):
            photo = held_out[row]
            draws = np.random.default_rng([context.seed, photo.key, share])
            image, _ = occluders.cover(photo.read(), photo.box, share / 100, draws)
            yield Sample(f"{share} % covered", photo.name, image, photo.points)


def photos_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def record(context: Context, sample: Sample) -> dict[str, Any]:
    """What became of a photo."""
    from extreme3d_fast import NoFaceFound, Provenance

    out: dict[str, Any] = {"group": sample.group, "photo": sample.name, "found": False}
    try:
        face = context.reconstructor.reconstruct(sample.image)
    except NoFaceFound:
        return {**out, "error": None}
    except Exception as error:  # a crash is a result too: it is counted
        return {**out, "error": f"{type(error).__name__}: {error}"}
    head = context.model.landmark_basis("68").positions(face.identity, face.expression)
    counts = mesh_counts(face.vertices, face.faces, neck=float(head[8, 1]))
    shares = np.bincount(face.provenance, minlength=len(Provenance)) / len(face.provenance)
    return {
        **out,
        "found": True,
        "elsewhere": None if sample.points is None else is_elsewhere(face, head, sample.points),
        "faults": faults_of(counts),
        "warnings": list(face.warnings),
        "provenance": {p.name.lower(): round(float(shares[p]), 4) for p in Provenance},
    }


def is_elsewhere(face: Any, head: np.ndarray, points: np.ndarray) -> bool:
    """Whether the middle of a face's landmarks lies off the face that is meant, as for drift."""
    pose = np.asarray(face.camera_from_head, np.float64)
    in_crop = face.camera.project(head @ pose[:3, :3].T + pose[:3, 3])
    x, y, w = np.linalg.inv(face.crop_from_image) @ [*in_crop.mean(0), 1.0]
    low, high = points.min(0), points.max(0)
    off = np.linalg.norm(np.array([x, y]) / w - (low + high) / 2)
    return bool(off > LOST * np.sqrt(np.prod(high - low)))


def kind_of(warning: str) -> str:
    """A warning without its numbers."""
    return re.sub(r"\d+(\.\d+)?", "N", warning)


def of_group(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found = [r for r in rows if r["found"]]
    known = [r for r in found if r["elsewhere"] is not None]
    astray = sum(r["elsewhere"] for r in known)
    return {
        "done": proportion(len(found) - astray, len(rows)),
        "no_face": sum(not r["found"] and r["error"] is None for r in rows),
        "errors": dict(Counter(r["error"] for r in rows if not r["found"] and r["error"])),
        "elsewhere": astray,
        "labelled": len(known),
        "valid": proportion(sum(not r["faults"] for r in found), len(found)),
        "faults": dict(Counter(kind_of(f) for r in found for f in r["faults"])),
        "warned": proportion(sum(bool(r["warnings"]) for r in found), len(found)),
        "warnings": dict(Counter(kind_of(w) for r in found for w in r["warnings"]).most_common()),
        "provenance": {
            name: summary([r["provenance"][name] for r in found])
            for name in (found[0]["provenance"] if found else ())
        },
    }


def lines(report: Mapping[str, Any]) -> list[str]:
    out = [
        f"photos of persons that training left out (one in {HELD_OUT}), the paper's photos, and "
        "the former covered; % (95 % interval, Wilson)",
        "done: a head, and where the face is labelled, of that face; whole: finite, one piece, "
        "manifold edges and vertices, oriented, no degenerate faces, one border, on the neck",
        f"{'':<18}{'n':>5}{'done':>22}{'no face':>9}{'astray':>8}{'whole':>22}{'warned':>22}"
        f"{'observed':>10}{'filled':>8}{'mirrored':>10}{'model':>8}",
    ]
    for name, g in report["groups"].items():
        shares = [
            f"{100 * g['provenance'][k]['mean']:.0f}" if g["provenance"] else "-"
            for k in ("observed", "filled", "mirrored", "model")
        ]
        out.append(
            f"{name:<18}{g['done']['n']:>5}{_cell(g['done']):>22}{g['no_face']:>9}"
            f"{g['elsewhere']:>8}{_cell(g['valid']):>22}{_cell(g['warned']):>22}"
            f"{shares[0]:>10}{shares[1]:>8}{shares[2]:>10}{shares[3]:>8}"
        )
    whole = report["groups"]["all"]
    for title in ("errors", "faults", "warnings"):
        text = "; ".join(f"{count}x {text}" for text, count in whole[title].items())
        out.append(f"{title}: {text or 'none'}")
    return out


def _cell(share: Mapping[str, Any]) -> str:
    if share["value"] is None:
        return "-"
    return f"{100 * share['value']:.1f} ({between(share, 1, scale=100)})"
