"""Wavelength bands of relief, by Gaussians inside a mask."""

from __future__ import annotations

import cv2
import numpy as np

# A Gaussian average of this many wavelengths halves a wave: exp(-2 π² σ²) = 1/2.
SIGMA_PER_WAVE = float(np.sqrt(np.log(2) / 2) / np.pi)
FOUNDATION_SIGMA = 12.0  # mm; relief is what is left after this average (half of 64 mm waves)
_SMALLEST = 0.3  # px; narrower averages change nothing


def average(a: np.ndarray, inside: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian average over the pixels inside; 0 elsewhere. `sigma` in px, inf for the mean."""
    known = np.asarray(inside, np.float32)
    values = np.where(inside, a, 0).astype(np.float32)
    if not inside.any() or sigma < _SMALLEST:
        return values
    if np.isinf(sigma):
        return np.where(inside, values.sum(dtype=np.float64) / known.sum(), 0).astype(np.float32)
    side = 2 * int(np.ceil(3.5 * sigma)) + 1

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (side, side), sigma, borderType=cv2.BORDER_CONSTANT)

    return np.where(inside, blur(values) / np.maximum(blur(known), 1e-6), 0).astype(np.float32)


def band_pass(
    a: np.ndarray, inside: np.ndarray, mm_per_pixel: float, low: float, high: float
) -> np.ndarray:
    """Waves of `low` to `high` mm (0 and inf: no limit), which are halved at both ends."""
    s = SIGMA_PER_WAVE / mm_per_pixel
    return average(a, inside, s * low) - average(a, inside, s * high)


def relief_band(a: np.ndarray, inside: np.ndarray, mm_per_pixel: float) -> np.ndarray:
    """What bump maps hold: all but the foundation's long waves; 0 outside."""
    return np.where(inside, a, 0) - average(a, inside, FOUNDATION_SIGMA / mm_per_pixel)
