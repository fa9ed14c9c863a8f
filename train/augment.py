"""Turns a stored crop with its label into a training sample: occluders, jitter, light and noise.

Store crops are (192, 192, 3) uint8, see store.py; network crops are `extreme3d_fast.pose`'s square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from store import STORE_FOCAL, STORE_MM, STORE_SIZE

from extreme3d_fast.camera import rotation_from_vector
from extreme3d_fast.pose import FACE_CENTER, SIDE_MM


@dataclass(frozen=True)
class Jitter:
    """Deviations of a crop from the canonical square."""

    shift: float  # sides
    log_scale: float
    roll: float  # radians


# A crop from the networks' own first look, and one from a detector or a search.
REFINED = Jitter(0.03, 0.05, math.radians(4))
DETECTED = Jitter(0.10, 0.18, math.radians(18))
SEARCHED = Jitter(0.35, 0.5, math.radians(30))


class Occluders:
    """Cut-outs to paste, (h, w, 4) uint8 RGBA at most 160 px large, by kind."""

    KINDS = ("hands", "glasses", "masks", "objects", "hats")

    def __init__(self, folder: Path) -> None:
        self.images: dict[str, list[np.ndarray]] = {}
        for kind in self.KINDS:
            found = []
            for path in sorted((folder / kind).glob("*.png")):
                image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
                if image is None or image.ndim != 3 or image.shape[2] != 4:
                    continue
                scale = min(1.0, 160 / max(image.shape[:2]))
                image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                found.append(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA))
            if not found:
                raise SystemExit(f"no occluders in {folder / kind}")
            self.images[kind] = found

    def draw(self, rng: np.random.Generator, kind: str) -> np.ndarray:
        pool = self.images[kind]
        return pool[rng.integers(len(pool))]


def paste(image: np.ndarray, cutout: np.ndarray, center, size: float, angle: float, flip: bool):
    """Blends a cut-out of `size` px (larger side) over an image, in place; returns its alpha."""
    h, w = cutout.shape[:2]
    scale = size / max(h, w)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    mx = -1.0 if flip else 1.0
    m = np.array([[cos * mx, -sin, 0.0], [sin * mx, cos, 0.0]])
    m[:, 2] = np.asarray(center) - m[:, :2] @ [w / 2, h / 2]
    side = image.shape[0]
    warped = cv2.warpAffine(cutout, m, (side, side), flags=cv2.INTER_LINEAR)
    alpha = warped[..., 3:].astype(np.float32) * (1 / 255)
    image[:] = (image + alpha * (warped[..., :3].astype(np.float32) - image)).astype(np.uint8)
    return alpha[..., 0]


def tinted(rng: np.random.Generator, cutout: np.ndarray, spread: float) -> np.ndarray:
    """The cut-out in another tone: hands of every skin, objects of every colour."""
    out = cutout.copy()
    gain = rng.uniform(1 - spread, 1 + 0.3 * spread) * rng.uniform(1 - 0.2 * spread, 1.0, 3)
    out[..., :3] = np.clip(out[..., :3] * gain, 0, 255)
    return out


def occlude(rng: np.random.Generator, image: np.ndarray, occluders: Occluders, backgrounds) -> None:
    """Covers up to about 60 % of the face of an upright store crop, in place."""
    middle = STORE_SIZE / 2
    face = 150.0 / STORE_MM * STORE_SIZE  # px, width of a face
    for _ in range(rng.choice([1, 2, 3, 4], p=[0.42, 0.28, 0.18, 0.12])):
        kind = rng.choice(
            ["hands", "objects", "glasses", "masks", "patch"], p=[0.4, 0.2, 0.12, 0.1, 0.18]
        )
        where = middle + rng.uniform(-0.55, 0.55, 2) * face
        flip, angle = rng.random() < 0.5, rng.uniform(-math.pi, math.pi)
        if kind == "glasses":
            cutout = tinted(rng, occluders.draw(rng, "glasses"), 0.3)
            at = (middle + rng.normal(0, 4), middle - 0.3 * face + rng.normal(0, 4))
            paste(image, cutout, at, face * rng.uniform(0.85, 1.15), rng.normal(0, 0.1), flip)
        elif kind == "masks":
            cutout = tinted(rng, occluders.draw(rng, "masks"), 0.5)
            at = (middle + rng.normal(0, 5), middle + 0.3 * face + rng.normal(0, 6))
            paste(image, cutout, at, face * rng.uniform(0.7, 1.15), rng.normal(0, 0.2), flip)
        elif kind == "patch":
            # another picture held before the face, or a flat shape
            shape = np.zeros((96, 96, 4), np.uint8)
            shape[..., :3] = (
                backgrounds.draw(rng, 96) if rng.random() < 0.6 else rng.integers(0, 256, 3)
            )
            if rng.random() < 0.5:
                shape[..., 3] = 255
            else:
                cv2.ellipse(
                    shape, (48, 48), (46, int(rng.integers(16, 46))), 0, 0, 360, (0, 0, 0, 0), -1
                )
                alpha = np.zeros((96, 96), np.uint8)
                cv2.ellipse(alpha, (48, 48), (46, int(rng.integers(16, 46))), 0, 0, 360, 255, -1)
                shape[..., 3] = alpha
            paste(image, shape, where, face * rng.uniform(0.3, 0.9), angle, flip)
        else:
            cutout = tinted(rng, occluders.draw(rng, kind), 0.6)
            paste(image, cutout, where, face * rng.uniform(0.5, 1.5), angle, flip)


class Backgrounds:
    """Patches without faces: the borders of store crops, magnified and mirrored."""

    def __init__(self, images: np.ndarray, count: int = 400, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        patches = []
        for i in np.sort(rng.choice(len(images), min(count, len(images)), replace=False)):
            x, y = (0, 0) if rng.random() < 0.5 else (STORE_SIZE - 40, 0)
            patch = images[i][y : y + 72, x : x + 40]
            if patch.std() > 4:
                patches.append(np.concatenate([patch, patch[:, ::-1]], 1))
        self.patches = patches

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """(size, size, 3) uint8."""
        patch = self.patches[rng.integers(len(self.patches))]
        patch = np.rot90(patch, rng.integers(4))
        if rng.random() < 0.5:
            patch = np.concatenate([patch, patch[::-1]], 0)
        return cv2.resize(np.ascontiguousarray(patch), (size, size), interpolation=cv2.INTER_LINEAR)


def degrade(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Light, colour, resolution, blur, noise and compression of a (S, S, 3) uint8 crop."""
    size = image.shape[0]
    if rng.random() < 0.25:
        small = int(rng.uniform(24, 100))
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (size, size), interpolation=int(rng.choice([1, 2])))
    elif rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 2.0)))
    x = image.astype(np.float32)
    if rng.random() < 0.12:
        x[:] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    elif rng.random() < 0.5:
        grey = x.mean(2, keepdims=True)
        x = grey + (x - grey) * np.float32(rng.uniform(0.4, 1.5))
        x *= rng.uniform(0.88, 1.12, 3).astype(np.float32)
    if rng.random() < 0.7:
        mean = float(x.mean())
        x = (x - mean) * np.float32(rng.uniform(0.6, 1.35)) + np.float32(
            mean * rng.uniform(0.6, 1.4)
        )
    if rng.random() < 0.2:  # light from a side
        ramp = np.linspace(-1, 1, size, dtype=np.float32) * np.float32(rng.uniform(0.1, 0.5))
        ramp = ramp[None, :] if rng.random() < 0.7 else ramp[:, None]
        x *= (1 + (ramp if rng.random() < 0.5 else -ramp))[..., None]
    if rng.random() < 0.25:
        x += rng.standard_normal(x.shape, dtype=np.float32) * np.float32(rng.uniform(2, 14))
    image = np.clip(x, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        quality = int(rng.integers(15, 80))
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return image


def jittered(
    rng: np.random.Generator,
    image: np.ndarray,
    rotation: np.ndarray,
    translation: np.ndarray,
    jitter: Jitter,
    size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts a network crop that misses the canonical square by chance.

    Returns:
        crop (size, size, 3) uint8; rotation (3, 3) in the crop's camera; place (3,): position of
        the face centre in sides from the middle, and log of its distance over the nominal one.
    """
    center = rotation @ FACE_CENTER + translation
    at = STORE_FOCAL * center[:2] / center[2] + STORE_SIZE / 2
    px_per_mm = STORE_FOCAL / center[2]
    roll = float(np.clip(rng.normal(0, jitter.roll), -3, 3))
    log_scale = float(np.clip(rng.normal(0, jitter.log_scale), -1.2, 1.2))
    shift = rng.normal(0, jitter.shift, 2)
    side = SIDE_MM * px_per_mm * math.exp(log_scale)
    cos, sin = math.cos(roll), math.sin(roll)
    turn = np.array([[cos, sin], [-sin, cos]])
    # the square's middle lies `shift` sides from the face centre, along the square's own axes
    middle = at - turn.T @ shift * side
    m = np.zeros((2, 3))
    m[:, :2] = size / side * turn
    m[:, 2] = size / 2 - m[:, :2] @ middle
    # pixel centres are at + 0.5 here and at whole numbers in OpenCV
    m[:, 2] += m[:, :2] @ [0.5, 0.5] - 0.5
    border = [cv2.BORDER_REFLECT_101, cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT][
        rng.choice(3, p=[0.4, 0.2, 0.4])
    ]
    fill = (0, 0, 0) if rng.random() < 0.5 else tuple(map(int, rng.integers(0, 256, 3)))
    reduce = side / size  # store px a crop px covers
    if reduce > 1.3:
        image = cv2.GaussianBlur(image, (0, 0), 0.45 * math.sqrt(reduce**2 - 1))
    crop = cv2.warpAffine(
        image, m, (size, size), flags=cv2.INTER_LINEAR, borderMode=border, borderValue=fill
    )
    turned = rotation_from_vector([0.0, 0.0, -roll]) @ rotation
    place = np.array([shift[0], shift[1], log_scale])
    return crop, turned, place
