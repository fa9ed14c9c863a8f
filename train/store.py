"""The store: what labels.py and synthesis.py write and dataset.py reads, and who is held out.

A store crop is a square round FACE_CENTER, upright with the head, wider than the networks' own, as
the camera of the labels sees it that looks at that point from the nominal distance.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from extreme3d_fast.camera import Camera
from extreme3d_fast.pose import FOCAL_SIDES, SIDE_MM

STORE_SIZE = 192  # px
STORE_MM = 320.0  # width at FACE_CENTER
DISTANCE = FOCAL_SIDES * SIDE_MM  # mm from the camera to FACE_CENTER
STORE_FOCAL = DISTANCE / STORE_MM * STORE_SIZE  # px
STORE_CAMERA = Camera(
    STORE_FOCAL, STORE_FOCAL, STORE_SIZE / 2, STORE_SIZE / 2, STORE_SIZE, STORE_SIZE
)
HELD_OUT = 10  # one person in so many


def person_of(name: str) -> str:
    """Who is on a photo, as far as its name, FOLDER/FILE, says it; else the name itself."""
    source, stem = name.split("/")[0], Path(name).stem
    if source == "youtube_faces":
        return re.sub(r"_[0-9]+$", "", stem)
    if source == "fasseg_profile":  # personneNN S NN pP_yawA: person, session, number
        return stem[:10]
    return name


def is_held_out(person: str) -> bool:
    """True for the tenth of the people kept for validation."""
    return zlib.crc32(person.encode()) % HELD_OUT == 0
