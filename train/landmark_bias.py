"""Measures where the 468-point Face Mesh network places its points relative to the 478-point one.

The head model's "478" correspondences are calibrated on labels of MediaPipe's attention network,
which is closer to eyelids and lips; the package runs the plain network. The mean difference on
near-frontal photos, in mm of the head frame, goes to assets/landmark_bias.npy.

    python train/landmark_bias.py --data ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from extreme3d_fast.detect import FaceDetector
from extreme3d_fast.head_model import HeadModel

ASSET = Path(__file__).parents[1] / "python" / "extreme3d_fast" / "assets" / "landmark_bias.npy"
N_POINTS = 468
MAX_ANGLE = 12.0  # degrees of yaw, pitch and roll


def photo_difference(plain: np.ndarray, label: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """(468, 2) plain - label in mm, x to the subject's left, y up, both (468, 2) px of one photo."""
    p, q, m = (a @ [1, sign * 1j] for a, sign in ((plain, -1), (label, -1), (mean[:, :2], 1)))
    p, q, m = p - p.mean(), q - q.mean(), m - m.mean()
    p_from_q = (q.conj() @ p) / (q.conj() @ q)  # similarity: the networks agree on pose and size
    m_from_p = (p.conj() @ m) / (p.conj() @ p)
    d = m_from_p * (p - p_from_q * q)
    return np.stack([d.real, d.imag], 1)


def mirror_table(mean: np.ndarray) -> np.ndarray:
    """(468,) landmark that is each one's left-right image; the correspondences are symmetric."""
    distance = np.linalg.norm(mean[:, None] - mean[None] * [-1, 1, 1], axis=2)
    mirror: np.ndarray = distance.argmin(1)
    if not (mirror[mirror] == np.arange(len(mean))).all():
        raise SystemExit("the head model's landmarks are not left-right symmetric")
    return mirror


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/")
    parser.add_argument("--count", type=int, default=800, help="photos to look at")
    options = parser.parse_args()
    photos = options.data / "photos"
    labels, points = (dict(np.load(photos / n)) for n in ("face_labels.npz", "landmarks478.npz"))
    clear = np.array([n.startswith(("celebamask", "utkface")) for n in labels["names"].tolist()])
    pool = np.flatnonzero(clear & (np.abs(labels["pose_whenet"]) < MAX_ANGLE).all(1))
    chosen = np.random.default_rng(0).choice(pool, min(options.count, len(pool)), replace=False)
    mean = HeadModel.load().landmark_basis("478").mean[:N_POINTS].astype(float)
    detector = FaceDetector(threads=1)
    differences = []
    for i in chosen:
        image = cv2.cvtColor(cv2.imread(str(photos / labels["names"][i])), cv2.COLOR_BGR2RGB)
        faces = detector.detect(image)
        if faces:
            plain = detector.landmarks(image, faces[0]).points[:, :2].astype(float)
            label = points["xy_u16"][i, :N_POINTS].astype(float) / 8 - 256
            differences.append(photo_difference(plain, label, mean))
    bias = np.median(differences, 0)
    mirror = mirror_table(mean)
    bias = 0.5 * (bias + bias[mirror] * [-1, 1])
    half = len(differences) // 2
    repeat = np.abs(np.median(differences[:half], 0) - np.median(differences[half:], 0)).mean()
    print(
        f"{len(differences)} photos: bias {np.linalg.norm(bias, axis=1).mean():.2f} mm on average, "
        f"{np.linalg.norm(bias, axis=1).max():.2f} mm at most; halves differ by {repeat:.2f} mm"
    )
    np.save(ASSET, bias.astype(np.float32))


if __name__ == "__main__":
    main()
