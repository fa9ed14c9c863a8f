"""Bump-map targets of photos by shape from shading, for the bump network (§4.1).

    python train/shading.py --data DATA --sets FOLDER [--mask-network FILE] [--sheet FILE]

Fills `bump` and `trust` of the set `photos` (relief_photos.py) and adds `relief` to its entries:
which photos have a target. Photos are taken by measures alone: those that show enough skin, are
sharp, and whose relief comes out neither flat nor rough. Photos without labels of what is skin need
the mask of a bump network that was trained on the others; without --mask-network they get none.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from preview import shaded_depth, sheet
from relief_photos import winners
from relief_store import UNKNOWN, WINDOW, band, map_path, open_set

from extreme3d_fast.camera import Camera
from extreme3d_fast.shading import shape_from_shading

BROWS = (6, 7)  # classes of CelebAMask-HQ
BROW_TRUST = 0.5  # there the target is what surrounds them, continued

MAX_FIT = 5.0  # mm, distance of the foundation from the labelled landmarks
MIN_SHARPNESS = 0.006
MIN_SKIN = 0.6  # share of the face whose shading is seen
# RMS of a photo's relief, mm: above it is noise, stubble all over, or a foundation gone wrong
MAX_ROUGHNESS = 0.45
MAX_STEEPNESS = 0.30  # RMS slope

Float = npt.NDArray[np.float32]


class Targets:
    """Targets of the windows of a set."""

    def __init__(self, data: Path, prefix: Path, mask_network: Path | None) -> None:
        self.data = data
        self.maps, self.entries = open_set(prefix)
        self.network = None
        if mask_network:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.network = onnxruntime.InferenceSession(str(mask_network), options)

    def target(self, i: int) -> tuple[Float, Float, dict[str, float]] | None:
        """(bump mm, trust in [0, 1], measures) of window i; None: what is skin is not known."""
        maps, entries = self.maps, self.entries
        weight = cv2.resize(maps["weight"][i], (WINDOW, WINDOW)).astype(np.float32) / 255
        mask = np.array(maps["mask"][i])
        if (mask[weight > 0.5] == UNKNOWN).mean() > 0.5:
            if self.network is None:
                return None
            mask = self._network_mask(i)
        skin = mask == 1
        brows = self._brows(i)
        mm, fx = float(entries["mm_per_pixel"][i]), float(entries["camera"][i][0])
        depth = maps["depth"][i].astype(np.float32) + np.float32(mm * fx)
        weight[~np.isfinite(depth)] = 0
        camera = Camera(fx, fx, WINDOW / 2, WINDOW / 2, WINDOW, WINDOW)
        # not faded towards the border: the pipeline does that
        region = (weight > 0).astype(np.float32)
        bump = shape_from_shading(maps["image"][i], region, depth, camera, skin & ~brows)
        bump = band(bump, weight, mm)
        trust = np.where(skin & (weight > 0.02), np.where(brows, BROW_TRUST, 1.0), 0.0)
        face = weight > 0.5
        seen = face & skin & ~brows
        measures = {
            "skin": float(seen.sum() / max(face.sum(), 1)),
            "roughness": float(np.sqrt(np.square(bump[seen]).mean())) if seen.any() else 0.0,
            "steepness": steepness(bump, seen, mm),
        }
        return bump, trust.astype(np.float32), measures

    def _brows(self, i: int) -> npt.NDArray[np.bool_]:
        name, origin = str(self.entries["name"][i]), self.entries["origin"][i]
        folder, stem = name.split("/")[0], Path(name).stem
        if folder != "celebamask":
            return np.zeros((WINDOW, WINDOW), bool)
        labels = cv2.imread(str(self.data / "photos/celebamask_parsing" / f"{stem}.png"), 0)
        shape = cv2.imread(str(self.data / "photos" / name)).shape
        rest = [c for c in range(19) if c not in BROWS]
        matrix = self.entries["crop_from_image"][i]
        kind = winners(np.asarray(labels, np.uint8), matrix, shape, [rest, list(BROWS)])
        kind = cv2.dilate(kind.astype(np.uint8), np.ones((3, 3), np.uint8))
        x, y = origin
        return np.asarray(kind[y : y + WINDOW, x : x + WINDOW] > 0)

    def _network_mask(self, i: int) -> npt.NDArray[np.uint8]:
        assert self.network is not None
        image = self.maps["image"][i].astype(np.float32) / 127.5 - 1
        normal = cv2.resize(self.maps["normal"][i].astype(np.float32) / 127, (WINDOW, WINDOW))
        x = np.concatenate([image, normal], -1).transpose(2, 0, 1)[None]
        mask = self.network.run(["mask"], {"image": np.ascontiguousarray(x)})[0][0, 0]
        return np.asarray(mask > 0.5, np.uint8)


def steepness(bump: Float, seen: npt.NDArray[np.bool_], mm: float) -> float:
    """RMS slope of a bump map where it is seen."""
    gy, gx = np.gradient(bump / mm)
    return float(np.sqrt((gx**2 + gy**2)[seen].mean())) if seen.any() else 0.0


def accepted(measures: dict[str, float]) -> bool:
    return (
        measures["skin"] >= MIN_SKIN
        and 0.02 < measures["roughness"] <= MAX_ROUGHNESS
        and measures["steepness"] <= MAX_STEEPNESS
    )


def draw(maps: dict[str, Any], entries: dict[str, Any], rows: Any, path: Path) -> None:
    """Photos beside their foundations with relief."""
    tiles = []
    for i in rows:
        depth, bump = (np.asarray(maps[k][i], np.float32) for k in ("depth", "bump"))
        relief = shaded_depth(depth + bump, float(entries["mm_per_pixel"][i]))
        tile = np.hstack([maps["image"][i], relief])
        tiles.append(cv2.resize(tile, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    if tiles:
        cv2.imwrite(str(path), sheet(tiles, 5)[..., ::-1])


def main() -> None:
    options = arguments()
    cv2.setNumThreads(1)
    prefix = options.sets / "photos"
    targets = Targets(options.data, prefix, options.mask_network)
    entries = targets.entries
    out = {k: np.load(map_path(prefix, k), mmap_mode="r+") for k in ("bump", "trust")}
    count = len(entries["name"])
    relief = np.array(entries.get("relief", np.zeros(count, bool)))
    rows = np.flatnonzero((entries["fit"] < MAX_FIT) & (entries["sharpness"] > MIN_SHARPNESS))
    rows = rows[relief[rows] == options.again]
    if options.limit:
        rows = np.random.default_rng(0).permutation(rows)[: options.limit]
    start, refused = time.monotonic(), []
    for k, i in enumerate(rows):
        found = targets.target(int(i))
        if found is None:
            continue
        bump, trust, measures = found
        if not accepted(measures):
            refused.append(measures)
            out["trust"][i], relief[i] = 0, False
            continue
        out["bump"][i], out["trust"][i], relief[i] = bump, np.rint(255 * trust), True
        if k % 500 == 0:
            print(f"{k} of {len(rows)}, {time.monotonic() - start:.0f} s", flush=True)
    for m in out.values():
        m.flush()
    np.savez(prefix.with_name(prefix.name + ".npz"), **{**entries, "relief": relief})
    print(f"{relief.sum()} of {count} photos have targets; {len(refused)} refused by measures")
    if options.sheet:
        maps, entries = open_set(prefix)
        shown = np.random.default_rng(1).permutation(np.flatnonzero(relief))[:40]
        draw(maps, entries, shown, options.sheet)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("EXTREME3D_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--sets", type=Path, required=True, help="folder of the store")
    parser.add_argument("--mask-network", type=Path, help="ONNX file, for photos without labels")
    parser.add_argument("--again", action="store_true", help="only photos that have a target")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="picture of 40 of them")
    return parser.parse_args()


if __name__ == "__main__":
    main()
