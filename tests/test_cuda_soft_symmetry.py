"""Eq. 9 by conjugate gradients on device arrays against the host's Cholesky."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from synthetic import Head, ellipsoid_head

from extreme3d_fast.device import Device
from extreme3d_fast.reconstructor import Reconstructor
from extreme3d_fast.soft_symmetry import Recovery, SoftSymmetry, SoftSymmetrySolver

HEAD = ellipsoid_head(4)
REFLECT = np.array([-1.0, 1.0, 1.0], np.float32)
TOLERANCE_MM = 1e-4  # float32 vertices of a 100 mm head: 8e-6 mm each; the rest is the iteration's

F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def wavy(vertices: F32, amplitude: float = 2.0) -> F32:
    """A displacement without any symmetry, smooth on the scale of the mesh."""
    x, y, z = vertices.T
    wave = np.stack([np.sin(y / 20), np.cos(x / 15 + 1), np.sin((x + z) / 25)], 1)
    return (amplitude * wave).astype(np.float32)


class Solved:
    """Result on the device and its status."""

    def __init__(self, device: Device, solver: Any, f: F32, r: F32, visible: Mask) -> None:
        out, recovery = device.empty(f.shape), device.empty(len(f), "uint8")
        solver.solve(*map(device.put, (f, r, visible)), out, recovery, device.stream)
        self.status = solver.status(device.stream)
        self.vertices, self.recovery = device.get(out), device.get(recovery, np.uint8)


def solve(device: Device, f: F32, r: F32, visible: Mask, head: Head = HEAD) -> Solved:
    solver = device.ops.SoftSymmetrySolver(head.faces, head.mirror, head.region)
    return Solved(device, solver, f, r, visible)


def largest_distance(a: F32, b: F32) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b, axis=1).max(initial=0.0))


def assert_equal(solved: Solved, expected: SoftSymmetry) -> None:
    np.testing.assert_array_equal(solved.recovery, expected.recovery)
    kept = expected.recovery == Recovery.KEPT
    np.testing.assert_array_equal(solved.vertices[kept], expected.vertices[kept])
    assert solved.status.converged
    assert largest_distance(solved.vertices, expected.vertices) < TOLERANCE_MM


def test_symmetric_detail_is_recovered_exactly(device: Device) -> None:
    """The boundary agrees with every differential, so the solution is what they came from."""
    truth = HEAD.vertices + 0.5 * (wavy(HEAD.vertices) + wavy(HEAD.vertices)[HEAD.mirror] * REFLECT)
    x, _, z = HEAD.vertices.T
    visible = ~HEAD.region | (x > -25) | (z < 0)
    detailed = np.where(visible[:, None], truth, HEAD.vertices)
    solved = solve(device, HEAD.vertices, detailed, visible)
    assert (solved.recovery == Recovery.MIRRORED).sum() > 300
    assert not (solved.recovery == Recovery.FOUNDATION).any()
    assert solved.status.converged
    assert largest_distance(solved.vertices, truth) < TOLERANCE_MM


def test_number_of_blocks_does_not_matter(device: Device) -> None:
    """Nor what number the program before ran on, with the same barrier in memory."""
    visible = ~HEAD.region | (HEAD.vertices[:, 0] > -25)
    detailed = HEAD.vertices + wavy(HEAD.vertices)
    solver = device.ops.SoftSymmetrySolver(HEAD.faces, HEAD.mirror, HEAD.region)
    expected = Solved(device, solver, HEAD.vertices, detailed, visible)
    try:
        for blocks in (1, 2, 64, 7, 1000):
            device.ops.set_grid_blocks(blocks)
            solved = Solved(device, solver, HEAD.vertices, detailed, visible)
            np.testing.assert_array_equal(solved.recovery, expected.recovery)
            assert largest_distance(solved.vertices, expected.vertices) < TOLERANCE_MM
    finally:
        device.ops.set_grid_blocks(0)


def test_without_detail_nothing_moves(device: Device) -> None:
    visible = HEAD.region & (HEAD.vertices[:, 0] > 0)
    solved = solve(device, HEAD.vertices, HEAD.vertices, visible)
    assert largest_distance(solved.vertices, HEAD.vertices) < TOLERANCE_MM
    np.testing.assert_array_equal(solved.recovery > 0, HEAD.region & ~visible)


def test_a_shifted_boundary_carries_everything_along(device: Device) -> None:
    nothing = np.zeros(len(HEAD.vertices), bool)
    shift = np.array([0.5, 3.0, -2.0], np.float32)
    detailed = np.where(HEAD.region[:, None], HEAD.vertices, HEAD.vertices + shift)
    solved = solve(device, HEAD.vertices, detailed, nothing)
    assert (solved.recovery[HEAD.region] == Recovery.FOUNDATION).all()
    assert largest_distance(solved.vertices, HEAD.vertices + shift) < TOLERANCE_MM


def test_nothing_hidden_changes_nothing(device: Device) -> None:
    everywhere = np.ones(len(HEAD.vertices), bool)
    detailed = HEAD.vertices + wavy(HEAD.vertices)
    solved = solve(device, HEAD.vertices, detailed, everywhere)
    np.testing.assert_array_equal(solved.vertices, detailed)
    assert not solved.recovery.any()
    assert solved.status.iterations == 0
    assert solved.status.converged


def test_nothing_known_changes_nothing(device: Device) -> None:
    nothing = np.zeros(len(HEAD.vertices), bool)
    head = Head(HEAD.vertices, HEAD.faces, HEAD.mirror, ~nothing)
    detailed = HEAD.vertices + wavy(HEAD.vertices)
    solved = solve(device, HEAD.vertices, detailed, nothing, head)
    np.testing.assert_array_equal(solved.vertices, detailed)
    assert not solved.recovery.any()


def test_hidden_islands_keep_their_position(device: Device) -> None:
    """Three heads side by side that may be recovered everywhere; the middle one has a boundary."""
    n = len(HEAD.vertices)
    offsets = np.repeat(n * np.arange(3), n)
    head = Head(
        np.concatenate([HEAD.vertices] * 3),
        np.concatenate([HEAD.faces + n * k for k in range(3)]).astype(np.int32),
        (np.tile(HEAD.mirror, 3) + offsets).astype(np.int32),
        np.ones(3 * n, bool),
    )
    visible = (offsets == n) & (head.vertices[:, 0] > 10)
    detailed = head.vertices + wavy(head.vertices) * visible[:, None]
    solved = solve(device, head.vertices, detailed, visible, head)
    alone = offsets != n
    np.testing.assert_array_equal(solved.vertices[alone], detailed[alone])
    assert not solved.recovery[alone].any()
    solver = SoftSymmetrySolver(head.faces, head.mirror, head.region)
    assert_equal(solved, solver.solve(head.vertices, detailed, visible))


@pytest.mark.parametrize("shown", [0.02, 0.3, 0.7, 0.98])
@pytest.mark.parametrize("noise_mm", [0.0, 3.0])  # of edges of 6 mm: slivers and folded triangles
def test_random_masks_are_solved_as_on_the_host(
    device: Device, rng: np.random.Generator, shown: float, noise_mm: float
) -> None:
    foundation = HEAD.vertices + rng.normal(0, noise_mm, HEAD.vertices.shape).astype(np.float32)
    visible = rng.random(len(foundation)) < shown
    detailed = foundation + wavy(foundation) * visible[:, None]
    solver = SoftSymmetrySolver(HEAD.faces, HEAD.mirror, HEAD.region)
    assert_equal(
        solve(device, foundation, detailed, visible), solver.solve(foundation, detailed, visible)
    )


def test_vertices_without_a_mirror_image_follow_the_foundation(device: Device) -> None:
    lonely = np.flatnonzero(HEAD.region & (HEAD.vertices[:, 0] < -30))[::7]
    mirror = HEAD.mirror.copy()
    mirror[mirror[lonely]] = mirror[lonely]
    mirror[lonely] = lonely
    head = Head(HEAD.vertices, HEAD.faces, mirror, HEAD.region)
    visible = HEAD.region & (HEAD.vertices[:, 0] > 0)
    detailed = HEAD.vertices + wavy(HEAD.vertices) * visible[:, None]
    solver = SoftSymmetrySolver(head.faces, head.mirror, head.region)
    assert_equal(
        solve(device, HEAD.vertices, detailed, visible, head),
        solver.solve(HEAD.vertices, detailed, visible),
    )


@pytest.mark.parametrize("count", [0, 1])
def test_a_region_of_next_to_no_vertices_is_solved(device: Device, count: int) -> None:
    region = np.zeros(len(HEAD.vertices), bool)
    region[:count] = True
    head = Head(HEAD.vertices, HEAD.faces, HEAD.mirror, region)
    visible = np.zeros(len(region), bool)
    detailed = HEAD.vertices + wavy(HEAD.vertices)
    solver = SoftSymmetrySolver(head.faces, head.mirror, head.region)
    assert_equal(
        solve(device, HEAD.vertices, detailed, visible, head),
        solver.solve(HEAD.vertices, detailed, visible),
    )


def test_one_solver_serves_any_photo(device: Device) -> None:
    """Nothing is left of the solve before."""
    solver = device.ops.SoftSymmetrySolver(HEAD.faces, HEAD.mirror, HEAD.region)
    detailed = HEAD.vertices + wavy(HEAD.vertices)
    left, right = HEAD.vertices[:, 0] < 0, HEAD.vertices[:, 0] > 5
    first = Solved(device, solver, HEAD.vertices, detailed, left)
    Solved(device, solver, HEAD.vertices, HEAD.vertices, right)
    again = Solved(device, solver, HEAD.vertices, detailed, left)
    np.testing.assert_array_equal(first.vertices, again.vertices)
    np.testing.assert_array_equal(first.recovery, again.recovery)


def test_values_that_are_not_finite_are_told_by_the_status(device: Device) -> None:
    visible = HEAD.region & (HEAD.vertices[:, 0] > 0)
    broken = HEAD.vertices.copy()
    broken[np.flatnonzero(HEAD.region & ~visible)[3], 1] = np.nan
    assert not solve(device, broken, HEAD.vertices, visible).status.converged


def test_bad_topology_is_an_error(device: Device) -> None:
    solver = device.ops.SoftSymmetrySolver
    with pytest.raises(ValueError, match="involution"):
        solver(HEAD.faces, np.roll(HEAD.mirror, 1), HEAD.region)
    with pytest.raises(ValueError, match="faces names vertex 2562 of 2562"):
        solver(np.r_[HEAD.faces, [[0, 1, 2562]]].astype(np.int32), HEAD.mirror, HEAD.region)
    with pytest.raises(ValueError, match="more than two"):
        solver(np.r_[HEAD.faces, HEAD.faces[:1]], HEAD.mirror, HEAD.region)
    with pytest.raises(ValueError, match="region should have shape"):
        solver(HEAD.faces, HEAD.mirror, HEAD.region[1:])


class Recorded:
    """Stands in for a reconstructor's solver and keeps what passes through it."""

    def __init__(self, solver: SoftSymmetrySolver) -> None:
        self.solver = solver
        self.arguments: tuple[Any, ...] = ()
        self.result: SoftSymmetry | None = None

    def solve(self, *arguments: Any, threads: int) -> SoftSymmetry:
        self.arguments = arguments
        self.result = self.solver.solve(*arguments, threads=threads)
        return self.result


@pytest.fixture(scope="module")
def reconstructor() -> Reconstructor:
    reconstructor = Reconstructor()
    reconstructor._symmetry = Recorded(reconstructor._symmetry)  # type: ignore[assignment]
    return reconstructor


def assert_solved_as_in(device: Device, reconstructor: Reconstructor, photo: Any) -> None:
    reconstructor.reconstruct(photo)
    model, recorded = reconstructor.head_model, reconstructor._symmetry
    assert isinstance(recorded, Recorded)
    assert recorded.result is not None
    mirror = model.mirror[: model.skin_vertex_count]
    solver = device.ops.SoftSymmetrySolver(model.faces, mirror, reconstructor._region)
    assert_equal(Solved(device, solver, *recorded.arguments), recorded.result)


def test_portrait_is_solved_as_on_the_host(
    device: Device, reconstructor: Reconstructor, portrait: npt.NDArray[np.uint8]
) -> None:
    assert_solved_as_in(device, reconstructor, portrait)


# seen from the side with half of the face hidden, from the side, from the front
@pytest.mark.parametrize("photo", ["05", "09", "12"])
def test_photos_are_solved_as_on_the_host(
    device: Device, reconstructor: Reconstructor, data_dir: Path, photo: str
) -> None:
    assert_solved_as_in(device, reconstructor, data_dir / "paper_photos" / f"{photo}.jpg")
