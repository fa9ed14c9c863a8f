"""Finds faces in a photo: boxes, 468 landmarks, and the upright square crop that all else works on.

The networks are BlazeFace (Bazarevsky et al. 2019) and Face Mesh (Kartynnik et al. 2019), converted
by train/convert_mediapipe.py. Points are continuous image coordinates in px: x right, y down, the
centre of pixel (column i, row j) at (i + 0.5, j + 0.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extreme3d_fast.crop import (
    Crop,
    HeadSquare,
    check_image,
    inverse,
    letterbox,
    letterbox_frame,
    rotation_2d,
    shrink_to,
    shrunk,
    transform_points,
    warp_similarity,
)
from extreme3d_fast.photo_network import ASSETS, OpenNetwork, PhotoSession, normalised

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]

DETECTOR_SIDE = 128  # px of BlazeFace's input
MIN_SCORE = 0.5  # BlazeFace's own threshold
MIN_CONFIDENCE = 0.5  # Face Mesh's own threshold, for candidates that need a second opinion
# Upside down, faces of real photos score up to 0.77; upright ones at least 0.86. So below this the
# other orientations are tried too, and Face Mesh is asked.
SURE_SCORE = 0.8
# Needed in tiles, and by faces that Face Mesh denies: pictures without a face reached 0.66.
LONE_SCORE = 0.7
NMS_IOU = 0.3  # boxes that overlap more are the same face (MediaPipe's value)
SAME_FACE_OVERLAP = 0.5  # intersection over the smaller box: a face cut by a tile's border
MAX_SEARCH_SIDE = 4096  # px; larger photos are searched at this size, which bounds memory
MIN_TILE = 192  # px; the 128 px network misses faces below 0.15 to 0.2 of a tile: about 40 px
TILE_STRIDE = 0.7  # of a tile's side: a face up to 0.3 of a tile lies inside one of them
TILE_BATCH = 16  # tiles per run: more does not run faster, fewer pays the call each time
ROI_SCALE = 1.5  # Face Mesh sees 1.5x the larger side of the face's box

# Face Mesh points nearest to the 68 dlib points: jaw, brows, nose, eyes, mouth (300-W order).
MESH68 = np.concatenate(
    [
        [162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389],
        [71, 63, 105, 66, 107, 336, 296, 334, 293, 301],
        [168, 197, 5, 4, 75, 97, 2, 326, 305],
        [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380],
        [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181],
        [78, 82, 13, 312, 308, 317, 14, 87],
    ]
)
RIGHT_EYE = [33, 133]  # the subject's right eye: outer and inner corner
LEFT_EYE = [263, 362]
# The authors' crop reaches this far from the middle of the tight box of the 68 points, in units of
# half the box's larger side.
CROP_REACH = {"left": 1.9255, "top": 2.2591, "right": 1.9423, "bottom": 1.6087}


@dataclass(frozen=True, eq=False)
class FaceDetection:
    """One face as the detector sees it."""

    box: Float32  #: (4,) x0, y0, x1, y1 in px, axis-aligned
    keypoints: Float32  #: (6, 2) px: right eye, left eye, nose tip, mouth, right ear, left ear
    score: float  #: probability in [0, 1]


@dataclass(frozen=True, eq=False)
class FaceLandmarks:
    """The 468 Face Mesh points of one face."""

    points: Float32  #: (468, 3) x, y in px; z relative depth in px, smaller is nearer
    confidence: float  #: probability in [0, 1] that there is a face under the points


class FaceDetector:
    """Finds faces and their landmarks; keeps both networks loaded.

    Args:
        threads: threads inside a network run, at least 1. The networks are so small that a second
            one rarely pays (measured: 7.0 ms a photo with one, 9.3 ms with two).
        open_network: opens a network's file; None is `PhotoSession` with these threads.

    Raises:
        InvalidModelFile: a network file is damaged.

    Example:
        >>> import numpy as np
        >>> FaceDetector().detect(np.zeros((64, 64, 3), np.uint8))
        []
    """

    def __init__(self, *, threads: int = 1, open_network: OpenNetwork | None = None) -> None:
        open_network = open_network or partial(PhotoSession, threads=threads)
        self._detection = open_network(ASSETS / "face_detection.onnx")
        self._landmarks = open_network(ASSETS / "face_landmarks.onnx")
        self._detection.expect(
            inputs={"image": (None, 128, 128, 3)},
            outputs={"boxes": (None, 896, 16), "scores": (None, 896, 1)},
        )
        self._landmarks.expect(
            inputs={"image": (None, 192, 192, 3)},
            outputs={"points": (None, 468, 3), "face_flag": (None, 1)},
        )
        self._anchors = _anchors()

    def detect(self, image: UInt8) -> list[FaceDetection]:
        """Finds the faces that stand out: stops at the coarsest search that finds any.

        The whole photo is looked at first; if that leaves doubt, the photo turned by quarter turns
        (BlazeFace copes with 45 degrees either way); then smaller and smaller tiles of it. Use
        `detect_all` to get small faces beside a large one as well.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            Faces, the largest and surest first; empty if there is none.

        Raises:
            InvalidImage: wrong dtype or shape.
        """
        check_image(image)
        for candidates in self._search(image):
            if candidates:
                return _sorted(candidates)
        return []

    def detect_all(self, image: UInt8) -> list[FaceDetection]:
        """Finds every face, at every size and orientation: the whole search of `detect`.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            Faces, the largest and surest first; empty if there is none.

        Raises:
            InvalidImage: wrong dtype or shape.
        """
        check_image(image)
        found: list[FaceDetection] = []
        for candidates in self._search(image):
            found += [face for face in candidates if not _overlaps_any(face, found)]
        return _sorted(found)

    def landmarks(self, image: UInt8, detection: FaceDetection) -> FaceLandmarks:
        """Places the 468 points on a detected face, in two passes.

        The first pass looks where the detector points; the second looks where the points of the
        first pass are, which takes out most of the detector's noise.

        Args:
            image: (H, W, 3) uint8 RGB.
            detection: one face of `detect` on the same image.

        Returns:
            Points in the photo's px, and the confidence of the last pass.

        Raises:
            InvalidImage: wrong dtype or shape.
        """
        check_image(image)
        first = self._landmark_pass(image, _roi_from_detection(detection))
        return self._landmark_pass(image, _roi_from_points(first.points))

    def landmarks_at(self, image: UInt8, expected: NDArray[Any]) -> FaceLandmarks:
        """Places the 468 points on a face of which something is known, in one pass.

        Args:
            image: (H, W, 3) uint8 RGB.
            expected: (468, 2 or more) px, where the points should about be.

        Returns:
            Points in the photo's px, and their confidence.

        Raises:
            InvalidImage: wrong dtype or shape.
        """
        check_image(image)
        return self._landmark_pass(image, _roi_from_points(expected))

    def _landmark_pass(self, image: UInt8, roi: HeadSquare) -> FaceLandmarks:
        size = 192
        roi_from_image = roi.square_from_image(size)
        out = self._landmarks.look(image, [roi_from_image], size)
        points = out["points"][0].astype(np.float64)
        image_from_roi = inverse(roi_from_image)
        points[:, :2] = transform_points(image_from_roi, points[:, :2])
        points[:, 2] *= roi.side / size
        return FaceLandmarks(points.astype(np.float32), float(_sigmoid(out["face_flag"][0, 0])))

    def _search(self, image: UInt8) -> Iterator[list[FaceDetection]]:
        """Candidates per step, from the cheapest and most likely step to the dearest."""
        image, scale = shrink_to(image, MAX_SEARCH_SIDE)
        first = self._read(self._detection.letterboxed(image, DETECTOR_SIDE))
        faces = _whole(image, [(0, 1.0)], *first)
        sure = [face for face in faces if face.score >= SURE_SCORE]
        if not faces or len(sure) < len(faces):
            views = [(0, 1.5), (1, 1.0), (2, 1.0), (3, 1.0)]
            squares = [np.rot90(letterbox(image, 128, zoom), turns) for turns, zoom in views]
            others = _whole(image, views, *self._run_tiles(np.stack(squares)))
            faces = _without_duplicates(faces + others)
            sure = [
                face
                for face in faces
                if (face.score >= SURE_SCORE and face not in others) or self._is_face(image, face)
            ]
        yield [_scaled(face, 1 / scale) for face in sure]
        tiles = _tile_sides(max(image.shape[:2]))
        for tile, turns in [(t, 0) for t in tiles] + [(t, n) for t in tiles[:2] for n in (1, 2, 3)]:
            found = [
                face
                for face in self._tiled(image, tile, turns)
                if face.score >= LONE_SCORE and self._is_face(image, face)
            ]
            yield [_scaled(face, 1 / scale) for face in found]
        # Face Mesh does not recognise a face behind a scarf; a good score is then enough.
        yield [_scaled(face, 1 / scale) for face in faces if face.score >= LONE_SCORE]

    def _tiled(self, image: UInt8, tile: float, turns: int) -> list[FaceDetection]:
        """Faces in the overlapping tiles of side `tile` px of a photo turned by quarter turns."""
        scale = 128 / tile
        height, width = (max(128, round(length * scale)) for length in image.shape[:2])
        inner = [max(1, round(length * scale)) for length in image.shape[:2]]
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: inner[0], : inner[1]] = shrunk(image, inner[1], inner[0])
        turned = np.ascontiguousarray(np.rot90(canvas, turns))
        corners = [
            (x, y) for y in _tile_starts(turned.shape[0]) for x in _tile_starts(turned.shape[1])
        ]
        points, scores = [], []
        for start in range(0, len(corners), TILE_BATCH):
            batch = corners[start : start + TILE_BATCH]
            rows, values = self._run_tiles(
                np.stack([turned[y : y + 128, x : x + 128] for x, y in batch])
            )
            points += [row + np.array(corner) for row, corner in zip(rows, batch, strict=True)]
            scores += values
        upright = _turned_back(np.concatenate(points), turns, width, height)
        upright *= np.array([image.shape[1] / inner[1], image.shape[0] / inner[0]])
        return _without_duplicates(_merge(upright, np.concatenate(scores)))

    def _run_tiles(self, tiles: UInt8) -> tuple[list[Float64], list[Float64]]:
        """What the detector sees in tiles of 128 px."""
        return self._read(
            self._detection.run({"image": normalised(tiles, self._detection.metadata)})
        )

    def _read(self, out: dict[str, Float32]) -> tuple[list[Float64], list[Float64]]:
        """Per tile: (n, 8, 2) box corners and keypoints in tile px, and (n,) scores."""
        scores = _sigmoid(out["scores"][..., 0])
        points, values = [], []
        for boxes, score in zip(out["boxes"], scores, strict=True):
            keep = np.flatnonzero(score >= MIN_SCORE)
            row = boxes[keep].reshape(-1, 8, 2).astype(np.float64)
            center = row[:, 0] + self._anchors[keep]
            half = row[:, 1] / 2
            keypoints = row[:, 2:] + self._anchors[keep][:, None]
            corners = np.stack([center - half, center + half], 1)
            points.append(np.concatenate([corners, keypoints], 1))
            values.append(score[keep].astype(np.float64))
        return points, values

    def _is_face(self, image: UInt8, face: FaceDetection) -> bool:
        """Whether Face Mesh sees a face there too."""
        return self.landmarks(image, face).confidence >= MIN_CONFIDENCE


def crop_face(
    image: UInt8, points: NDArray[Any], *, size: int = 500, roll: float | None = None
) -> Crop:
    """Cuts the upright square that the networks and the whole pipeline work on; `crop_square` of
    the points.

    Args:
        image: (H, W, 3) uint8 RGB.
        points, roll: as for `crop_square`.
        size: side of the crop in px.

    Returns:
        The crop and its transform; black where the photo ends.

    Raises:
        InvalidImage: wrong dtype or shape of the image.
        ValueError: as for `crop_square`, or size < 1.

    Example:
        >>> import numpy as np
        >>> points = np.random.default_rng(0).uniform(100, 200, (468, 2))
        >>> crop_face(np.zeros((300, 300, 3), np.uint8), points, size=64).image.shape
        (64, 64, 3)
    """
    check_image(image)
    if size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    crop_from_image = crop_square(points, roll=roll).square_from_image(size)
    return Crop(warp_similarity(image, crop_from_image, size), crop_from_image)


def crop_square(points: NDArray[Any], *, roll: float | None = None) -> HeadSquare:
    """The square of a photo that is reconstructed.

    The authors' rule: a square that reaches `CROP_REACH` from the middle of the tight box of the 68
    landmarks (brows to chin), so that the head fits; here the head's roll is taken out first.

    Args:
        points: (468, 2 or more) or (68, 2 or more) landmarks in px; further columns are ignored.
        roll: of the head in the photo, radians, clockwise as it is seen; None is that of the line
            between the eyes.

    Raises:
        ValueError: wrong shape of the points, points not finite or all in one place.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[0] not in (68, 468) or points.shape[1] < 2:
        raise ValueError(f"points: expected shape (468, 2+) or (68, 2+), got {points.shape}")
    xy = points[:, :2].astype(np.float64)
    if not np.isfinite(xy).all():
        raise ValueError("points: expected finite values, got NaN or infinity")
    if points.shape[0] == 468:
        eyes = xy[RIGHT_EYE].mean(0), xy[LEFT_EYE].mean(0)
        xy = xy[MESH68]
    else:
        eyes = xy[36:42].mean(0), xy[42:48].mean(0)
    if roll is None:
        roll = _roll(*eyes)
    upright = xy @ rotation_2d(-roll).T
    low, high = upright.min(0), upright.max(0)
    half = float((high - low).max()) / 2
    if half <= 0:
        raise ValueError("points: expected points that span a box, got all of them in one place")
    left, right = -half * CROP_REACH["left"], half * CROP_REACH["right"]
    top, bottom = -half * CROP_REACH["top"], half * CROP_REACH["bottom"]
    side = ((right - left) + (bottom - top)) / 2  # equal up to the rounding of the factors
    middle = (low + high) / 2 + np.array([left + right, top + bottom]) / 2
    center = rotation_2d(roll) @ middle
    return HeadSquare(center, side, roll)


def _roi_from_detection(face: FaceDetection) -> HeadSquare:
    box = face.box.astype(np.float64)
    keypoints = face.keypoints.astype(np.float64)
    side = ROI_SCALE * max(box[2] - box[0], box[3] - box[1], 1.0)
    return HeadSquare((box[:2] + box[2:]) / 2, float(side), _roll(keypoints[0], keypoints[1]))


def _roi_from_points(points: NDArray[Any]) -> HeadSquare:
    xy = points[:, :2].astype(np.float64)
    roll = _roll(xy[RIGHT_EYE[0]], xy[LEFT_EYE[0]])
    # The tight box is taken along the eye line, so that the square does not depend on the roll.
    upright = xy @ rotation_2d(-roll).T
    low, high = upright.min(0), upright.max(0)
    side = ROI_SCALE * max(float((high - low).max()), 1.0)
    return HeadSquare(rotation_2d(roll) @ ((low + high) / 2), side, roll)


def _roll(right_eye: Float64, left_eye: Float64) -> float:
    x, y = left_eye - right_eye
    return float(np.arctan2(y, x))


def _sigmoid(logits: Any) -> Any:
    # Logits of empty places run to -10,000, where exp overflows.
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def _anchors() -> Float64:
    """(896, 2) centres in px of the 128 px input: 16x16 cells with 2 each, then 8x8 with 6."""
    parts = []
    for cells, repeats in ((16, 2), (8, 6)):
        axis = (np.arange(cells) + 0.5) * (128 / cells)
        grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)  # x, y; rows first
        parts.append(np.repeat(grid, repeats, axis=0))
    return np.concatenate(parts)


def _whole(
    image: UInt8,
    views: list[tuple[int, float]],
    points: list[Float64],
    scores: list[Float64],
) -> list[FaceDetection]:
    """Faces in the whole photo, merged over views of it.

    Args:
        image: (H, W, 3) uint8.
        views: quarter turns of the letterbox and its side, in units of the photo's larger side;
            above 1 a face that fills the photo gets the surroundings that the network expects.
        points, scores: what the detector sees in each.
    """
    found = []
    for rows, values, (turns, zoom) in zip(points, scores, views, strict=True):
        left, top, width, height = letterbox_frame(image, 128, zoom)
        upright = _turned_back(rows, turns, 128, 128) - np.array([left, top])
        upright *= np.array([image.shape[1] / width, image.shape[0] / height])
        found += _merge(upright, values)
    return _without_duplicates(found)


def _merge(points: Float64, scores: Float64) -> list[FaceDetection]:
    """Weighted non-maximum suppression: boxes of one face are averaged by their scores.

    Args:
        points: (n, 8, 2) two opposite box corners, then the keypoints, in px.
        scores: (n,) probabilities.
    """
    low = points[:, :2].min(1)
    high = points[:, :2].max(1)
    values = np.concatenate([low, high, points[:, 2:].reshape(-1, 12)], 1)
    left = np.argsort(-scores, kind="stable")
    faces = []
    while left.size:
        best = left[0]
        same = _iou(values[best, :4], values[left, :4]) > NMS_IOU
        same[0] = True
        group, left = left[same], left[~same]
        mean = np.average(values[group], axis=0, weights=scores[group]).astype(np.float32)
        faces.append(FaceDetection(mean[:4], mean[4:].reshape(6, 2), float(scores[best])))
    return faces


def _intersection(box: NDArray[Any], boxes: NDArray[Any]) -> NDArray[Any]:
    size = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    return np.asarray(np.prod(np.maximum(size, 0), axis=1))


def _area(boxes: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1))


def _iou(box: NDArray[Any], boxes: NDArray[Any]) -> NDArray[Any]:
    shared = _intersection(box, boxes)
    union = _area(box) + _area(boxes) - shared
    return np.asarray(shared / np.maximum(union, 1e-9))


def _overlaps_any(face: FaceDetection, others: list[FaceDetection]) -> bool:
    """Whether most of the smaller of two boxes lies in the other, for any of the others."""
    if not others:
        return False
    boxes = np.stack([other.box for other in others])
    smaller = np.minimum(_area(face.box), _area(boxes))
    return bool((_intersection(face.box, boxes) > SAME_FACE_OVERLAP * smaller).any())


def _without_duplicates(faces: list[FaceDetection]) -> list[FaceDetection]:
    kept: list[FaceDetection] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if not _overlaps_any(face, kept):
            kept.append(face)
    return kept


def _sorted(faces: list[FaceDetection]) -> list[FaceDetection]:
    """The main face first: score times the side of the box."""
    return sorted(faces, key=lambda face: -face.score * float(np.sqrt(_area(face.box))))


def _scaled(face: FaceDetection, scale: float) -> FaceDetection:
    factor = np.float32(scale)
    return FaceDetection(face.box * factor, face.keypoints * factor, face.score)


def _turned_back(points: Float64, turns: int, width: int, height: int) -> Float64:
    """Points of np.rot90(image, turns), back in the image of that width and height."""
    x, y = points[..., 0], points[..., 1]
    if turns == 1:
        x, y = width - y, x
    elif turns == 2:
        x, y = width - x, height - y
    elif turns == 3:
        x, y = y, height - x
    return np.stack([x, y], -1)


def _tile_sides(side: float) -> list[float]:
    """Sides of the tiles to search, halving."""
    sides = []
    tile = side / 2
    while tile >= MIN_TILE:
        sides.append(tile)
        tile /= 2
    return sides


def _tile_starts(length: int) -> list[int]:
    """Where tiles of 128 px start so that they cover `length` >= 128 px and overlap evenly."""
    count = 1 + int(np.ceil((length - 128) / (128 * TILE_STRIDE)))
    return [round(float(start)) for start in np.linspace(0, length - 128, count)]
