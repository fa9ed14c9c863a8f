"""Describes who is on every labelled photo, with dlib's face recognition network.

    python train/descriptors.py --data ../shared/data --out FOLDER

writes FOLDER/descriptors.npz: `name` (n,) and `descriptor` (n, 128) float32 as dlib gives them, not
of length 1, the same person where the distance is small. Prints how well the descriptors tell the
persons of YouTube Faces apart.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from extreme3d_fast.detect import ASSETS, MESH68
from extreme3d_fast.identity import face_chip
from extreme3d_fast.pose import network_size
from extreme3d_fast.session import Session

BATCH = 16


def ranking(same: np.ndarray, other: np.ndarray) -> float:
    """ROC-AUC: how often a distance of `same` is below one of `other`."""
    order = np.sort(other)
    below = np.searchsorted(order, same, "left") + np.searchsorted(order, same, "right")
    return float(1 - below.mean() / (2 * len(order)))


def told_apart(names: np.ndarray, descriptors: np.ndarray) -> dict[str, float]:
    """ROC-AUC over all pairs of YouTube Faces, and with same pairs from different videos only.

    A name is `Person_VF`: V numbers the videos, F the frames.
    """
    stems = [Path(name).stem for name in names.tolist()]
    chosen = [i for i, name in enumerate(names) if name.startswith("youtube_faces")]
    persons = np.array([stems[i].rsplit("_", 1)[0] for i in chosen])
    videos = np.array([stems[i][:-1] for i in chosen])
    x = descriptors[chosen].astype(np.float64)
    square = (x**2).sum(1)
    distance = square[:, None] + square - 2 * x @ x.T
    pair = np.triu(np.ones(distance.shape, bool), 1)
    same = pair & (persons[:, None] == persons)
    other = distance[pair & ~same]
    return {
        "persons": len(set(persons.tolist())),
        "photos": len(chosen),
        "auc": ranking(distance[same], other),
        "auc_other_video": ranking(distance[same & (videos[:, None] != videos)], other),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--step", type=int, default=1, help="describe every n-th photo")
    options = parser.parse_args()
    session = Session(ASSETS / "identity.onnx", threads=1)
    size = network_size(session)
    with np.load(options.data / "photos" / "landmarks478.npz") as labels:
        names = labels["names"][:: options.step]
        points = labels["xy_u16"][:: options.step, MESH68].astype(float) / 8 - 256
    descriptors = []
    for start in range(0, len(names), BATCH):
        chips = []
        for name, face in zip(names[start:][:BATCH], points[start:][:BATCH], strict=True):
            image = cv2.imread(str(options.data / "photos" / name))
            if image is None:
                raise SystemExit(f"--data: cannot read photos/{name}")
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            chips.append(face_chip(image, face, size))
        images = np.stack(chips).astype(np.float32)
        descriptors.append(session.run({"image": images})["descriptor"])
        if start // BATCH % 40 == 39:
            print(f"{start + len(chips)} of {len(names)}", flush=True)
    result = np.concatenate(descriptors)
    options.out.mkdir(parents=True, exist_ok=True)
    np.savez(options.out / "descriptors.npz", name=names, descriptor=result)
    print(json.dumps({"described": len(names), **told_apart(names, result)}))


if __name__ == "__main__":
    main()
