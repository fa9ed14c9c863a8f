"""Pictures for the page of `bench quality`: typical results beside the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from bench import sheet
from bench.pasting import Occluders
from bench.photos import held_out_photos
from bench.tables import Context, completion, occlusion

LEVEL = 30  # % of the face's box, of the photos that are shown covered
TYPICAL, WORST = 2, 3
FAILED = 8
SIDE = 148  # px of a picture
JPEG_QUALITY = 85


@dataclass(frozen=True)
class Picture:
    table: str  # whose section it belongs to
    caption: str
    jpeg: bytes


def of_report(context: Context, report: Mapping[str, Any]) -> list[Picture]:
    """Of the tables that were measured; ours alone."""
    tables = report["tables"]
    out: list[Picture] = []
    if occlusion.NAME in tables:
        out += of_occlusion(context, tables[occlusion.NAME]["records"])
    if completion.NAME in tables:
        out += of_completion(context, tables[completion.NAME]["records"])
    return out


def of_occlusion(context: Context, records: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """Photos whose drift is the median, and those with the largest, lost ones first."""
    ours = next(iter(context.columns))
    ranked = sorted(
        ((r["photo"], r["drift"][LEVEL]) for r in records if r["column"] == ours),
        key=lambda row: np.inf if row[1] is None else row[1],
    )
    middle = max((len(ranked) - TYPICAL) // 2, 0)
    chosen = [("typical", *row) for row in ranked[middle : middle + TYPICAL]]
    chosen += [("worst", *row) for row in ranked[middle + TYPICAL :][-WORST:][::-1]]
    photos = {photo.name: photo for photo in held_out_photos(context.data)}
    occluders = Occluders(context.data / "occluders")
    out = []
    for kind, name, drift in chosen:
        photo = photos[name]
        clean = photo.read()
        # as the table draws it
        rng = np.random.default_rng([context.seed, photo.key, LEVEL])
        covered, _ = occluders.cover(clean, photo.box, LEVEL / 100, rng)
        found = "lost" if drift is None else f"{drift:.1f} % of the face"
        out.append(
            Picture(
                occlusion.NAME,
                f"{kind}: {name}, landmark drift at {LEVEL} % covered: {found}. Clean above, "
                "covered below: photo, foundation, bump map, head in clay and in colour at "
                f"{', '.join(f'{yaw}°' for yaw in sheet.YAWS)}",
                jpeg(np.concatenate([row(context, image) for image in (clean, covered)])),
            )
        )
    return out


def of_completion(context: Context, records: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """The photos that gave no head of their face, or one that is not whole."""
    failed = {
        (r["group"], r["photo"]): r
        for r in records
        if not r["found"] or r["elsewhere"] or r["faults"]
    }
    if not failed:
        return []
    shown, names = [], []
    for sample in completion.samples(context):
        r = failed.get((sample.group, sample.name))
        if r and len(shown) < FAILED:
            why = r.get("error") or "no face"
            if r["found"]:
                why = "; ".join(r["faults"]) or "another face"
            shown.append(square(sample.image, SIDE))
            names.append(f"{sample.name} ({sample.group}): {why}")
    caption = f"{len(shown)} of the {len(failed)} photos that failed: " + "; ".join(names)
    return [Picture(completion.NAME, caption, jpeg(np.concatenate(shown, axis=1)))]


def row(context: Context, image: np.ndarray) -> np.ndarray:
    """(SIDE, n SIDE, 3) uint8: what became of a photo."""
    from extreme3d_fast import NoFaceFound

    try:
        return sheet.row(context.reconstructor.reconstruct(image), SIDE)
    except NoFaceFound:
        empty = np.full((SIDE, SIDE, 3), 255, np.uint8)
        return np.concatenate([square(image, SIDE), *[empty] * (2 + 2 * len(sheet.YAWS))], axis=1)


def square(image: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3): all of a photo, on white."""
    scale = side / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    out = np.full((side, side, 3), 255, np.uint8)
    out[: len(small), : small.shape[1]] = small[:side, :side]
    return out


def jpeg(image: np.ndarray) -> bytes:
    """Of (H, W, 3) uint8 RGB."""
    done, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not done:
        raise RuntimeError("OpenCV cannot write JPEG")
    return bytes(data)
