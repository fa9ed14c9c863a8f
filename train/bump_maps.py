"""Bump maps of labelled photos, for train_recognition.py.

    python train/bump_maps.py --data DATA --out FOLDER [--others N]

Runs the package on YouTube Faces and on N photos of CelebAMask-HQ and UTKFace, 0.2 s each, nothing
filled. Writes FOLDER/NNN.npz, so many photos a file; files that exist stay (delete them when the
bump network has changed). Maps are at half the crop's resolution, float16 mm.
"""

from __future__ import annotations

import argparse
import collections
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from store import is_held_out, person_of

from extreme3d_fast import NoFaceFound, Reconstructor

PER_FILE = 200
HALF = 250  # px
FIELDS = ("name", "person", "bump", "identity", "expression", "camera", "camera_from_head")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--others", type=int, default=3000, help="photos of other sets")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    names = chosen(options.data / "photos", options.others)
    reconstructor = Reconstructor(threads=1, occlusion="none", symmetry=False)
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for start in range(0, len(names), PER_FILE):
        path = options.out / f"{start // PER_FILE:03d}.npz"
        if path.exists():
            continue
        part = names[start : start + PER_FILE]
        rows = described(reconstructor, options.data / "photos", part)
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            np.savez(file, **rows)
        new.replace(path)
        print(
            f"{path.name}: {len(rows['name'])} of {len(part)}, {time.monotonic() - began:.0f} s",
            flush=True,
        )


def chosen(photos: Path, others: int) -> list[str]:
    """FOLDER/FILE of YouTube Faces, then of the others, evenly from both sets.

    Held-out persons of YouTube Faces come along for judging, others not at all.
    """

    def found(folder: str) -> list[str]:
        return [f"{folder}/{path.name}" for path in sorted((photos / folder).glob("*.jpg"))]

    rest: list[str] = []
    for folder in ("celebamask", "utkface"):
        names = [name for name in found(folder) if not is_held_out(person_of(name))]
        count = min(others // 2, len(names))
        rest += [names[i * len(names) // count] for i in range(count)]
    order = np.random.default_rng(0).permutation(len(rest))
    return found("youtube_faces") + [rest[i] for i in order]


def described(reconstructor: Reconstructor, photos: Path, names: list[str]) -> dict[str, Any]:
    """Rows of `FIELDS` of the photos in which a face is found."""
    rows: dict[str, list[Any]] = collections.defaultdict(list)
    for name in names:
        try:
            face = reconstructor.reconstruct(photos / name)
        except NoFaceFound:
            continue
        bump = cv2.resize(face.bump, (HALF, HALF), interpolation=cv2.INTER_AREA)
        values = (
            name,
            person_of(name),
            bump.astype(np.float16),
            face.identity,
            face.expression,
            np.array(face.camera.pinhole),
            face.camera_from_head,
        )
        for field, value in zip(FIELDS, values, strict=True):
            rows[field].append(value)
    return {field: np.array(rows[field]) for field in FIELDS}


if __name__ == "__main__":
    main()
