"""train's face masks from labels: in place, and glasses by what their lenses show."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from extreme3d_fast.crop import warp_similarity

sys.path.append(str(Path(__file__).parents[1] / "train"))
photos = importlib.import_module("relief_photos")

S = photos.CROP
SHAPE = (400, 400, 3)
TO_CROP = np.array([[1.2, -0.1, 20.0], [0.1, 1.2, -10.0], [0, 0, 1]])
SKIN_TONE = (205, 150, 125)


def view(image: np.ndarray, crop_from_image: np.ndarray) -> SimpleNamespace:
    return SimpleNamespace(
        image=image,
        weight=np.ones((S, S), np.float32),
        in_photo=np.ones((S, S), bool),
        mm_per_pixel=0.55,
        crop_from_image=crop_from_image,
    )


def test_labels_of_another_resolution_lie_where_the_photo_does():
    y, x = np.mgrid[:400, :400] + 0.5
    photo = np.repeat(((np.hypot(x - 210, y - 190) < 90) * 255).astype(np.uint8)[..., None], 3, 2)
    y, x = (np.mgrid[:256, :256] + 0.5) * 400 / 256
    parsing = (np.hypot(x - 210, y - 190) < 90).astype(np.uint8)
    crop = warp_similarity(photo, TO_CROP, S)
    mask, _ = photos.celeba_mask(view(crop, TO_CROP), parsing, SHAPE)
    assert np.mean(mask != (crop[..., 0] > 127)) < 0.002
    centers = [[np.mean(a) for a in np.nonzero(m)] for m in (mask, crop[..., 0] > 127)]
    np.testing.assert_allclose(*centers, atol=0.3)  # px


@pytest.mark.parametrize(
    ("lens", "eyes", "want"),
    [
        (SKIN_TONE, True, photos.UNKNOWN),  # clear
        ((30, 30, 40), True, 0),  # dark, eyes seen
        ((30, 30, 40), False, 0),  # dark
        ((60, 60, 190), True, 0),  # blue
    ],
)
def test_lenses_are_unknown_where_they_show_skin(lens, eyes, want):
    parsing = np.zeros((S, S), np.uint8)
    parsing[50:450, 100:400] = photos.SKIN
    image = np.full((S, S, 3), 90, np.uint8)
    image[parsing > 0] = SKIN_TONE
    for x in (170, 270):
        parsing[150:200, x : x + 60] = photos.GLASSES
        image[150:200, x : x + 60] = (15, 15, 15)  # frame
        image[155:195, x + 5 : x + 55] = lens
        if eyes:
            parsing[168:182, x + 20 : x + 40] = photos.EYES[0]
    mask, kind = photos.celeba_mask(view(image, np.eye(3)), parsing, (S, S, 3))
    assert mask[100, 250] == 1
    assert mask[20, 20] == 0
    assert kind[152, 200] == 2
    assert mask[152, 200] == 0  # frame
    assert mask[160, 180] == want
    if eyes:
        assert mask[175, 200] == (1 if want == photos.UNKNOWN else photos.UNKNOWN)


def test_beyond_the_photo_is_no_face():
    parsing = np.full((256, 256), photos.SKIN, np.uint8)
    seen = view(np.zeros((S, S, 3), np.uint8), np.diag([1.25, 1.25, 1.0]))
    seen.in_photo[:, :80] = False
    mask, _ = photos.celeba_mask(seen, parsing, SHAPE)
    assert (mask[:, :80] == 0).all()
    assert (mask[5:-5, 80:-5] == 1).all()
