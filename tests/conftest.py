"""Shared fixtures: a real portrait, research data where present, fixed seeds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from hypothesis import settings
from numpy.typing import NDArray
from research_data import DATA

from bench.workloads import Capture, capture
from extreme3d_fast.device import Device
from extreme3d_fast.errors import DeviceUnavailable
from extreme3d_fast.mesh_io import Mesh

# No deadline, which would be a timing assertion; the same examples in every run.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of research data (photos, scans), see EXTREME3D_DATA in CONTRIBUTING.md."""
    if not DATA.is_dir():
        pytest.skip(f"no research data at {DATA} (set EXTREME3D_DATA)")
    return DATA


@pytest.fixture(scope="session")
def portrait() -> NDArray[np.uint8]:
    """(512, 512, 3) uint8 RGB photo of Eileen Collins, public domain (NASA)."""
    from skimage import data

    image = np.asarray(data.astronaut(), np.uint8)
    image.flags.writeable = False
    return image


@pytest.fixture(scope="session")
def captured(portrait: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """The stages of the portrait's reconstruction in a crop of 250 px, read from a file."""
    path = tmp_path_factory.mktemp("captured") / "portrait.png"
    cv2.imwrite(str(path), portrait[:, :, ::-1])
    return capture(path, crop_size=250, threads=1)


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def sphere() -> Mesh:
    """A sphere of radius 100 mm, 642 vertices, whose colours tell the position apart."""
    ball = trimesh.creation.icosphere(subdivisions=3, radius=100.0)
    vertices = np.asarray(ball.vertices, np.float32)
    colors = np.clip((vertices + 100.0) * 1.27, 0, 255).astype(np.uint8)
    return Mesh(vertices, np.asarray(ball.faces, np.int32), colors)


@pytest.fixture(params=["host", "host reversed", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Device that operations run on; the twin on the host with its threads in either order."""
    try:
        device = Device("cuda" if request.param == "cuda" else "host")
    except DeviceUnavailable as error:
        pytest.skip(str(error))
    if device.kind == "host":
        device.ops.run_reversed(request.param == "host reversed")
    yield device
    if device.kind == "host":
        device.ops.run_reversed(False)
