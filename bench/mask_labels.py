"""Which pixels of a crop show the face, from the labels of the research data."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from bench.face_views import FaceView

# CelebAMask-HQ's classes: skin, nose, eyes, brows, ears, mouth, lips
FACE_CLASSES = (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12)
EYES, GLASSES = (4, 5), 3
# FASSEG's colours, RGB: skin with ears and neck, nose, mouth, eyes; hair with brows; background
FASSEG_FACE = ((255, 255, 0), (0, 255, 255), (0, 255, 0), (0, 0, 255))
FASSEG_HAIR, FASSEG_BACKGROUND = (127, 0, 0), (255, 0, 0)
_MAX_BROW = 0.012  # of a picture's area; larger pieces of hair's colour are hair

_STAIRCASE = 0.7  # px of the label, smooths its steps
# What does not look like the photo's skin through glasses: L below this share of it, L above it by
# so much, a*b* apart by so much.
_DARK, _BRIGHT, _TINTED = 0.72, 25.0, 18.0
_DARK_LENSES = 0.5  # share of glasses that is unlike skin


def celebamask_truth(
    view: FaceView, parsing: np.ndarray, photo_shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(S, S) bool: shows the face; and (S, S) bool: judged. Clear lenses are not judged."""
    face = [c for c in FACE_CLASSES if c not in EYES]
    other = [c for c in range(19) if c not in FACE_CLASSES and c != GLASSES]
    layers = [np.isin(parsing, group) for group in (other, face, EYES, [GLASSES])]
    kind = strongest(layers, view, photo_shape)
    truth = np.isin(kind, (1, 2))
    judged = view.in_photo.copy()
    glasses = kind == 3
    skin = (kind == 1) & view.face
    if glasses.any() and skin.any():
        unlike = _unlike_skin(view.image, skin)
        judged &= ~(glasses & ~unlike)
        # the eyes are drawn through dark lenses
        if unlike[glasses].mean() > _DARK_LENSES:
            judged |= glasses
            judged &= kind != 2
    return truth & view.in_photo, judged


def fasseg_truth(
    view: FaceView, colours: np.ndarray, photo_shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """As `celebamask_truth`; small pieces of hair's colour are brows, which are face."""
    palette = np.array([*FASSEG_FACE, FASSEG_HAIR, FASSEG_BACKGROUND], np.float32)
    apart = np.abs(colours[:, :, None].astype(np.float32) - palette).sum(-1)
    labels = cv2.medianBlur(apart.argmin(-1).astype(np.uint8), 5)  # edges blend to other colours
    n_face = len(FASSEG_FACE)
    face, hair = labels < n_face, labels == n_face
    count, part, stats, _ = cv2.connectedComponentsWithStats(hair.view(np.uint8))
    for k in range(1, count):
        x, y, width, height, area = stats[k]
        edge = x == 0 or y == 0 or x + width == hair.shape[1] or y + height == hair.shape[0]
        if area < _MAX_BROW * labels.size and not edge:
            face |= part == k
    layers = [~face, face]
    return (strongest(layers, view, photo_shape) == 1) & view.in_photo, view.in_photo


def strongest(
    layers: Sequence[np.ndarray], view: FaceView, photo_shape: tuple[int, ...]
) -> np.ndarray:
    """(S, S) index of the layer that is strongest in each pixel of the crop."""
    return np.argmax([_in_crop(layer, view, photo_shape) for layer in layers], axis=0)


def covered_in_crop(covered: np.ndarray, view: FaceView) -> np.ndarray:
    """(S, S) bool: a mask of the photo's pixels in the crop."""
    return _in_crop(covered, view, covered.shape, 0.0) > 0.5


def _in_crop(
    layer: np.ndarray, view: FaceView, photo_shape: tuple[int, ...], sigma: float = _STAIRCASE
) -> np.ndarray:
    """A mask of any resolution over the whole photo; 0 beyond."""
    soft = layer.astype(np.float32)
    if sigma:
        soft = cv2.GaussianBlur(soft, (0, 0), sigma)
    scale = np.diag([photo_shape[1] / layer.shape[1], photo_shape[0] / layer.shape[0], 1.0])
    matrix = view.crop_from_image @ scale
    matrix[:2, 2] += matrix[:2, :2] @ [0.5, 0.5] - 0.5  # OpenCV: pixel centres at whole numbers
    return np.asarray(cv2.warpAffine(soft, matrix[:2], (view.size, view.size)))


def _unlike_skin(image: np.ndarray, skin: np.ndarray) -> np.ndarray:
    lab = cv2.cvtColor(
        cv2.GaussianBlur(image, (0, 0), 0.7).astype(np.float32) / 255, cv2.COLOR_RGB2Lab
    )
    tone = np.median(lab[skin], axis=0)
    out = (lab[..., 0] < _DARK * tone[0]) | (lab[..., 0] > tone[0] + _BRIGHT)
    return np.asarray(out | (np.hypot(*(lab[..., 1:] - tone[1:]).transpose(2, 0, 1)) > _TINTED))
