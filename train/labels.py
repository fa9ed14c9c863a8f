"""Labels of photos for the foundation and pose networks: head model fitted to Face Mesh points.

    python train/labels.py --data DATA --out FOLDER [--sheet FILE] [--limit N]

Every photo gets a store crop (192 px, 320 mm wide at the middle of the face, upright with the head,
f = 2 sides) and the head model's coefficients and pose in that crop. Teachers: MediaPipe's 478
points and blendshape scores, WHENet's rotation where the head is turned; where they contradict each
other the photo is left out. One shape is fitted to all photos of a person.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from preview import sheet
from store import (
    DISTANCE,
    STORE_CAMERA,
    STORE_MM,
    STORE_SIZE,
    is_held_out,
    person_of,
)

from extreme3d_fast import _core
from extreme3d_fast.camera import (
    CAMERA_FROM_FRONTAL_HEAD,
    Camera,
    angles_from_rotation,
    rotation_from_angles,
    rotation_from_vector,
    vector_from_rotation,
)
from extreme3d_fast.crop import transform_points, warp_similarity
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.landmark_fit import (
    N_LANDMARKS,
    FitPrior,
    FitSettings,
    LandmarkFit,
    LandmarkFitter,
)
from extreme3d_fast.mesh import transform_points as move
from extreme3d_fast.mesh import vertex_normals
from extreme3d_fast.pose import FACE_CENTER, SIDE_MM, head_square

Float = npt.NDArray[np.float64]

# WHENet's angles beyond this much of its yaw replace the points' rotation: none of it, all of it.
TURNED = (20.0, 35.0)  # degrees
ROTATION_SIGMA = 0.05  # degrees, holds a rotation against 468 points
# Teachers' angle apart that rejects a photo, below 30 degrees of yaw and beyond 45.
DISAGREE = (15.0, 28.0)
MAX_RMS = 3.2  # mm over all points
MAX_OUTSIDE = 0.12  # share of the points outside the photo
EXPRESSION_SIGMA = 0.15  # of the scores
# Score of a face at rest, which would squint in every label.
SQUINT_AT_REST = 0.4
SHARED_ERROR = 0.5  # correlation of the errors of a person's photos
POOLED_SIGMA = 0.05  # of the shape of a person, once pooled
GOOD_SOURCES = ("celebamask", "utkface")  # sharp, near-frontal
MEASURED_SOURCES = (*GOOD_SOURCES, "youtube_faces")  # with enough people for a mean of their own
SHARED_MEAN = 0.5  # of the good sources' mean is the population's, not the points' error
MASK_WEIGHTS = (0.0, 0.2, 0.7)  # identity, expression, pose under a mask


@dataclasses.dataclass
class Label:
    identity: Float
    expression: Float
    camera_from_head: Float  # store camera, mm
    crop_from_image: Float
    identity_sigma: Float
    rms: float  # mm
    turned: float  # 0..1, share of WHENet in the rotation


def canonical(camera: Camera, camera_from_head: npt.ArrayLike) -> tuple[Float, Float]:
    """(3, 3) store crop from the camera's image, and the pose in the store camera.

    Exact where the camera is the store's up to a roll, a small shift and a small zoom.
    """
    square = head_square(camera, camera_from_head)
    matrix = square.square_from_image(STORE_SIZE * SIDE_MM / STORE_MM)
    matrix[:2, 2] += STORE_SIZE * (STORE_MM - SIDE_MM) / 2 / STORE_MM
    pose = np.asarray(camera_from_head, np.float64)
    center = pose[:3, :3] @ FACE_CENTER + pose[:3, 3]
    # The camera turned towards the face's middle, then rolled upright.
    ray = center / np.linalg.norm(center)
    axis = np.cross(ray, [0.0, 0.0, 1.0])
    sine = np.linalg.norm(axis)
    turn = rotation_from_vector(axis / max(sine, 1e-12) * np.arcsin(min(1.0, sine)))
    rotation = turn @ pose[:3, :3]
    up = rotation[:2, 1]
    rotation = rotation_from_vector([0, 0, -np.arctan2(up[0], -up[1])]) @ rotation
    store = np.eye(4)
    store[:3, :3] = rotation
    store[:3, 3] = [0.0, 0.0, DISTANCE] - rotation @ FACE_CENTER
    return matrix, store


def whenet_rotation(pose: npt.ArrayLike) -> Float:
    """camera_from_head of WHENet's (pitch, yaw, roll): 300W-LP's order, pitch outermost."""
    pitch, yaw, roll = np.radians(np.asarray(pose, np.float64))
    return np.asarray(
        CAMERA_FROM_FRONTAL_HEAD
        @ rotation_from_vector([-pitch, 0, 0])
        @ rotation_from_vector([0, -yaw, 0])
        @ rotation_from_vector([0, 0, -roll])
    )


def angle(a: Float, b: Float) -> float:
    """Degrees between two rotations."""
    return float(np.degrees(np.linalg.norm(vector_from_rotation(a @ b.T))))


def between(a: Float, b: Float, share: float) -> Float:
    """Rotation on the way from a to b."""
    return np.asarray(rotation_from_vector(share * vector_from_rotation(b @ a.T)) @ a)


def ramp(value: float, limits: tuple[float, float]) -> float:
    return float(np.clip((value - limits[0]) / (limits[1] - limits[0]), 0.0, 1.0))


class Labeller:
    """Fits photos into the store camera."""

    def __init__(self, model: HeadModel) -> None:
        self.model = model
        self.basis = model.landmark_basis("478")
        settings = FitSettings(tolerance=1e-4, max_iterations=20)
        # The points are MediaPipe's own: no bias of another network.
        self.fitter = LandmarkFitter(model, settings=settings, bias=np.zeros((N_LANDMARKS, 2)))
        vertices = model.vertices()
        normals = vertex_normals(vertices, model.all_faces)
        corners = model.all_faces[model.landmarks478_faces[:N_LANDMARKS]]
        self.normals = np.einsum(
            "lk,lkc->lc", model.landmarks478_bary[:N_LANDMARKS], normals[corners]
        )

    def trust(self, rotation: Float, turned: float) -> Float:
        """(468,) points that a turned head hides from the camera are guesses."""
        facing = -(self.normals @ rotation.T)[:, 2]
        return np.asarray(1.0 - turned * (1.0 - np.clip(facing / 0.3, 0.05, 1.0)))

    def fit(self, points: Float, matrix: Float, **prior: Any) -> LandmarkFit:
        """Points (478, 3) of the photo, seen through a similarity onto the store crop."""
        trust = prior.pop("trust", None)
        scale = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
        seen = np.column_stack([transform_points(matrix, points[:, :2]), scale * points[:, 2]])
        known = FitPrior(camera=STORE_CAMERA, focal_log_sigma=0.0, **prior)
        return self.fitter.fit(seen, STORE_SIZE, prior=known, trust=trust)

    def first(self, points: Float) -> tuple[Float, LandmarkFit]:
        """A crop near the canonical one, and the fit there to the points alone."""
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        scale = 0.55 * STORE_SIZE / (high - low).max()
        matrix = np.diag([scale, scale, 1.0])
        matrix[:2, 2] = STORE_SIZE / 2 - scale * (low + high) / 2
        return self.settle(points, matrix, self.fit(points, matrix))

    def settle(self, points: Float, matrix: Float, fit: LandmarkFit) -> tuple[Float, LandmarkFit]:
        """Moves to the fit's canonical crop and fits there again, without more knowledge."""
        step, pose = canonical(STORE_CAMERA, fit.camera_from_head)
        matrix = step @ matrix
        return matrix, self.fit(points, matrix, camera_from_head=pose)

    def label(
        self,
        points: Float,
        matrix: Float,
        fit: LandmarkFit,
        rotation: Float | None,
        turned: float,
        **prior: Any,
    ) -> Label:
        """Final fit. rotation: camera_from_head in the photo, counts by its share `turned`."""
        pose = np.asarray(fit.camera_from_head, np.float64)
        free = in_photo(matrix, fit)  # what the points alone say
        for _ in range(2):
            held: dict[str, Any] = {}
            if rotation is not None and turned > 0:
                # The crop may be rolled against the photo.
                roll = np.arctan2(matrix[1, 0], matrix[0, 0])
                target = rotation_from_vector([0, 0, roll]) @ between(free, rotation, turned)
                center = pose[:3, :3] @ FACE_CENTER + pose[:3, 3]
                pose[:3, :3] = target
                pose[:3, 3] = center - target @ FACE_CENTER
                held = {"rotation_sigma": ROTATION_SIGMA, "trust": self.trust(target, turned)}
            fit = self.fit(points, matrix, camera_from_head=pose, **held, **prior)
            step, pose = canonical(STORE_CAMERA, fit.camera_from_head)
            matrix = step @ matrix
        center_z = float(
            (fit.camera_from_head[:3, :3] @ FACE_CENTER + fit.camera_from_head[:3, 3])[2]
        )
        return Label(
            np.asarray(fit.identity, np.float64),
            np.asarray(fit.expression, np.float64),
            pose,
            matrix,
            np.asarray(fit.identity_sigma, np.float64),
            fit.landmark_rms * center_z / STORE_CAMERA.fx,
            turned,
        )

    def project(self, label: Label) -> Float:
        """(478, 2) px of the store crop."""
        x = self.basis.mean + np.tensordot(label.identity, self.basis.identity, 1)
        x = x + np.tensordot(label.expression, self.basis.expression, 1)
        return np.asarray(STORE_CAMERA.project(move(label.camera_from_head, x)), np.float64)


class Teachers:
    """What other programs said of the photos."""

    def __init__(self, data: Path, model: HeadModel) -> None:
        points, labels = np.load(data / "landmarks478.npz"), np.load(data / "face_labels.npz")
        self.names = [str(n) for n in points["names"]]
        if self.names != [str(n) for n in labels["names"]]:
            raise ValueError("landmarks478.npz and face_labels.npz should name the same photos")
        self.xy, self.z = points["xy_u16"], points["z_i16"]
        self.whenet = labels["pose_whenet"].astype(np.float64)
        column = {str(n): i for i, n in enumerate(labels["blendshape_names"])}
        scores = labels["blendshapes"].astype(np.float64)
        self.expression = np.zeros((len(self.names), model.n_expression))
        for e, name in enumerate(model.expression_names):
            if name in column:
                self.expression[:, e] = scores[:, column[name]]
            if name.startswith("eyeSquint"):
                rest = SQUINT_AT_REST
                self.expression[:, e] = np.maximum(self.expression[:, e] - rest, 0) / (1 - rest)

    def points(self, i: int) -> Float:
        """(478, 3) px."""
        xy = self.xy[i].astype(np.float64) / 8.0 - 256.0
        return np.column_stack([xy, self.z[i].astype(np.float64) / 2.0])


def load_photo(path: Path) -> npt.NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(path)
    return np.ascontiguousarray(image[..., ::-1])


def weights(name: str, label: Label) -> tuple[float, float, float]:
    """How far identity, expression and pose of a label are to be believed."""
    if name.startswith("masked_people"):
        return MASK_WEIGHTS
    return 1.0 - 0.7 * label.turned, 1.0 - 0.6 * label.turned, 1.0


def write_set(
    out: Path, name: str, labels: dict[str, Label], read: Any, weigh: Any = weights
) -> None:
    """One set of the store: crops in NAME.npy, labels in NAME.npz."""
    out.mkdir(parents=True, exist_ok=True)
    crops = np.lib.format.open_memmap(
        out / f"{name}.npy", "w+", np.uint8, (len(labels), STORE_SIZE, STORE_SIZE, 3)
    )
    for i, (key, label) in enumerate(labels.items()):
        crops[i] = warp_similarity(read(key), label.crop_from_image, STORE_SIZE)
    crops.flush()
    people = [person_of(key) for key in labels]
    items = list(labels.values())
    weight = np.array([weigh(k, v) for k, v in labels.items()], np.float32).reshape(-1, 3)
    np.savez(
        out / f"{name}.npz",
        name=np.array(list(labels)),
        person=np.array(people),
        val=np.array([is_held_out(p) for p in people]),
        identity=np.array([v.identity for v in items], np.float32),
        expression=np.clip(np.array([v.expression for v in items], np.float32), 0.0, 1.0),
        rotation=np.array([v.camera_from_head[:3, :3] for v in items], np.float32),
        translation=np.array([v.camera_from_head[:3, 3] for v in items], np.float32),
        weight_identity=weight[:, 0],
        weight_expression=weight[:, 1],
        weight_pose=weight[:, 2],
        crop_from_image=np.array([v.crop_from_image for v in items], np.float64),
    )


def contact_sheet(
    path: Path, crops: list[npt.NDArray[np.uint8]], drawn: list[Float], titles: list[str]
) -> None:
    """Crops, each beside itself with its points."""
    tiles = []
    for crop, points, title in zip(crops, drawn, titles, strict=True):
        plain = cv2.resize(crop, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_LINEAR)
        over = plain.copy()
        for x, y in 1.5 * points:
            cv2.circle(over, (round(x), round(y)), 1, (0, 255, 0), -1)
        cv2.putText(over, title, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (255, 255, 0), 1)
        tiles.append(np.hstack([plain, over])[:, :, ::-1])
    cv2.imwrite(str(path), sheet(tiles, 4))


def offset(free: dict[int, tuple[Float, LandmarkFit]], teachers: Teachers) -> Float:
    """Rotation of WHENet's head axes in ours: the median over faces nearly frontal."""
    away = []
    for i, (matrix, fit) in free.items():
        if abs(teachers.whenet[i, 1]) < 15.0:
            away.append(
                vector_from_rotation(in_photo(matrix, fit).T @ whenet_rotation(teachers.whenet[i]))
            )
    return rotation_from_vector(np.median(away, 0)) if away else np.eye(3)


def in_photo(matrix: Float, fit: LandmarkFit) -> Float:
    """Rotation of a fit in a rolled crop, in the photo's own axes."""
    roll = np.arctan2(matrix[1, 0], matrix[0, 0])
    return np.asarray(
        rotation_from_vector([0, 0, -roll]) @ fit.camera_from_head[:3, :3].astype(np.float64)
    )


def photo_labels(
    labeller: Labeller, teachers: Teachers, chosen: list[int], read: Any
) -> dict[str, Label]:
    """Labels of the photos that the teachers agree on; prints the tally."""
    tally: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    free: dict[int, tuple[Float, LandmarkFit]] = {}
    for i in chosen:
        try:
            free[i] = labeller.first(teachers.points(i))
        except ValueError:
            tally[teachers.names[i].split("/")[0]]["degenerate"] += 1
    axes = offset(free, teachers)
    print(
        "WHENet's axes in ours, rotation vector in degrees:",
        np.degrees(vector_from_rotation(axes)).round(2),
    )

    labels: dict[str, Label] = {}
    priors: dict[str, tuple[Any, ...]] = {}
    for i, (matrix, fit) in free.items():
        name = teachers.names[i]
        count = tally[name.split("/")[0]]
        rotation = whenet_rotation(teachers.whenet[i]) @ axes.T
        yaw = abs(angles_from_rotation(rotation)[0])
        turned = ramp(yaw, TURNED)
        apart = angle(in_photo(matrix, fit), rotation)
        limit = DISAGREE[0] + (DISAGREE[1] - DISAGREE[0]) * ramp(yaw, (30.0, 45.0))
        if apart > limit:
            count["teachers disagree"] += 1
            continue
        prior: dict[str, Any] = {}
        if np.isfinite(teachers.expression[i]).all():
            prior = {
                "expression": teachers.expression[i],
                # Scores of a face seen from the side are guesses in part.
                "expression_sigma": EXPRESSION_SIGMA * (1.0 + turned),
            }
        points = teachers.points(i)
        label = labeller.label(points, matrix, fit, rotation, turned, **prior)
        if label.rms > MAX_RMS * (1.0 + turned):
            count["points do not fit"] += 1
            continue
        height, width = read(name).shape[:2]
        xy = points[:N_LANDMARKS, :2]
        if ((xy < 0) | (xy > [width, height])).any(1).mean() > MAX_OUTSIDE:
            count["face outside the photo"] += 1
            continue
        count["kept"] += 1
        labels[name] = label
        priors[name] = points, matrix, fit, rotation, turned, prior

    people = collections.defaultdict(list)
    for name in labels:
        people[person_of(name)].append(name)
    for names in people.values():
        if len(names) > 1:
            mean = pooled([labels[n] for n in names])
            for n in names:
                *rest, prior = priors[n]
                known = {"identity": mean, "identity_sigma": POOLED_SIGMA, **prior}
                labels[n] = labeller.label(*rest, **known)
    for source in sorted(tally):
        print(source, dict(tally[source]))
    rms = np.array([v.rms for v in labels.values()])
    print("rms mm, 50/90/99 %:", np.percentile(rms, [50, 90, 99]).round(2))
    return labels


def center(labels: dict[str, Label]) -> None:
    """Takes out of every source what its shapes have in common beyond the population's own mean.

    Points of small or compressed photos err alike, and that reads as shape. Half the mean of the
    good sources explains the rendered scans best, all of it worse than none.
    """
    sources = collections.defaultdict(list)
    for name, label in labels.items():
        sources[name.split("/")[0]].append(label)
    facing = {
        source: [v.identity for v in sources[source] if v.turned < 0.7]
        for source in MEASURED_SOURCES
    }
    means = {source: np.mean(shapes, axis=0) for source, shapes in facing.items() if shapes}
    if not any(source in means for source in GOOD_SOURCES):
        raise SystemExit(f"no usable photos of {' or '.join(GOOD_SOURCES)} to take the mean of")
    good = np.mean([means[source] for source in GOOD_SOURCES if source in means], axis=0)
    for source, found in sources.items():
        for label in found:
            label.identity = label.identity - means.get(source, good) + SHARED_MEAN * good


def pooled(labels: list[Label]) -> Float:
    """(K,) shape of a person: the photos' estimates by what each one's points say."""
    believed = np.array([1.0 - 0.8 * v.turned for v in labels])
    # Photos of one person err together: many say no more than 1 / SHARED_ERROR of them.
    believed /= 1.0 + SHARED_ERROR * (len(labels) - 1)
    precision = np.array([v.identity_sigma**-2.0 for v in labels])
    said = believed @ np.maximum(precision - 1.0, 0.0)
    # A photo's posterior mean is its data's mean drawn towards 0 by the prior.
    return np.asarray(believed @ (precision * [v.identity for v in labels]) / (1.0 + said))


def profile_yaw(name: str) -> float:
    """Degrees of turn, > 0 to the subject's left, as the name of a fasseg_profile photo says."""
    found = re.search(r"_yaw([+-]?[0-9]+)", name)
    return -float(found[1]) if found else 0.0


# Colours of the parts in fasseg_profile_labels, RGB.
PART_COLOURS = {"eye": (0, 0, 255), "nose": (0, 255, 255), "mouth": (0, 255, 0)}
# Face Mesh points of the subject's right side, which a head turned to its left shows, and of the
# left side: outer corner, inner corner, upper and lower lid; corner of the mouth; wing of the nose.
EYE = ([33, 133, 159, 145], [263, 362, 386, 374])
MOUTH_CORNER = (61, 291)
NOSE_WING = (64, 294)
NOSE_TIP, LIPS_FRONT, NOSE_ROOT = 4, [0, 17], 168
PROFILE_SIGMA = 7.0  # degrees round the turn in the name, and round an upright head
MAX_PROFILE_RMS = 9.0  # mm, over six points of a head of another shape


def largest_part(labels: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> Float | None:
    """(n, 2) px of the largest connected part of a colour."""
    close = (np.abs(labels.astype(int) - colour).max(2) < 60).astype(np.uint8)
    count, index, stats, _ = cv2.connectedComponentsWithStats(close)
    if count < 2:
        return None
    part = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    if stats[part, cv2.CC_STAT_AREA] < 100:
        return None
    y, x = np.nonzero(index == part)
    return np.column_stack([x, y]) + 0.5


def part_points(labels: npt.NDArray[np.uint8], yaw: float) -> tuple[Float, Float] | None:
    """Six points (6, 2) px of the labelled parts of a profile and their deviations in mm.

    In the order of `part_landmarks`: eye, tip, wing and root of the nose, corner and front of lips.
    """
    eye, nose, mouth = (largest_part(labels, PART_COLOURS[k]) for k in ("eye", "nose", "mouth"))
    if eye is None or nose is None or mouth is None:
        return None
    forward = np.sign(yaw) * np.array([1.0, 0.0])

    def end(part: Float, direction: Float) -> Float:
        along = part @ direction
        return np.asarray(part[along >= along.max() - 1.5].mean(0))

    points = [
        eye.mean(0),
        end(nose, forward),
        end(nose, -forward),
        end(nose, np.array([0.0, -1.0])),
        end(mouth, -forward),
        end(mouth, forward),
    ]
    return np.array(points), np.array([3.0, 2.5, 5.0, 8.0, 4.0, 5.0])


def part_landmarks(points: Float, yaw: float) -> Float:
    """(..., 468 or more, 3) landmarks -> (..., 6, 3), what `part_points` sees; linear."""
    side = 0 if yaw > 0 else 1
    return np.stack(
        [
            points[..., EYE[side], :].mean(-2),
            points[..., NOSE_TIP, :],
            points[..., NOSE_WING[side], :],
            points[..., NOSE_ROOT, :],
            points[..., MOUTH_CORNER[side], :],
            points[..., LIPS_FRONT, :].mean(-2),
        ],
        -2,
    )


def profile_labels(labeller: Labeller, photos: Path, known: dict[str, Label]) -> dict[str, Label]:
    """Poses of profiles from labelled parts, on the person's shape where other photos gave one."""
    basis = labeller.basis
    shapes: dict[str, list[Float]] = collections.defaultdict(list)
    for name, label in known.items():
        shapes[person_of(name)].append(label.identity)
    found: dict[str, Label] = {}
    count: collections.Counter[str] = collections.Counter()
    for path in sorted((photos / "fasseg_profile").glob("*.jpg")):
        name = f"fasseg_profile/{path.name}"
        yaw = profile_yaw(name)
        if abs(yaw) < 45 or name in known:
            continue
        parts = load_photo(photos / "fasseg_profile_labels" / f"{path.stem}.png")
        seen = part_points(parts, yaw)
        if seen is None:
            count["parts missing"] += 1
            continue
        identity = np.mean(shapes.get(person_of(name), [np.zeros(len(basis.identity))]), 0)
        shape = basis.mean + np.tensordot(identity, basis.identity, 1)
        model = part_landmarks(np.asarray(shape, np.float64), yaw)
        label = profile_label(model, *seen, yaw)
        if label.rms > MAX_PROFILE_RMS:
            count["parts do not fit"] += 1
            continue
        count["kept"] += 1
        label.identity, label.expression = identity, np.zeros(len(basis.expression))
        found[name] = label
    print("profiles", dict(count))
    if found:
        said = [profile_yaw(n) for n in found]
        fitted = [angles_from_rotation(v.camera_from_head)[0] for v in found.values()]
        print("fitted by turn of the name:", turns(said, fitted))
    return found


def turns(said: list[float], fitted: list[float]) -> dict[int, float]:
    return {
        int(turn): round(
            float(np.mean([f for s, f in zip(said, fitted, strict=True) if s == turn])), 1
        )
        for turn in sorted(set(said))
    }


def profile_label(model: Float, points: Float, sigma: Float, yaw: float) -> Label:
    """Pose of six points of a rigid head in the store camera; the crop follows the pose."""
    none = np.zeros((0, len(model), 3), np.float32)
    fitter = _core.LandmarkFitter(model.astype(np.float32), none, none)
    pose = np.eye(4)
    pose[:3, :3] = rotation_from_angles(yaw)
    pose[:3, 3] = [0.0, 0.0, DISTANCE] - pose[:3, :3] @ FACE_CENTER
    # Eye to mouth sets the scale to begin with, the mean of the points the place.
    drawn = STORE_CAMERA.project(model @ pose[:3, :3].T + pose[:3, 3])
    scale = np.linalg.norm(drawn[0] - drawn[4]) / np.linalg.norm(points[0] - points[4])
    matrix = np.diag([scale, scale, 1.0])
    matrix[:2, 2] = drawn.mean(0) - scale * points.mean(0)
    options = _core.LandmarkFitOptions(
        focal=STORE_CAMERA.fx,
        focal_log_sigma=0.0,
        cx=STORE_CAMERA.cx,
        cy=STORE_CAMERA.cy,
        identity_sigma=1.0,
        expression_sigma=1.0,
        expression_min=0.0,
        expression_max=1.0,
        huber=2.0,
        max_iterations=50,
        tolerance=1e-6,
    )
    px = STORE_CAMERA.fx / DISTANCE * sigma
    prior = pose.copy()
    for _ in range(3):
        # The prior's upright is the photo's.
        roll = np.arctan2(matrix[1, 0], matrix[0, 0])
        prior[:3, :3] = rotation_from_vector([0, 0, roll]) @ rotation_from_angles(yaw)
        prior[:3, 3] = [0.0, 0.0, DISTANCE] - prior[:3, :3] @ FACE_CENTER
        fit = fitter.fit(
            transform_points(matrix, points).astype(np.float32),
            np.repeat(1.0 / px[:, None], 2, 1).astype(np.float32),
            options,
            camera_from_head=prior.astype(np.float32),
            rotation_sigma=np.radians(PROFILE_SIGMA),
        )
        step, pose = canonical(STORE_CAMERA, fit["camera_from_head"])
        matrix = step @ matrix
    nothing = np.zeros(0)
    return Label(
        nothing, nothing, pose, matrix, nothing, fit["rms"] * DISTANCE / STORE_CAMERA.fx, 1.0
    )


def profile_weights(_: str, label: Label) -> tuple[float, float, float]:
    return (0.1 if label.identity.any() else 0.0), 0.0, 0.7


def outline(labeller: Labeller, label: Label) -> Float:
    """(n, 2) px: where the head's surface turns away from the store camera."""
    model = labeller.model
    vertices = model.vertices(identity=label.identity, expression=label.expression)
    seen = move(label.camera_from_head, vertices)
    triangles = seen[model.faces]
    facing = np.einsum(
        "fc,fc->f",
        np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]),
        triangles[:, 0],
    )
    edges = np.sort(model.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
    front = np.repeat(facing < 0, 3)
    keys, inverse, n = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    fronts = np.bincount(inverse.ravel(), front, len(keys))
    rim = keys[(n == 2) & (fronts == 1)]
    return np.asarray(STORE_CAMERA.project(seen[rim].mean(1)), np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("EXTREME3D_DATA", "../shared/data"))
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--sheet", type=Path, help="PNG of some labelled photos")
    parser.add_argument("--limit", type=int, default=0, help="photos, spread over all")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    photos = args.data / "photos"
    model = HeadModel.load()
    labeller, teachers = Labeller(model), Teachers(photos, model)
    chosen = [
        i
        for i, name in enumerate(teachers.names)
        if not (name.startswith("fasseg_profile") and abs(profile_yaw(name)) >= 60)
    ]
    if args.limit:
        chosen = chosen[:: max(1, len(chosen) // args.limit)]

    def read(name: str) -> npt.NDArray[np.uint8]:
        return load_photo(photos / name)

    labels = photo_labels(labeller, teachers, chosen, read)
    center(labels)
    write_set(args.out, "photos", labels, read)
    print(len(labels), "photos in", args.out / "photos.npz")
    profiles = profile_labels(labeller, photos, labels)
    write_set(args.out, "profiles", profiles, read, profile_weights)
    print(len(profiles), "photos in", args.out / "profiles.npz")
    if args.sheet:
        picks = list(profiles)[:: max(1, len(profiles) // 32)]
        contact_sheet(
            args.sheet.with_stem(args.sheet.stem + "_profiles"),
            [warp_similarity(read(n), profiles[n].crop_from_image, STORE_SIZE) for n in picks],
            [outline(labeller, profiles[n]) for n in picks],
            [
                f"{angles_from_rotation(profiles[n].camera_from_head)[0]:.0f}"
                f" {angles_from_rotation(profiles[n].camera_from_head)[1]:.0f}"
                f" rms {profiles[n].rms:.1f} {Path(n).stem[-14:]}"
                for n in picks
            ],
        )
        rng = np.random.default_rng(0)
        turned = np.array([v.turned for v in labels.values()])
        names = np.array(list(labels))
        picks = []
        for low, high, n in ((-1.0, 0.0, 12), (0.0, 0.99, 12), (0.99, 2.0, 24)):
            there = names[(turned > low) & (turned <= high)]
            picks += rng.choice(there, min(n, len(there)), False).tolist()
        contact_sheet(
            args.sheet,
            [warp_similarity(read(n), labels[n].crop_from_image, STORE_SIZE) for n in picks],
            [labeller.project(labels[n])[:N_LANDMARKS] for n in picks],
            [
                f"{n.split('/')[0][:6]} {angles_from_rotation(labels[n].camera_from_head)[0]:.0f}"
                f" {angles_from_rotation(labels[n].camera_from_head)[1]:.0f}"
                f" rms {labels[n].rms:.1f}"
                for n in picks
            ],
        )


if __name__ == "__main__":
    main()
