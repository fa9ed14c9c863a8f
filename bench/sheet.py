"""One picture to judge by eye: photo, foundation, bump map and final head, a row a photo.

With --relief: the authors' relief beside each source of detail, as grey clay on our foundation.
With --occlusion: what became of whatever covers the face, beside the authors' filling.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench import machine
from bench.options import positive
from bench.stages import find_photos

NAME = "sheet"
HELP = "picture of photos and their reconstructions, to look at"

YAWS = (-40, 0, 40)
BUMP_RANGE = 1.0  # mm of displacement from mid grey to white (nearer) or black (deeper)

_RELIEF_LIGHT = (-0.6, -0.6, -1.0)  # towards it, camera frame
_RELIEF_MARGIN = 20  # px of the crop

OCCLUDED = 0.05  # share of the face that is hidden, or that the authors filled
_HEAD_FRAME = (0.13, 0.17, 0.66)  # top, left and side of the face in a rendered head
_MASK_TINT = (235, 40, 40)  # what the mask rejects
_HOLE_TINT = (240, 190, 40)  # what else is filled


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default=Path("out/sheet.png"), metavar="FILE")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="as for stages")
    parser.add_argument("--count", type=positive, default=12, metavar="N", help="default: 12")
    parser.add_argument(
        "--size", type=positive, default=320, metavar="PX", help="side of a picture"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--relief",
        action="store_true",
        help="the authors' photos: theirs and ours as shaded relief (needs the research data)",
    )
    which.add_argument(
        "--occlusion",
        action="store_true",
        help="the authors' occluded photos: masks, relief before and after filling, final meshes",
    )
    parser.add_argument(
        "--references", type=Path, metavar="FILE", help="reference set for --occlusion"
    )
    parser.add_argument("--data", type=Path, default=machine.data_folder(), metavar="DIR")


def run(options: argparse.Namespace) -> int:
    """Reconstruct photos spread over the folder and write the sheet."""
    from extreme3d_fast import Extreme3DError, Reconstructor

    if options.relief:
        return run_relief(options)
    if options.occlusion:
        return run_occlusion(options)
    photos = find_photos(options.photos)
    chosen = np.unique(np.linspace(0, len(photos) - 1, min(options.count, len(photos))).astype(int))
    reconstructor = Reconstructor()
    rows = []
    for i in chosen:
        try:
            face = reconstructor.reconstruct(photos[i] or machine.astronaut())
        except Extreme3DError as error:
            print(f"{photos[i]}: {error}")
            continue
        rows.append(row(face, options.size))
    if not rows:
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(options.output), np.concatenate(rows)[:, :, ::-1])
    print(f"wrote {options.output}: photo, foundation, bump map, clay and colour at {YAWS} degrees")
    return 0


def row(face: Any, size: int) -> np.ndarray:
    """(size, n size, 3) uint8: the pictures of one face."""
    from extreme3d_fast.mesh_io import Mesh
    from extreme3d_fast.render import render_meshes

    def small(image: np.ndarray) -> np.ndarray:
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)

    plain = np.full(face.foundation.shape, 200, np.uint8)
    foundation = {**face.meshes, "skin": Mesh(face.foundation, face.foundation_faces, plain)}
    level = np.clip(127.5 * (1 - face.bump / BUMP_RANGE), 0, 255).astype(np.uint8)
    pictures = [
        small(face.photo),
        render_meshes(foundation, size=size, shading="clay"),
        small(np.repeat(level[:, :, None], 3, axis=2)),
    ]
    for shading in ("clay", "color"):
        pictures += [face.render(yaw=yaw, size=size, shading=shading) for yaw in YAWS]
    return np.concatenate(pictures, axis=1)


def run_relief(options: argparse.Namespace) -> int:
    """The sheet of --relief."""
    from bench import authors_maps, details
    from bench.face_views import face_viewer
    from extreme3d_fast.photo_network import HostNetworks

    sources, missing = details.load_sources(HostNetworks().open)
    for title, why in missing.items():
        print(f"without {title}: {why}")
    titles = [t for t in (details.RULE, details.SHADING, details.NETWORK) if t in sources]
    rows = []
    for photo in authors_maps.load(options.data, face_viewer()):
        view = photo.view
        # theirs was not meant for our foundation's long waves, nor for what it leaves out
        maps = [np.zeros_like(view.weight), photo.theirs * (view.weight > 0)]
        maps += [sources[title](view).bump for title in titles]
        rows.append(relief_row(view, maps, options.size))
    if not rows:
        print(f"no photos of the authors in {options.data}")
        return 1
    write_spread(rows, options)
    print(f"wrote {options.output}: photo, foundation, theirs, {', '.join(titles)}")
    return 0


def write_spread(rows: Sequence[np.ndarray], options: argparse.Namespace) -> np.ndarray:
    """Writes as many of the rows as asked for, spread over them; returns which."""
    count = min(options.count, len(rows))
    chosen = np.unique(np.linspace(0, len(rows) - 1, count).astype(int))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(options.output), np.concatenate([rows[i] for i in chosen])[:, :, ::-1])
    return chosen


def run_occlusion(options: argparse.Namespace) -> int:
    """The sheet of --occlusion."""
    from bench import authors_maps
    from bench.face_views import view_face
    from extreme3d_fast import Reconstructor
    from extreme3d_fast.bump_network import BumpNetwork
    from extreme3d_fast.photo_network import HostNetworks

    reconstructor = Reconstructor(references=options.references)
    network = BumpNetwork(open_network=HostNetworks().open)
    rows, names = [], []
    for photo in authors_maps.load(options.data, lambda image: view_face(reconstructor, image)):
        view = photo.view
        face = reconstructor.reconstruct(options.data / "paper_photos" / f"{photo.name}.jpg")
        if max(photo.filled_share, face.occlusion.fraction) <= OCCLUDED:
            continue
        before = network.estimate(view.image, view.weight, view.depth, view.camera).bump
        shown = view.weight > 0
        masked = tinted(view.image, view.region & face.occlusion.hole, _HOLE_TINT)
        masked = tinted(masked, view.region & ~face.face_mask, _MASK_TINT)
        heads = [head_from_front(face, options.size, shading) for shading in ("clay", "color")]
        rows.append(
            np.concatenate(
                [
                    relief_row(view, [], options.size),
                    relief_row(
                        view.showing(masked),
                        [before, face.bump, photo.filled * shown],
                        options.size,
                    ),
                    *heads,
                ],
                axis=1,
            )
        )
        names.append(photo.name)
        reference = face.reference
        print(
            f"{photo.name}: {face.occlusion.fraction:.0%} hidden, the authors filled "
            f"{photo.filled_share:.0%}; "
            + (f"{reference}" if reference else "no reference")
            + "".join(f"; {warning}" for warning in face.warnings)
        )
    if not rows:
        print(f"no occluded photos of the authors in {options.data}")
        return 1
    chosen = write_spread(rows, options)
    print(
        f"wrote {options.output}: photo, mask (red) and hole (yellow), our relief before and after "
        f"filling, theirs after it, the head; rows {', '.join(names[i] for i in chosen)}"
    )
    return 0


def head_from_front(face: Any, size: int, shading: str) -> np.ndarray:
    """(size, size, 3) uint8: the face of the final head."""
    top, left, side = _HEAD_FRAME
    whole = round(size / side)
    y, x = round(top * whole), round(left * whole)
    picture = face.render(size=whole, shading=shading)
    return np.asarray(picture[y : y + size, x : x + size])


def tinted(image: np.ndarray, where: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """The picture (H, W, 3) uint8 with pixels (H, W) half in another colour."""
    out = image.copy()
    out[where] = (image[where].astype(int) + colour) // 2
    return out


def relief_row(view: Any, bumps: Sequence[np.ndarray], size: int) -> np.ndarray:
    """(size, n size, 3) uint8: the face of a photo, and its foundation with each bump map."""
    rows, columns = (np.flatnonzero((view.weight > 0).any(axis=k)) for k in (1, 0))
    side = min(max(np.ptp(rows), np.ptp(columns)) + 2 * _RELIEF_MARGIN, view.size)
    y, x = (int(np.clip((a[0] + a[-1] - side) // 2, 0, view.size - side)) for a in (rows, columns))
    pictures = [view.image, *(np.repeat(clay(view, b)[:, :, None], 3, axis=2) for b in bumps)]
    return np.concatenate(
        [
            cv2.resize(p[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_AREA)
            for p in pictures
        ],
        axis=1,
    )


def clay(view: Any, bump: np.ndarray) -> np.ndarray:
    """(S, S) uint8: the foundation with a bump map, lit from above left, 0 where there is none."""
    from bench.relief import normals_of_depth

    light = np.array(_RELIEF_LIGHT) / np.linalg.norm(_RELIEF_LIGHT)
    lit = normals_of_depth(view.depth + bump, view.camera) @ light
    return np.asarray(np.clip(40 + 200 * np.nan_to_num(lit, nan=-0.2), 0, 255), np.uint8)
