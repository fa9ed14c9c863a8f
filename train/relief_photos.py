"""Photos with their foundations and face masks for the bump-map network.

    python train/relief_photos.py --data DATA --out FOLDER [--limit N] [--only SET] [--sheet FILE]

Runs the pipeline up to the foundation in each photo and writes the sets `photos`, `profiles` and
`masked` of relief_store.py, without bump maps. Masks come from the labels of the photos where there
are any; what they leave open is UNKNOWN. Photos are left out where the estimator is in doubt, or
where the foundation contradicts the labelled landmarks.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from preview import sheet
from relief_store import CROP, UNKNOWN, WINDOW, SetWriter, open_set, window, window_origin
from store import is_held_out, person_of

from extreme3d_fast import _shading
from extreme3d_fast.camera import Camera
from extreme3d_fast.crop import transform_points as transform_pixels
from extreme3d_fast.estimator import FoundationEstimator
from extreme3d_fast.foundation_view import _photo_in_crop, face_height
from extreme3d_fast.head_model import HeadModel
from extreme3d_fast.mesh import (
    Csr,
    rotate_vectors,
    transform_points,
    vertex_faces,
    vertex_normals,
)
from extreme3d_fast.rasterize import Raster, interpolate, rasterize
from extreme3d_fast.reference_builder import sharpness
from extreme3d_fast.smooth_depth import smooth_depth

Float = npt.NDArray[np.floating[Any]]
UInt8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

FOLDERS = {
    "photos": ("celebamask", "utkface"),
    "profiles": ("fasseg_profile",),
    "masked": ("masked_people",),
}
LIMITS = {"photos": 6.0, "profiles": 20.0, "masked": 12.0}  # mm from the labelled landmarks, RMS
MAX_YAW_ERROR = 25.0  # degrees, profiles: the file's name tells the true yaw
MAX_OUTSIDE = 0.15  # of the face beyond the photo
MIN_FACE = 60.0  # px, height in the photo
MIN_CONFIDENCE = 0.9
ADULT = 30  # years: all photos of UTKFace from there on, every third of the younger

# CelebAMask-HQ's classes
FACE_CLASSES = (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12)
SKIN, NOSE, GLASSES, EYES, HAIR, HAT = 1, 2, 3, (4, 5), 13, 14
STAIRCASE = 0.7  # px of the parsing, smooths its steps

# FASSEG's colours, RGB
FASSEG = {
    "background": (255, 0, 0),
    "hair": (127, 0, 0),  # and brows
    "skin": (255, 255, 0),  # with ears and neck
    "nose": (0, 255, 255),
    "mouth": (0, 255, 0),
    "eyes": (0, 0, 255),
}
FASSEG_GLASSES = ("personne011", "personne042", "personne051")  # their labels leave them out


@dataclasses.dataclass
class View:
    """A photo's crop and what each of its pixels sees of the foundation."""

    image: UInt8  # (S, S, 3)
    weight: Float
    depth: Float  # mm
    place: Float  # (S, S, 3) of the foundation in the mean head at rest, mm
    in_photo: Mask
    mm_per_pixel: float
    camera: Camera
    camera_from_head: Float
    crop_from_image: Float
    face_px: float
    yaw: float  # degrees
    fit: float  # mm from the labelled landmarks, RMS; NaN: there are none

    @property
    def there(self) -> Mask:
        """Pixels that see the foundation."""
        return np.isfinite(self.depth)


class Viewer:
    """Estimates foundations and rasterises them as the pipeline does."""

    def __init__(self, data: Path) -> None:
        self.model = HeadModel.load()
        self.estimator = FoundationEstimator(self.model, threads=1)
        self.table = vertex_faces(self.model.faces, self.model.skin_vertex_count)
        self.at_rest = self.model.vertices()[: self.model.skin_vertex_count]
        labels = np.load(data / "landmarks478.npz")
        self.row = {str(n): i for i, n in enumerate(labels["names"])}
        self.xy = labels["xy_u16"]
        self.basis = self.model.landmark_basis("478")

    def view(self, name: str, photo: UInt8) -> View | str:
        """The photo's main face, or why it is left out."""
        model, estimator = self.model, self.estimator

        def untimed(_: str, function: Any) -> Any:
            return function

        found = estimator.find(photo, untimed)
        if not found:
            return "no face"
        if found[0].detection is None:
            return "not detected"
        foundation, crop = estimator.estimate(photo, found[0], CROP, untimed)
        if foundation.warnings or foundation.confidence < MIN_CONFIDENCE:
            return "in doubt"
        face_px = face_height(foundation)
        if face_px < MIN_FACE:
            return "small"
        camera, pose = foundation.camera, foundation.camera_from_head

        gap = np.full(1, np.nan)
        if name in self.row:
            points = self.basis.positions(foundation.identity, foundation.expression)
            got = camera.project(transform_points(pose, points))
            want = self.xy[self.row[name]].astype(np.float64) / 8 - 256
            want = transform_pixels(foundation.crop_from_image, want)[: len(got)]
            gap = np.linalg.norm(got - want, axis=1)

        head = model.vertices(foundation.identity, foundation.expression)
        raster, weight, depth = rasterized(model, self.table, head, pose, camera)
        face = weight > 0
        if np.count_nonzero(face) < 5000:
            return "small"
        mm = float(np.median(depth[face])) / camera.fx
        in_photo = _photo_in_crop(crop.crop_from_image, photo.shape, CROP)
        if weight[~in_photo].sum() > MAX_OUTSIDE * weight.sum():
            return "cut off"
        place = np.stack(
            [
                interpolate(raster, np.ascontiguousarray(self.at_rest[:, k]), model.faces)
                for k in range(3)
            ],
            -1,
        )
        return View(
            crop.image,
            weight,
            depth,
            place,
            in_photo,
            mm,
            camera,
            pose,
            crop.crop_from_image,
            face_px,
            foundation.yaw_pitch_roll[0],
            float(np.sqrt(np.square(gap).mean())) * mm,
        )


def _disc(radius: float) -> np.ndarray:
    side = 2 * max(round(radius), 1) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def rasterized(
    model: HeadModel, faces_of_vertex: Csr, head: Float, camera_from_head: Float, camera: Camera
) -> tuple[Raster, Float, Float]:
    """(raster, face weight, depth in mm) of a head's skin in a crop, as the pipeline draws it.

    Args:
        faces_of_vertex: `vertex_faces` of the skin.
        head: (V, 3) vertices, mm.
    """
    skin = head[: model.skin_vertex_count]
    normals = vertex_normals(skin, model.faces, faces_of_vertex=faces_of_vertex)
    normals = rotate_vectors(camera_from_head, normals).astype(np.float32)
    at = transform_points(camera_from_head, skin).astype(np.float32)
    raster = rasterize(at, model.faces, camera)
    weight = interpolate(raster, model.face_weight, model.faces)
    return raster, weight, smooth_depth(raster, at, normals, model.faces)


def lab(image: UInt8, sigma: float = 0.0) -> Float:
    """(H, W, 3) CIE L*a*b*, L in [0, 100]."""
    a = image.astype(np.float32) / 255
    if sigma:
        a = cv2.GaussianBlur(a, (0, 0), sigma)
    return np.asarray(cv2.cvtColor(a, cv2.COLOR_RGB2Lab))


def warped(
    a: Any, crop_from_image: Float, photo_shape: tuple[int, ...], flags: int = cv2.INTER_LINEAR
) -> Any:
    """A map of the whole photo, of any resolution, in the crop; 0 beyond the photo."""
    scale = np.diag([photo_shape[1] / a.shape[1], photo_shape[0] / a.shape[0], 1.0])
    matrix = np.asarray(crop_from_image, np.float64) @ scale
    # OpenCV puts pixel centres at whole numbers
    matrix[:2, 2] += matrix[:2, :2] @ [0.5, 0.5] - 0.5
    return cv2.warpAffine(a, matrix[:2], (CROP, CROP), flags=flags)


def winners(
    labels: UInt8, crop_from_image: Float, photo_shape: tuple[int, ...], groups: list[Any]
) -> Any:
    """(S, S) index of the group of labels that is strongest in each pixel of the crop."""
    layers = [np.isin(labels, group).astype(np.float32) for group in groups]
    layers = [
        warped(cv2.GaussianBlur(layer, (0, 0), STAIRCASE), crop_from_image, photo_shape)
        for layer in layers
    ]
    return np.argmax(layers, axis=0)


# === Masks ===


def celeba_mask(view: View, parsing: UInt8, photo_shape: tuple[int, ...]) -> tuple[UInt8, Any]:
    """Mask of the crop, and its classes: 0 other, 1 face, 2 glasses, 3 eyes, 4 hair, 5 hat."""
    face = [c for c in FACE_CLASSES if c not in EYES]
    other = [c for c in range(19) if c not in (*FACE_CLASSES, GLASSES, HAIR, HAT)]
    groups = [other, face, [GLASSES], EYES, [HAIR], [HAT]]
    kind = winners(parsing, view.crop_from_image, photo_shape, groups)
    mask = np.isin(kind, (1, 3)).astype(np.uint8)
    if (kind == 2).any():
        _glasses(view, kind, mask)
    mask[~view.in_photo] = 0
    return mask, kind


def _glasses(view: View, kind: Any, mask: UInt8) -> None:
    """Lenses are drawn whole: clear ones show skin and are UNKNOWN, frames and dark ones are 0."""
    colour = lab(view.image, 0.7)
    skin = (kind == 1) & (view.weight > 0.5)
    if skin.sum() < 500:
        return
    tone = np.median(colour[skin], axis=0)
    unlike = (colour[..., 0] < 0.72 * tone[0]) | (colour[..., 0] > tone[0] + 25)
    unlike |= np.hypot(colour[..., 1] - tone[1], colour[..., 2] - tone[2]) > 18
    count, label = cv2.connectedComponents((np.isin(kind, (2, 3))).astype(np.uint8))
    for k in range(1, count):
        part = label == k
        glasses, eyes = part & (kind == 2), part & (kind == 3)
        if not glasses.any():
            continue
        inner = cv2.erode(part.view(np.uint8), _disc(2.5 / view.mm_per_pixel)) > 0
        inner &= glasses
        dark = unlike[inner].mean() if inner.sum() > 50 else 1.0
        if dark > (0.65 if eyes.sum() > 30 else 0.4):
            mask[glasses] = 0
            mask[eyes] = UNKNOWN
        else:
            mask[glasses] = np.where(unlike[glasses], 0, UNKNOWN)


def fasseg_mask(view: View, colours: UInt8, photo_shape: tuple[int, ...], glasses: bool) -> UInt8:
    """Mask of a profile; the labels know no neck, and give brows hair's colour."""
    palette = np.array(list(FASSEG.values()), np.float32)
    names = list(FASSEG)
    apart = [np.abs(colours.astype(np.float32) - c).sum(-1) for c in palette]
    labels = np.argmin(apart, axis=0).astype(np.uint8)
    # lines between two colours blend to a third
    labels = cv2.medianBlur(labels, 5)
    background, hair = names.index("background"), names.index("hair")
    count, part, stats, _ = cv2.connectedComponentsWithStats((labels == hair).astype(np.uint8))
    for k in range(1, count):
        if stats[k, cv2.CC_STAT_AREA] < 0.012 * labels.size:
            x, y, w, h = stats[k, :4]
            border = x == 0 or y == 0 or x + w == labels.shape[1] or y + h == labels.shape[0]
            if not border:
                labels[part == k] = names.index("eyes")
    rest = [k for k in range(len(names)) if k not in (background, hair)]
    kind = winners(labels, view.crop_from_image, photo_shape, [[background], [hair], rest])
    mask = (kind == 2).astype(np.uint8)
    # neck: skin below the jaw of the foundation, or below its chin where there is no foundation
    neck = view.there & (view.weight == 0) & (view.place[..., 1] < -35)
    jaw = cv2.dilate((view.weight > 0).astype(np.uint8), _disc(6 / view.mm_per_pixel)) > 0
    chin = np.flatnonzero((view.weight > 0).any(1))[-1]
    below = np.arange(CROP)[:, None] > chin
    profile = cv2.dilate((view.weight > 0).astype(np.uint8), _disc(12 / view.mm_per_pixel)) > 0
    doubt = neck & jaw | ~view.there & ~below & ~profile
    mask[(mask == 1) & (neck | (~view.there & below))] = 0
    mask[(kind == 2) & doubt] = UNKNOWN
    # forelocks down to the brows are one piece with them
    brows = (np.abs(view.place[..., 1] - 38) < 12) & (np.abs(view.place[..., 0]) < 55)
    mask[(kind == 1) & brows & (view.weight > 0)] = UNKNOWN
    if glasses:
        near = (np.abs(view.place[..., 1] - 20) < 32) & view.there & (view.place[..., 2] > -20)
        mask[near] = UNKNOWN
    mask[~view.in_photo] = 0
    return mask


def worn_mask(view: View) -> UInt8 | None:
    """Sparse mask of someone who wears a mask over the mouth; None where that is not sure."""
    x, y = view.place[..., 0], view.place[..., 1]
    face = (view.weight > 0.3) & view.in_photo
    colour = lab(view.image, 1.0)
    around = face & (y > -5) & (y < 60) & (np.abs(x) < 55)
    eyes = (np.abs(y - 22) < 13) & (np.abs(np.abs(x) - 33) < 19)
    core = face & (y < -35) & (y > -75) & (np.abs(x) < 28)
    if min((around & ~eyes).sum(), core.sum()) < 500:
        return None
    # skin: the commonest colour round the eyes that skin can have
    tone = np.median(colour[around & ~eyes & (np.abs(x) < 40) & (y < 45)], axis=0)
    for _ in range(4):
        near = around & ~eyes & (np.linalg.norm(colour - tone, axis=-1) < 18)
        if near.sum() < 300:
            return None
        tone = colour[near].mean(0)
    spread = np.sqrt(np.square(np.linalg.norm(colour[near] - tone, axis=-1)).mean())
    apart = np.linalg.norm((colour - tone) * [0.6, 1.2, 1.2], axis=-1)  # shade says less
    if np.median(apart[core]) < 16 or np.mean(apart[core] > 12) < 0.8:
        return None  # skin-coloured, or worn below the mouth
    mask = np.full((CROP, CROP), UNKNOWN, np.uint8)
    lower = face & (y < -28) & (y > -90) & (np.abs(x) < 50)
    cloth = (lower & (apart > 14)).astype(np.uint8)
    cloth = cv2.morphologyEx(cloth, cv2.MORPH_CLOSE, _disc(4 / view.mm_per_pixel))
    cloth = cv2.erode(cloth, _disc(2 / view.mm_per_pixel)) > 0
    mask[cloth & lower | core & (apart > 8)] = 0
    # what is still less like skin, up to the nose, and one with the mask
    beyond = (face & (y < -10) & (apart > 24) | (mask == 0)).astype(np.uint8)
    beyond = cv2.morphologyEx(beyond, cv2.MORPH_OPEN, _disc(1.5 / view.mm_per_pixel))
    _, label = cv2.connectedComponents(beyond)
    mask[np.isin(label, np.unique(label[core & (beyond > 0)])) & (beyond > 0)] = 0
    if spread < 11:
        skin = face & (y > 0) & (y < 75) & (np.abs(x) < 60)
        skin &= np.linalg.norm(colour - tone, axis=-1) < 14
        sure = cv2.erode(skin.astype(np.uint8), _disc(2.5 / view.mm_per_pixel)) > 0
        mask[sure] = 1
    mask[~view.in_photo] = 0
    return mask


# === Sets ===


def chosen(data: Path, folder: str) -> list[str]:
    """Photos of a folder, FOLDER/FILE."""
    names = [f"{folder}/{p.name}" for p in sorted((data / folder).glob("*.jpg"))]
    if folder != "utkface":
        return names
    ages = [int(Path(n).stem.split("_")[0]) for n in names]
    young = [n for n, age in zip(names, ages, strict=True) if age < ADULT]
    return [n for n, age in zip(names, ages, strict=True) if age >= ADULT] + young[::3]


def labelled(view: View, data: Path, name: str, shape: tuple[int, ...]) -> UInt8 | None:
    """Mask of a photo's crop; None where that is not sure."""
    folder, stem = name.split("/")[0], Path(name).stem
    if folder == "celebamask":
        parsing = cv2.imread(str(data / "celebamask_parsing" / f"{stem}.png"), 0)
        return celeba_mask(view, parsing, shape)[0]
    if folder == "fasseg_profile":
        path = data / "fasseg_profile_labels" / f"{stem}.png"
        colours = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        return fasseg_mask(view, colours, shape, stem.startswith(FASSEG_GLASSES))
    if folder == "masked_people":
        return worn_mask(view)
    return np.full((CROP, CROP), UNKNOWN, np.uint8)


def write_set(viewer: Viewer, data: Path, out: Path, name: str, limit: int) -> None:
    """One set of the store; prints what was left out."""
    photos: list[str] = []
    for folder in FOLDERS[name]:
        found = chosen(data, folder)
        photos += found[:: max(1, len(found) // limit)][:limit] if limit else found
    writer = SetWriter(out / name, len(photos))
    rows: dict[str, list[Any]] = collections.defaultdict(list)
    tally: collections.Counter[str] = collections.Counter()
    start = time.monotonic()
    for k, key in enumerate(photos):
        if k % 500 == 0:
            print(f"{name}: {k} of {len(photos)}, {time.monotonic() - start:.0f} s", flush=True)
        folder = key.split("/")[0]
        photo = cv2.imread(str(data / key), cv2.IMREAD_COLOR)
        if photo is None:
            raise FileNotFoundError(data / key)
        photo = np.ascontiguousarray(photo[..., ::-1])
        view = viewer.view(key, photo)
        if isinstance(view, str):
            tally[f"{folder}: {view}"] += 1
            continue
        if np.isnan(view.fit) and name != "profiles":
            tally[f"{folder}: no landmarks"] += 1
            continue
        if view.fit > LIMITS[name]:
            tally[f"{folder}: far from its landmarks"] += 1
            continue
        if name == "profiles":
            yaw = abs(float(Path(key).stem.split("_yaw")[1]))
            if abs(abs(view.yaw) - yaw) > MAX_YAW_ERROR:
                tally[f"{folder}: other yaw"] += 1
                continue
        mask = labelled(view, data, key, photo.shape)
        if mask is None:
            tally[f"{folder}: mask not sure"] += 1
            continue
        if folder == "celebamask" and np.mean(mask[view.weight > 0.5] == 0) > 0.75:
            tally[f"{folder}: foundation off the face"] += 1
            continue
        sharp = sharpness(view.image, view.weight, mask)
        normals = np.stack(_shading.foundation_normals(view.depth, view.mm_per_pixel), -1)
        origin = window_origin(view.weight)
        writer.write(
            len(rows["name"]),
            image=window(view.image, origin),
            normal=window(normals, origin),
            weight=window(view.weight, origin),
            depth=window(view.depth, origin),
            mask=window(mask, origin),
        )
        person = person_of(key)
        entries = {
            "name": key,
            "person": person,
            "val": is_held_out(person),
            "kind": folder,
            "mm_per_pixel": np.float32(view.mm_per_pixel),
            "origin": np.array(origin, np.int32),
            "camera": np.array(view.camera.pinhole),
            "rotation": np.asarray(view.camera_from_head[:3, :3], np.float32),
            "crop_from_image": np.asarray(view.crop_from_image, np.float64),
            "fit": np.float32(view.fit),
            "face_px": np.float32(view.face_px),
            "yaw": np.float32(view.yaw),
            "sharpness": np.float32(sharp),
            "hidden": np.float32(np.mean(mask[view.weight > 0.3] == 0)),
        }
        for field, value in entries.items():
            rows[field].append(value)
        tally[f"{folder}: taken"] += 1
    writer.finish(**{field: np.array(values) for field, values in rows.items()})
    for reason, count in sorted(tally.items()):
        print(f"{name}: {count:5d} {reason}")


def contact_sheet(out: Path, path: Path, names: list[str], count: int, seed: int) -> None:
    """Windows beside themselves with their masks: green face, red not, blue unknown."""
    tiles = []
    rng = np.random.default_rng(seed)
    for name in names:
        maps, entries = open_set(out / name)
        n = len(entries["name"])
        labelled_rows = np.flatnonzero(entries["kind"] != "utkface")
        share = max(1, count // len(names))
        for i in np.sort(rng.choice(labelled_rows, min(share, len(labelled_rows)), replace=False)):
            image = maps["image"][i]
            mask = maps["mask"][i]
            colour = np.zeros_like(image)
            colour[mask == 1], colour[mask == 0] = (0, 200, 0), (220, 0, 0)
            colour[mask == UNKNOWN] = (0, 0, 255)
            over = cv2.addWeighted(image, 0.65, colour, 0.35, 0)
            edge = cv2.resize(maps["weight"][i], (WINDOW, WINDOW)) > 127
            edge = cv2.morphologyEx(edge.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)))
            over[edge > 0] = 255
            tile = cv2.resize(np.hstack([image, over]), None, fx=0.6, fy=0.6)
            text = f"{Path(entries['name'][i]).stem[-16:]} {entries['fit'][i]:.1f}"
            text += f" {1000 * entries['sharpness'][i]:.0f}"
            cv2.putText(tile, text, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 0), 1)
            tiles.append(tile[..., ::-1])
        print(f"{name}: {n} windows")
    cv2.imwrite(str(path), sheet(tiles, 5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = os.environ.get("EXTREME3D_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=list(FOLDERS), help="write this set alone")
    parser.add_argument("--limit", type=int, default=0, help="of photos in each folder; 0 is all")
    parser.add_argument("--sheet", type=Path, help="contact sheet of what was written")
    parser.add_argument("--sheet-only", action="store_true", help="of sets that exist")
    parser.add_argument("--count", type=int, default=40, help="windows on the sheet")
    parser.add_argument("--seed", type=int, default=0, help="which windows")
    options = parser.parse_args()
    names = [options.only] if options.only else list(FOLDERS)
    if not options.sheet_only:
        cv2.setNumThreads(1)
        viewer = Viewer(options.data / "photos")
        for name in names:
            write_set(viewer, options.data / "photos", options.out, name, options.limit)
    if options.sheet:
        contact_sheet(options.out, options.sheet, names, options.count, options.seed)


if __name__ == "__main__":
    main()
