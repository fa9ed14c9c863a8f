"""Collects what the pose network takes for a face where there is none, for it to learn from.

    python train/mine_faceless.py --data ../shared/data --sets SETS --count 700

Faces of training photos are covered whole with pieces of other photos; wherever the search of
`extreme3d_fast.localize` then is still sure of one, it is wrong. Writes SETS/faceless.npy, (n, 128,
128, 3) uint8, which `dataset.py` takes negatives from. Needs the network's ONNX file in the assets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from store import is_held_out, person_of

from extreme3d_fast.detect import FaceDetector
from extreme3d_fast.localize import SIDES, _squares, follow
from extreme3d_fast.pose import PoseNetwork, network_crop

LEAST = 0.25  # confidence that makes a window worth learning from
WINDOWS = 6  # a photo
MARGIN = 0.35  # of the face's box that is covered with it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/")
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument("--count", type=int, default=700, help="photos")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    photos = options.data / "photos"
    with np.load(photos / "landmarks478.npz") as labels:
        names, xy = labels["names"], labels["xy_u16"].astype(np.float32) / 8 - 256
    rng = np.random.default_rng(options.seed)
    pool = [i for i, n in enumerate(names.tolist()) if wanted(n)]
    network, detector = PoseNetwork(threads=1), FaceDetector(threads=1)
    found: list[np.ndarray] = []
    for i, j in rng.choice(pool, (options.count, 2)):
        photo, other = (read(photos / str(names[k])) for k in (i, j))
        cover(rng, photo, xy[i], other, xy[j])
        if not detector.detect(photo):  # somebody else may be in it
            found += windows(photo, network)
    if not found:
        raise SystemExit(f"the network takes nothing for a face in {options.count} photos")
    np.save(options.sets / "faceless.npy", np.stack(found))
    print(f"{len(found)} windows of {options.count} photos")


def wanted(name: str) -> bool:
    """Large photos, none of the people kept for validation."""
    return name.startswith(("celebamask", "youtube")) and not is_held_out(person_of(name))


def read(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def box_of(points: np.ndarray, shape: tuple[int, ...], margin: float) -> tuple[int, int, int, int]:
    low, high = points.min(0), points.max(0)
    low, high = low - margin * (high - low), high + margin * (high - low)
    x0, y0 = np.clip(low, 0, [shape[1] - 2, shape[0] - 2]).astype(int)
    x1, y1 = np.clip(high, [x0 + 2, y0 + 2], [shape[1], shape[0]]).astype(int)
    return x0, y0, x1, y1


def cover(rng, photo, points, other, other_points) -> None:
    """Puts a piece of another photo from beside its face over a face, in place."""
    x0, y0, x1, y1 = box_of(points, photo.shape, MARGIN)
    left, _, right, _ = box_of(other_points, other.shape, 0.2)
    sides = [other[:, :left], other[:, right:]]
    piece = max(sides, key=lambda side: side.shape[1])
    if piece.shape[1] < 20:
        piece = cv2.GaussianBlur(other, (0, 0), 30)
    height = int(rng.uniform(0.3, 1.0) * piece.shape[0])
    top = int(rng.integers(0, piece.shape[0] - height + 1))
    patch = cv2.resize(piece[top : top + height], (x1 - x0, y1 - y0))
    shape = np.zeros(patch.shape[:2], np.float32)
    if rng.random() < 0.5:
        shape[:] = 1
    else:
        half = (int(x1 - x0) // 2, int(y1 - y0) // 2)
        cv2.ellipse(shape, half, half, 0, 0, 360, 1.0, -1)
    area = photo[y0:y1, x0:x1]
    area[:] = area + shape[..., None] * (patch.astype(np.float32) - area)


def windows(photo: np.ndarray, network: PoseNetwork) -> list[np.ndarray]:
    """What the search would have followed, as the network saw it at last."""
    squares = [s for sides in SIDES for s in _squares(photo.shape[1], photo.shape[0], sides)]
    first = sorted(network.estimate(photo, squares), key=lambda e: -e.confidence)[:WINDOWS]
    crops = []
    for estimate in first:
        second = follow(photo, network, estimate.square, 1)
        if second.confidence > LEAST:
            crops.append(network_crop(photo, estimate.square, network.size).astype(np.uint8))
    return crops


if __name__ == "__main__":
    main()
