"""The first version's shading rule still does what it did: it is what others are compared with."""

import cv2
import numpy as np
import pytest

from bench.shading_rule import estimate_bump
from extreme3d_fast.camera import Camera

SIZE = 320
CAMERA = Camera(1000.0, 1000.0, SIZE / 2, SIZE / 2, SIZE, SIZE)
DEPTH = 600.0
MM = DEPTH / CAMERA.fx  # one pixel on the face, mm
Y, X = (np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2) * MM
RADIUS = 80.0


def srgb(linear):
    code = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.clip(np.rint(code * 255), 0, 255).astype(np.uint8)


def face(displacement=None, light=(0.0, 0.0, -1.0), ambient=0.3, albedo=0.35):
    """Rendered ball-like face of radius 80 mm: image, weight, depth of the foundation."""
    r = np.hypot(X, Y)
    bulge = 0.004 * (X**2 + Y**2)
    depth = np.where(r < RADIUS, DEPTH + bulge, np.inf).astype(np.float32)
    z = bulge + (0 if displacement is None else displacement)
    zy, zx = np.gradient(z, MM)
    n = 1 / np.sqrt(1 + zx**2 + zy**2)
    lx, ly, lz = np.array(light) / np.linalg.norm(light)
    shade = ambient + (1 - ambient) * np.clip((zx * lx + zy * ly - lz) * n, 0, None)
    grey = srgb(albedo * shade)
    t = np.clip((RADIUS - r) / 12, 0, 1)
    weight = (t * t * (3 - 2 * t)).astype(np.float32)
    return np.dstack([grey] * 3), weight, depth


def groove(wavelength=8.0, amplitude=0.3):
    """Ridges along y under a smooth window, mm, positive = deeper."""
    window = np.exp(-(X**2 + Y**2) / (2 * 25.0**2))
    return amplitude * window * np.sin(2 * np.pi * X / wavelength)


def correlation(a, b, weight):
    inside = weight > 0.9
    return np.corrcoef(a[inside], b[inside])[0, 1]


@pytest.mark.parametrize("light", [(0, 0, -1), (-1, -0.5, -1), (1.2, -0.4, -1)])
def test_shading_of_the_foundation_gives_no_bump(light):
    image, weight, depth = face(light=light)
    bump = estimate_bump(image, weight, depth, CAMERA)
    # 8-bit rounding is left: its noise is what the finest band sees.
    assert np.abs(bump[weight > 0.9]).max() < 0.1
    assert bump[weight > 0.9].std() < 0.02


def test_dark_line_is_a_hollow():
    image, weight, depth = face()
    line = np.exp(-(X**2) / (2 * 1.0**2)) * (np.abs(Y) < 30)
    image = np.clip(image * (1 - 0.15 * line[..., None]), 0, 255).astype(np.uint8)
    bump = estimate_bump(image, weight, depth, CAMERA)
    centre = bump[SIZE // 2, SIZE // 2 - 1 : SIZE // 2 + 1].mean()
    assert 0.1 < centre < 1.5
    assert centre == pytest.approx(bump.max(), rel=0.3)


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_shaded_groove_is_found_whichever_side_the_light_is_on(side):
    truth = groove()
    image, weight, depth = face(truth, light=(side, 0, -1))
    bump = estimate_bump(image, weight, depth, CAMERA)
    # Slopes alone leave the ambient term unsatisfied: the filter's phase costs cos = t / √(t²+a²).
    assert correlation(bump, truth, weight) > 0.7
    assert 0.3 < bump[weight > 0.9].std() / truth[weight > 0.9].std() < 2.0


def test_occluder_leaves_no_trace_where_the_mask_rejects_it():
    truth = groove()
    image, weight, depth = face(truth, light=(1, 0, -1))
    bar = (np.abs(Y + 30) < 6) & (np.abs(X) < 40)
    covered = image.copy()
    covered[bar] = (20, 20, 30)
    grown = cv2.dilate(bar.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    clean = estimate_bump(image, weight, depth, CAMERA, ~grown)
    masked = estimate_bump(covered, weight, depth, CAMERA, ~grown)
    # Brightness is lightly smoothed before the light is fitted: a trace of the bar's edge.
    assert np.abs(masked - clean).max() < 1e-3


def test_no_face_gives_an_empty_map():
    image = np.zeros((40, 50, 3), np.uint8)
    bump = estimate_bump(image, np.zeros((40, 50)), np.full((40, 50), np.inf), CAMERA)
    assert bump.shape == (40, 50)
    assert not bump.any()
