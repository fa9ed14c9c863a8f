"""The shipped reference set (§4.2): faces of the research photos, and a choice of them.

    python train/build_references.py --data DATA --work FOLDER [--asset FILE] [--sheet FILE]

First each photo is examined as `extreme3d references build` does, about 0.1 s each, in parts of
which those that exist are not made again unless a network, the head model or the checks have
changed: it can be stopped and goes on. Held-out persons are left out. Then up to COUNT faces are
chosen for coverage of viewpoint, and within a viewpoint of persons, ages and strength of relief;
clearer photos are preferred, and a person comes once a viewpoint. Names stay in FOLDER.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from preview import shaded_depth, sheet
from store import is_held_out, person_of

from extreme3d_fast import face_chart, reference_builder, references
from extreme3d_fast.detect import ASSETS
from extreme3d_fast.face_chart import MM_PER_PX
from extreme3d_fast.reference_builder import Measures, ReferenceBuilder
from extreme3d_fast.references import ReferenceSet, ReferenceWriter

Float = npt.NDArray[np.float64]

FOLDERS = ("celebamask", "utkface", "youtube_faces", "fasseg_profile")
SOURCE = "photos of CelebAMask-HQ, UTKFace, YouTube Faces and FASSEG"
LICENCE = "non-commercial research, as the photos; see references.card.md"
MADE_WITH = ("bump.onnx", "identity.onnx", "foundation.onnx", "pose.onnx", "head.npz")
CODE = (reference_builder, face_chart, references)  # what decides what a part holds

GLASSES = 3  # class of CelebAMask-HQ
MIN_GLASSES = 60  # px of its 256 px labels

YAW_EDGES = (7.5, 15.0, 25.0, 35.0, 50.0)  # degrees to either side: mirror images count too
PITCH_EDGES = (-15.0, -5.0, 5.0, 15.0)
# The same person in about the same view adds nothing: known by name, or by this cosine, where
# descriptors lie 0.45 apart: dlib takes 0.6 for one person, strangers of small photos reach that.
SAME_PERSON = 0.95
SAME_VIEW = 12.0  # degrees
# Differences that are worth one unit of distance between descriptors of length 1.
AGE_SCALE = 40.0  # years
RELIEF_SCALE = 0.6  # of the logarithm of its RMS
UNKNOWN_AGE = 35.0
# From where on more adds nothing, and the least that a bad one counts.
GOOD_FACE_PX, GOOD_SHARPNESS, LEAST_QUALITY = 220.0, 0.012, 0.5


class Entries(NamedTuple):
    """What choosing knows of each face."""

    name: list[str]  # FOLDER/FILE
    person: list[str]
    age: Float  # years; NaN where nobody knows
    measures: dict[str, Float]


def photos(data: Path, limit: int) -> list[str]:
    """Photos of persons who are not held out, FOLDER/FILE; `limit` of each folder, 0 is all."""
    names = []
    for folder in FOLDERS:
        found = [f"{folder}/{p.name}" for p in sorted((data / folder).glob("*.jpg"))]
        found = [name for name in found if not is_held_out(person_of(name))]
        names += found[:: max(1, len(found) // limit)][:limit] if limit else found
    return names


def age_of(name: str) -> float:
    """Years, as the names of UTKFace's files tell; else NaN."""
    folder, stem = name.split("/")[0], Path(name).stem
    return float(stem.split("_")[0]) if folder == "utkface" else float("nan")


def wears_glasses(data: Path, name: str) -> bool:
    """True where CelebAMask-HQ's labels show glasses."""
    folder, stem = name.split("/")[0], Path(name).stem
    if folder != "celebamask":
        return False
    labels = cv2.imread(str(data / "celebamask_parsing" / f"{stem}.png"), cv2.IMREAD_GRAYSCALE)
    return labels is not None and np.count_nonzero(labels == GLASSES) >= MIN_GLASSES


# === Parts ===


def stamp() -> str:
    """Changes with whatever the parts are made with."""
    digest = hashlib.sha256()
    code = (Path(module.__file__) for module in CODE)
    for path in (*(ASSETS / name for name in MADE_WITH), *code):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def part_path(work: Path, k: int) -> Path:
    return work / f"part_{k:03d}.npz"


def is_done(work: Path, k: int, names: Sequence[str], made_with: str) -> bool:
    log = part_path(work, k).with_suffix(".json")
    if not log.is_file():
        return False
    told = json.loads(log.read_text())
    return bool(told["stamp"] == made_with and told["photos"] == list(names))


def build_part(
    builder: ReferenceBuilder, data: Path, work: Path, k: int, names: Sequence[str], made_with: str
) -> None:
    """Writes the faces of some photos (part_K.npz, none if no photo will do), then what is known of
    them (part_K.json), which says that the part is done."""
    path = part_path(work, k)
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    taken: list[dict[str, Any]] = []
    tally: collections.Counter[str] = collections.Counter()
    found = []
    for name in names:
        folder = name.split("/")[0]
        if wears_glasses(data, name):
            tally[f"{folder}: glasses"] += 1
            continue
        candidate = builder.examine(data / name)
        tally[f"{folder}: {candidate.refusal or 'taken'}"] += 1
        if not candidate.refusal:
            assert candidate.measures is not None
            found.append((candidate.face, candidate.descriptor))
            taken.append({"name": name, **dataclasses.asdict(candidate.measures)})
    if found:
        with ReferenceWriter(path, **builder.metadata, source=SOURCE, licence=LICENCE) as writer:
            for face, descriptor in found:
                writer.add(face, descriptor)
    log = {"stamp": made_with, "photos": list(names), "taken": taken, "tally": tally}
    path.with_suffix(".json").write_text(json.dumps(log))


def build_parts(data: Path, work: Path, names: Sequence[str], size: int) -> int:
    """Makes what is missing; returns how many parts there are."""
    parts = [names[i : i + size] for i in range(0, len(names), size)]
    made_with = stamp()
    missing = [k for k, part in enumerate(parts) if not is_done(work, k, part, made_with)]
    builder = ReferenceBuilder() if missing else None
    start = time.monotonic()
    for done, k in enumerate(missing, 1):
        assert builder is not None
        build_part(builder, data, work, k, parts[k], made_with)
        spent = time.monotonic() - start
        left = spent / done * (len(missing) - done)
        print(f"part {k}: {done} of {len(missing)}, {spent:.0f} s, {left:.0f} s left", flush=True)
    return len(parts)


# === Choosing ===


def quality(measures: dict[str, Float]) -> Float:
    """(N,) in (0, 1]: how clear the photos are."""
    large = np.clip(measures["face_px"] / GOOD_FACE_PX, LEAST_QUALITY, 1)
    sharp = np.clip(measures["sharpness"] / GOOD_SHARPNESS, LEAST_QUALITY, 1)
    whole = 1 - measures["hidden"] - measures["outside"]
    return np.asarray(large * sharp * whole)


def view_bins(yaw_pitch: Float) -> npt.NDArray[np.int64]:
    """(N,) the same number for about the same viewpoint, mirrored or not."""
    yaw = np.digitize(np.abs(yaw_pitch[:, 0]), YAW_EDGES)
    pitch = np.digitize(yaw_pitch[:, 1], PITCH_EDGES)
    return np.asarray(yaw * (len(PITCH_EDGES) + 1) + pitch)


def features(descriptors: Float, entries: Entries) -> Float:
    """(N, F) whose distances say how different faces are as references."""
    unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    age = np.where(np.isfinite(entries.age), entries.age, UNKNOWN_AGE) / AGE_SCALE
    relief = np.log(entries.measures["roughness"]) / RELIEF_SCALE
    return np.column_stack([unit, age, relief])


def choose(viewpoints: Float, yaw_pitch: Float, descriptors: Float, entries: Entries, count: int):
    """Indices of up to `count` faces, in ascending order.

    Bins of viewpoints take turns, each as often as the square root of its size asks, so that rare
    views are kept and common ones vary. In a bin the next face is the one that is most unlike those
    taken from it (farthest point), times its quality.

    Args:
        viewpoints: (N, 4) unit quaternions w, x, y, z.
        yaw_pitch: (N, 2) degrees.
        descriptors: (N, D).
    """
    place, good = features(descriptors, entries), quality(entries.measures)
    unit = place[:, : descriptors.shape[1]]
    person = np.unique(entries.person, return_inverse=True)[1]
    mirrored = viewpoints * [1, 1, -1, -1]
    bins = view_bins(yaw_pitch)
    members = {int(b): np.flatnonzero(bins == b) for b in np.unique(bins)}
    turns = dict.fromkeys(members, 0)
    apart = np.ones(len(bins))  # distance to the nearest face taken from the same bin
    open_ = np.ones(len(bins), bool)
    taken: list[int] = []
    while len(taken) < count:
        ready = [b for b, some in members.items() if open_[some].any()]
        if not ready:
            break
        bin_ = min(ready, key=lambda b: (turns[b] / np.sqrt(len(members[b])), b))
        some = members[bin_]
        i = int(some[np.argmax(np.where(open_[some], apart[some] * good[some], -1))])
        taken.append(i)
        far = np.linalg.norm(place[some] - place[i], axis=1)
        apart[some] = far if turns[bin_] == 0 else np.minimum(apart[some], far)
        turns[bin_] += 1
        half = np.maximum(np.abs(viewpoints @ viewpoints[i]), np.abs(mirrored @ viewpoints[i]))
        near = half > np.cos(np.radians(SAME_VIEW / 2))
        open_ &= ~(near & ((person == person[i]) | (unit @ unit[i] > SAME_PERSON)))
        open_[i] = False
    return np.sort(np.asarray(taken, np.int64))


def load_parts(work: Path, count: int) -> tuple[list[tuple[ReferenceSet, int]], Entries]:
    """(set, index) of each face of all parts, and what is known of it; prints the tally."""
    faces: list[tuple[ReferenceSet, int]] = []
    taken: list[dict[str, Any]] = []
    tally: collections.Counter[str] = collections.Counter()
    for k in range(count):
        path = part_path(work, k)
        told = json.loads(path.with_suffix(".json").read_text())
        tally.update(told["tally"])
        taken += told["taken"]
        if told["taken"]:
            part = ReferenceSet.load(path)
            faces += [(part, i) for i in range(len(part))]
    for reason, number in sorted(tally.items()):
        print(f"{number:6d} {reason}")
    if not faces:
        raise SystemExit("no photo will do")
    names = [row["name"] for row in taken]
    entries = Entries(
        names,
        [person_of(name) for name in names],
        np.array([age_of(name) for name in names]),
        {f.name: np.array([row[f.name] for row in taken]) for f in dataclasses.fields(Measures)},
    )
    return faces, entries


def write_chosen(
    faces: Sequence[tuple[ReferenceSet, int]], chosen: Sequence[int], path: Path
) -> None:
    with ReferenceWriter(path, **faces[0][0].metadata) as writer:
        for i in chosen:
            source, index = faces[i]
            source.copy(index, writer)


def report(chosen: ReferenceSet, entries: Entries, rows: npt.NDArray[np.int64]) -> None:
    """The numbers of the card."""
    size = chosen.path.stat().st_size
    each = size / len(chosen)
    print(f"{chosen.path}: {len(chosen)} faces, {size / 1e6:.2f} MB, {each:.0f} B each")
    folders = collections.Counter(entries.name[i].split("/")[0] for i in rows)
    print("from " + ", ".join(f"{folder} {folders[folder]}" for folder in FOLDERS))
    yaw, pitch = chosen.yaw_pitch.T
    for name, angle, edges in (("|yaw|", abs(yaw), (0, *YAW_EDGES)), ("pitch", pitch, PITCH_EDGES)):
        counts = np.bincount(np.digitize(angle, edges), minlength=len(edges) + 1)
        print(f"{name} between {edges} degrees: {counts.tolist()}")
    ages = entries.age[rows]
    ages = ages[np.isfinite(ages)]
    if len(ages):
        counts = np.histogram(ages, (0, 13, 20, 30, 45, 60, 75, 120))[0]
        print(f"ages below 13, 20, 30, 45, 60, 75 and above, where known: {counts.tolist()}")
    for name in ("face_px", "sharpness", "roughness", "hidden"):
        values = np.percentile(entries.measures[name][rows], [5, 50, 95])
        print(f"{name}: {values[0]:.3g} / {values[1]:.3g} / {values[2]:.3g} (5, 50, 95 %)")


def draw(chosen: ReferenceSet, count: int, path: Path) -> None:
    """Some of the bump maps in clay."""
    tiles = []
    rows = np.random.default_rng(0).permutation(len(chosen))[:count]
    for i in np.sort(rows):
        face = chosen.face(int(i))
        tile = shaded_depth(face.bump, MM_PER_PX)
        tiles.append(np.where(face.seen[..., None], tile, tile // 2))
    cv2.imwrite(str(path), sheet(tiles, 6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = os.environ.get("EXTREME3D_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--work", type=Path, required=True, help="folder of the parts")
    parser.add_argument("--limit", type=int, default=0, help="photos of each folder; 0 is all")
    parser.add_argument("--part", type=int, default=250, help="photos in a part")
    parser.add_argument("--count", type=int, default=2000, help="faces to choose, at most")
    parser.add_argument("--megabytes", type=float, default=13.0, help="size of the file, at most")
    parser.add_argument("--asset", type=Path, default=ASSETS / "references.npz")
    parser.add_argument("--sheet", type=Path, help="picture of 40 of the chosen bump maps")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    data = options.data / "photos"
    names = photos(data, options.limit)
    if not names:
        raise SystemExit(f"no photos in {data}")
    faces, entries = load_parts(options.work, build_parts(data, options.work, names, options.part))
    parts = list(dict.fromkeys(part for part, _ in faces))
    size = sum(part.path.stat().st_size for part in parts) / len(faces)
    rows = choose(
        np.concatenate([part.viewpoints for part in parts]).astype(np.float64),
        np.concatenate([part.yaw_pitch for part in parts]),
        np.concatenate([part.descriptors for part in parts]).astype(np.float64),
        entries,
        min(options.count, int(1e6 * options.megabytes / size)),
    )
    write_chosen(faces, rows.tolist(), options.asset)
    chosen = ReferenceSet.load(options.asset)
    report(chosen, entries, rows)
    if options.sheet:
        draw(chosen, 40, options.sheet)


if __name__ == "__main__":
    main()
