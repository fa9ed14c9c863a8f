"""Describes who is on every labelled photo, with dlib's face recognition network.

    python train/descriptors.py --network FOLDER/dlib.onnx --data ../shared/data --out FOLDER

writes FOLDER/descriptors.npz: `name` (n,) and `descriptor` (n, 128) float32, the same person where
the distance is small. Prints how well the descriptors tell the persons of YouTube Faces apart.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from extreme3d_fast.detect import MESH68, warp_similarity
from extreme3d_fast.session import Session

BATCH = 16
PADDING = 0.25  # round the average face, in its widths
# The average face of dlib's get_face_chip_details (dlib/image_transforms/interpolation.h, Boost
# Software License 1.0) without brows and lower lip, in a unit square: points 27-54 and 60-64 of 68.
CHIP_POINTS = [*range(27, 55), *range(60, 65)]
CHIP_X = [
    *[0.490127, 0.490127, 0.490127, 0.490127, 0.36688, 0.426036, 0.490127, 0.554217, 0.613373],
    *[0.121737, 0.187122, 0.265825, 0.334606, 0.260918, 0.182743],
    *[0.645647, 0.714428, 0.793132, 0.858516, 0.79751, 0.719335],
    *[0.254149, 0.340985, 0.428858, 0.490127, 0.551395, 0.639268, 0.726104],
    *[0.290379, 0.428096, 0.490127, 0.552157, 0.689874],
]
CHIP_Y = [
    *[0.203352, 0.307009, 0.409805, 0.515625, 0.587326, 0.609345, 0.628106, 0.609345, 0.587326],
    *[0.216423, 0.178758, 0.179852, 0.231733, 0.245099, 0.244077],
    *[0.231733, 0.179852, 0.178758, 0.216423, 0.244077, 0.245099],
    *[0.780233, 0.745405, 0.727388, 0.742578, 0.727388, 0.745405, 0.780233],
    *[0.784792, 0.778746, 0.785343, 0.778746, 0.784792],
]


def chip_from_image(points: np.ndarray, size: int) -> np.ndarray:
    """(3, 3) similarity to dlib's face chip of (68, 2) points; pixel centres at + 0.5.

    As dlib does, least squares are taken in the photo: of the chip's points laid onto the photo's.
    dlib's chips lie half a pixel up and left of its template; so do these (measured).
    """
    template = (np.stack([CHIP_X, CHIP_Y], 1) + PADDING) / (1 + 2 * PADDING) * size
    a, b = template @ [1, 1j], points[CHIP_POINTS] @ [1, 1j]
    centred = a - a.mean()
    scale = (centred.conj() @ (b - b.mean())) / (centred.conj() @ centred)
    shift = b.mean() - scale * a.mean()
    image_from_chip = np.array(
        [
            [scale.real, -scale.imag, shift.real],
            [scale.imag, scale.real, shift.imag],
            [0, 0, 1],
        ]
    )
    return np.linalg.inv(image_from_chip)


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
    parser.add_argument("--network", type=Path, required=True, help="from convert_dlib.py")
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--step", type=int, default=1, help="describe every n-th photo")
    options = parser.parse_args()
    session = Session(options.network, threads=1)
    size = int(session.metadata["input_size"].split("x")[0])
    mean = np.array(session.metadata["mean"].split(","), np.float32)
    std = np.float32(session.metadata["std"])
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
            chips.append(warp_similarity(image, chip_from_image(face, size), size))
        images = (np.stack(chips) - mean) / std
        descriptors.append(session.run({"image": images})["descriptor"])
        if start // BATCH % 40 == 39:
            print(f"{start + len(chips)} of {len(names)}", flush=True)
    result = np.concatenate(descriptors)
    options.out.mkdir(parents=True, exist_ok=True)
    np.savez(options.out / "descriptors.npz", name=names, descriptor=result)
    print(json.dumps({"described": len(names), **told_apart(names, result)}))


if __name__ == "__main__":
    main()
