"""Which pixels of a crop show the face, from the labels of the research data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from bench.face_views import FaceView
from bench.pasting import KINDS

# CelebAMask-HQ's classes: skin, nose, eyes, brows, ears, mouth, lips
FACE_CLASSES = (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12)
EYES, GLASSES, HAIR, HAT = (4, 5), 3, 13, 14
# FASSEG's colours, RGB: skin with ears and neck, nose, mouth, eyes; hair with brows; background
FASSEG_FACE = ((255, 255, 0), (0, 255, 255), (0, 255, 0), (0, 0, 255))
FASSEG_HAIR, FASSEG_BACKGROUND = (127, 0, 0), (255, 0, 0)
_LABELLED = ("other", "hair", "hat", "glasses")
#: What hides the face: as labelled in the photo, and pasted.
HIDDEN_BY = (*_LABELLED, *(f"pasted {kind}" for kind in KINDS))
_MAX_BROW = 0.012  # of a picture's area; larger pieces of hair's colour are hair

_STAIRCASE = 0.7  # px of the label, smooths its steps
# What does not look like the photo's skin through glasses: L below this share of it, L above it by
# so much, a*b* apart by so much.
_DARK, _BRIGHT, _TINTED = 0.72, 25.0, 18.0
_DARK_LENSES = (0.4, 0.65)  # share of a lens that is unlike skin: without eyes, with
_FRAME = 2.5  # mm
_LEAST_LENS = 50  # px


@dataclass(frozen=True, eq=False)
class Labels:
    """Which pixels of a crop show the face, and what hides it elsewhere."""

    face: np.ndarray  # (S, S) bool
    judged: np.ndarray  # (S, S) bool
    hidden_by: np.ndarray  # (S, S) uint8, place in HIDDEN_BY

    def covered(self, kind: np.ndarray, view: FaceView) -> Labels:
        """The labels after something was pasted, see `Occluders.paste`."""
        at = _to_crop(view, kind.shape, kind.shape)
        size = (view.size, view.size)
        pasted = cv2.warpAffine(kind, at, size, flags=cv2.INTER_NEAREST)
        over = (pasted > 0) & view.in_photo
        return Labels(
            self.face & ~over,
            self.judged | over,
            np.where(over, len(_LABELLED) + pasted - 1, self.hidden_by).astype(np.uint8),
        )


def celebamask_labels(view: FaceView, parsing: np.ndarray, photo_shape: tuple[int, ...]) -> Labels:
    """Clear lenses are not judged; frames and dark lenses are not face."""
    face = [c for c in FACE_CLASSES if c not in EYES]
    other = [c for c in range(19) if c not in (*FACE_CLASSES, GLASSES, HAIR, HAT)]
    groups = (other, [HAIR], [HAT], [GLASSES], face, EYES)
    kind = strongest([np.isin(parsing, group) for group in groups], view, photo_shape)
    judged = view.in_photo.copy()
    glasses, eyes = kind == 3, kind == 5
    skin = (kind == 4) & view.face
    if skin.any():
        unlike = _unlike_skin(view.image, skin)
        side = 2 * round(_FRAME / view.mm_per_pixel) + 1
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        count, part = cv2.connectedComponents((glasses | eyes).view(np.uint8))
        for k in range(1, count):
            worn = (part == k) & glasses
            if not worn.any():
                continue
            behind = (part == k) & eyes
            lens = (cv2.erode((part == k).view(np.uint8), ellipse) > 0) & worn
            dark = unlike[lens].mean() if lens.sum() > _LEAST_LENS else 1.0
            if dark > _DARK_LENSES[int(behind.any())]:
                judged &= ~behind  # eyes are drawn through dark lenses
            else:
                judged &= ~(worn & ~unlike)
    return Labels((kind >= 4) & view.in_photo, judged, np.minimum(kind, 3).astype(np.uint8))


def fasseg_labels(view: FaceView, colours: np.ndarray, photo_shape: tuple[int, ...]) -> Labels:
    """Small pieces of hair's colour are brows, which are face."""
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
    kind = strongest([~face & ~hair, hair & ~face, face], view, photo_shape)
    return Labels((kind == 2) & view.in_photo, view.in_photo, np.minimum(kind, 1).astype(np.uint8))


def strongest(
    layers: Sequence[np.ndarray], view: FaceView, photo_shape: tuple[int, ...]
) -> np.ndarray:
    """(S, S) index of the layer that is strongest in each pixel of the crop."""
    return np.argmax([_in_crop(layer, view, photo_shape) for layer in layers], axis=0)


def _in_crop(layer: np.ndarray, view: FaceView, photo_shape: tuple[int, ...]) -> np.ndarray:
    """A mask of any resolution over the whole photo, its steps smoothed; 0 beyond."""
    soft = cv2.GaussianBlur(layer.astype(np.float32), (0, 0), _STAIRCASE)
    at = _to_crop(view, layer.shape, photo_shape)
    return np.asarray(cv2.warpAffine(soft, at, (view.size, view.size)))


def _to_crop(view: FaceView, shape: tuple[int, ...], photo_shape: tuple[int, ...]) -> np.ndarray:
    """(2, 3) for OpenCV, which puts pixel centres at whole numbers."""
    scale = np.diag([photo_shape[1] / shape[1], photo_shape[0] / shape[0], 1.0])
    center = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return np.asarray((np.linalg.inv(center) @ view.crop_from_image @ scale @ center)[:2])


def _unlike_skin(image: np.ndarray, skin: np.ndarray) -> np.ndarray:
    lab = cv2.cvtColor(
        cv2.GaussianBlur(image, (0, 0), 0.7).astype(np.float32) / 255, cv2.COLOR_RGB2Lab
    )
    tone = np.median(lab[skin], axis=0)
    out = (lab[..., 0] < _DARK * tone[0]) | (lab[..., 0] > tone[0] + _BRIGHT)
    return np.asarray(out | (np.hypot(*(lab[..., 1:] - tone[1:]).transpose(2, 0, 1)) > _TINTED))
