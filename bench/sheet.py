"""One picture to judge by eye: photo, foundation, bump map and final head, a row a photo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench import machine
from bench.stages import find_photos

NAME = "sheet"
HELP = "picture of photos and their reconstructions, to look at"

YAWS = (-40, 0, 40)
BUMP_RANGE = 1.0  # mm of displacement from mid grey to white (nearer) or black (deeper)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, default=Path("out/sheet.png"), metavar="FILE")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="as for stages")
    parser.add_argument("--count", type=int, default=12, metavar="N", help="default: 12")
    parser.add_argument("--size", type=int, default=320, metavar="PX", help="side of a picture")


def run(options: argparse.Namespace) -> int:
    """Reconstruct photos spread over the folder and write the sheet."""
    from extreme3d_fast import Extreme3DError, Reconstructor

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
