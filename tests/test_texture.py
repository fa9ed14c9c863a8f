"""texture: what is seen keeps the photo's colour, what is hidden gets the best guess."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from extreme3d_fast.camera import Camera
from extreme3d_fast.texture import VertexColors, vertex_colors

SIZE = 100
CAMERA = Camera(500.0, 500.0, SIZE / 2, SIZE / 2, SIZE, SIZE)
DEPTH = 500.0  # a pixel is a millimetre there
SKIN = (180, 130, 110)


class Sheet:
    """A flat grid of (n, n) vertices, 2 mm apart, facing the camera, symmetric about x = 0."""

    def __init__(self, n: int = 41) -> None:
        at = (np.arange(n, dtype=np.float32) - (n - 1) / 2) * 2
        x, y = np.meshgrid(at, at)
        self.n = n
        self.x = x.ravel()
        points = np.stack([x, y, np.full_like(x, DEPTH)], axis=-1)
        self.vertices = points.reshape(-1, 3).astype(np.float32)
        corner = np.arange(n * n, dtype=np.int32).reshape(n, n)
        a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
        # y points down in the picture: a, c, b turns counter-clockwise to the viewer.
        faces = np.concatenate([np.stack([a, c, b], -1), np.stack([b, c, d], -1)])
        self.faces = faces.reshape(-1, 3).astype(np.int32)
        self.mirror = corner[:, ::-1].reshape(-1).astype(np.int32)
        self.alone = np.full(n * n, -1, np.int32)
        self.skin = np.full((n * n, 3), SKIN, np.uint8)

    def colors(
        self,
        photo: NDArray[np.uint8],
        seen: NDArray[np.bool_],
        mirror: NDArray[np.int32] | None = None,
        threads: int = 1,
    ) -> NDArray[np.int64]:
        pairs = self.alone if mirror is None else mirror
        out = vertex_colors(
            photo, self.vertices, self.faces, seen, pairs, CAMERA, self.skin, threads=threads
        )
        return out.astype(int)


@pytest.fixture
def sheet() -> Sheet:
    return Sheet()


def ramp_photo() -> NDArray[np.uint8]:
    """Red grows with x, green with y: pixel (i, j) has red 2 i + 1 at its centre i + 0.5."""
    at = (2 * np.arange(SIZE) + 1).astype(np.uint8)
    red, green = np.meshgrid(at, at)
    return np.stack([red, green, np.full_like(red, 77)], axis=-1)


def test_seen_vertex_takes_the_photo_at_its_projection(sheet: Sheet) -> None:
    colors = sheet.colors(ramp_photo(), np.ones(sheet.n**2, bool))
    # Linear photo: bilinear sampling is exact, red = 2 x with x in pixels, centres at + 0.5.
    x, y = sheet.vertices[:, 0] + SIZE / 2, sheet.vertices[:, 1] + SIZE / 2
    np.testing.assert_allclose(colors, np.c_[2 * x, 2 * y, np.full_like(x, 77)], atol=0.51)


def test_nothing_seen_gives_the_fallback(sheet: Sheet) -> None:
    colors = sheet.colors(ramp_photo(), np.zeros(sheet.n**2, bool))
    np.testing.assert_array_equal(colors, sheet.skin)


def test_hidden_half_takes_the_mirrored_colours(sheet: Sheet) -> None:
    stripes = np.where(np.arange(SIZE) // 6 % 2, 90, 160).astype(np.uint8)
    photo = np.broadcast_to(stripes[:, None, None], (SIZE, SIZE, 3)).copy()
    colors = sheet.colors(photo, sheet.x > -3, sheet.mirror)
    np.testing.assert_allclose(colors[sheet.x < -10], colors[sheet.mirror][sheet.x < -10], atol=3)


def test_light_meets_at_the_seam(sheet: Sheet) -> None:
    colors = sheet.colors(ramp_photo(), sheet.x > -12, sheet.mirror)
    red = colors[:, 0].reshape(sheet.n, sheet.n)
    # Red grows by 4 a vertex; at the seam, 4 vertices from the middle, the two halves are 32 apart.
    assert np.abs(np.diff(red, axis=1)).max() <= 16


def test_colours_of_the_background_do_not_bleed_in(sheet: Sheet) -> None:
    photo = np.full((SIZE, SIZE, 3), SKIN, np.uint8)
    photo[:, : SIZE // 2] = (0, 255, 0)  # a screen behind, up to the border of what is seen
    colors = sheet.colors(photo, sheet.x >= 0)
    assert (np.abs(colors - SKIN) <= 2).all()


def test_surface_seen_edge_on_is_not_sampled(sheet: Sheet) -> None:
    angle = np.radians(80)
    sheet.vertices = sheet.vertices.copy()
    sheet.vertices[:, 2] += np.sin(angle) * sheet.x
    sheet.vertices[:, 0] *= np.cos(angle)
    green = np.full((SIZE, SIZE, 3), (0, 255, 0), np.uint8)
    np.testing.assert_array_equal(sheet.colors(green, np.ones(sheet.n**2, bool)), sheet.skin)


def test_far_from_the_seen_the_toned_fallback_returns() -> None:
    sheet = Sheet(201)  # 400 mm wide, of which the photo shows the 100 mm in the middle
    pale = np.full((SIZE, SIZE, 3), (216, 156, 132), np.uint8)  # 1.2 x the skin of the model
    pale[:, SIZE // 2 - 32 :] = (100, 60, 50)  # most of the skin, hence the tone
    colors = sheet.colors(pale, np.abs(sheet.x) < 40)
    middle = colors.reshape(sheet.n, sheet.n, 3)[sheet.n // 2]
    toned = np.array(SKIN) * np.array([100, 60, 50]) / SKIN
    np.testing.assert_allclose(middle[-1], toned, atol=3)
    np.testing.assert_allclose(middle[0], toned, atol=14)  # 160 mm: faded to exp(-4)


def test_border_vertex_with_a_neighbour_that_it_does_not_list_stays_finite(sheet: Sheet) -> None:
    at = 20 * sheet.n  # on the left border; only the vertex above leads to it
    following = [face[np.flatnonzero(face == at)[0] - 2] for face in sheet.faces if at in face]
    mirror = sheet.mirror.copy()
    mirror[following] = -1
    photo = np.full((SIZE, SIZE, 3), SKIN, np.uint8)
    assert (np.abs(sheet.colors(photo, sheet.x > -12, mirror) - SKIN) <= 1).all()


def test_vertex_outside_the_photo_is_not_sampled(sheet: Sheet) -> None:
    sheet.vertices = sheet.vertices + np.float32([45, 0, 0])
    photo = np.full((SIZE, SIZE, 3), SKIN, np.uint8)
    assert (np.abs(sheet.colors(photo, np.ones(sheet.n**2, bool)) - SKIN) <= 1).all()


def test_colours_do_not_depend_on_threads(sheet: Sheet, rng: np.random.Generator) -> None:
    photo = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    one, five = (sheet.colors(photo, sheet.x > -7, sheet.mirror, threads=n) for n in (1, 5))
    np.testing.assert_array_equal(one, five)


def test_photo_leaves_nothing_behind_for_the_next(sheet: Sheet, rng: np.random.Generator) -> None:
    photos = rng.integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    seen = [sheet.x > -7, sheet.x < 20]
    colors = VertexColors(sheet.faces, sheet.mirror, sheet.skin)
    for photo, shown in zip(photos, seen, strict=True):
        np.testing.assert_array_equal(
            colors.colors(photo, sheet.vertices, shown, CAMERA),
            sheet.colors(photo, shown, sheet.mirror),
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("photo", r"`photo` should be uint8 of shape \(100, 100, 3\)"),
        ("mirror", r"`mirror_of` should hold indices in \[-1, 1681\)"),
        ("seen", r"`seen` should have shape \(1681\)"),
    ],
)
def test_wrong_input_is_named(sheet: Sheet, name: str, message: str) -> None:
    photo = ramp_photo()[: 50 if name == "photo" else SIZE]
    mirror = sheet.mirror + (1 if name == "mirror" else 0)
    seen = np.ones(sheet.n**2 - (name == "seen"), bool)
    with pytest.raises(ValueError, match=message):
        sheet.colors(photo, seen, mirror)
