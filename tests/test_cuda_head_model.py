"""The head model on device arrays against the host's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from extreme3d_fast.device import Device
from extreme3d_fast.head_model import HeadModel

Float32 = npt.NDArray[np.float32]
Level = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Float32]

# A level that keeps three vertices and adds the middle of the first two.
MIDPOINT = (
    np.int32([0, 1, 2, 3, 5]),
    np.int32([0, 1, 2, 0, 1]),
    np.float32([1, 1, 1, 0.5, 0.5]),
)
# One that keeps the last of four alone.
LAST = (np.int32([0, 1]), np.int32([3]), np.float32([1]))
TRIANGLE = np.float32([[0, 0, 0], [2, 0, 0], [0, 4, 0]])


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return HeadModel.load()


def evaluated(
    device: Device,
    arrays: tuple[Float32, Float32, Float32],
    levels: list[Level],
    identity: Float32,
    expression: Float32,
) -> Float32:
    evaluator = device.ops.HeadEvaluator(*arrays, levels)
    vertices = len(levels[-1][0]) - 1 if levels else len(arrays[0])
    out = device.empty((vertices, 3))
    evaluator.evaluate(device.put(identity), device.put(expression), out, device.stream)
    return device.get(out)


def levels_of(model: HeadModel) -> list[Level]:
    return [(level.indptr, level.indices, level.weights) for level in model.subdivision]


def real_head(device: Device, model: HeadModel, identity: Float32, expression: Float32) -> Float32:
    arrays = (model.mean, model.identity, model.expression)
    return evaluated(device, arrays, levels_of(model), identity, expression)


def test_head_is_the_hosts(device: Device, model: HeadModel, rng: np.random.Generator) -> None:
    identity = rng.normal(size=model.n_identity).astype(np.float32)
    expression = rng.random(model.n_expression).astype(np.float32)
    expression[::3] = 0
    head = real_head(device, model, identity, expression)
    # float32 sums of 151 terms of up to a few mm, on coordinates of up to 200 mm
    np.testing.assert_allclose(head, model.vertices(identity, expression), rtol=0, atol=1e-4)


def test_symmetric_head_stays_exactly_symmetric(device: Device, model: HeadModel) -> None:
    mirrored = model.expression[:, model.coarse_mirror] * np.float32([-1, 1, 1])
    symmetric = (mirrored == model.expression).all(axis=(1, 2))
    assert symmetric.sum() == 12  # open jaw, pucker, ...
    expression = np.where(symmetric, np.linspace(0.1, 0.9, len(symmetric)), 0).astype(np.float32)
    head = real_head(device, model, np.zeros(model.n_identity, np.float32), expression)
    np.testing.assert_array_equal(head[model.mirror] * np.float32([-1, 1, 1]), head)


@pytest.mark.parametrize("levels", [[], [MIDPOINT], [MIDPOINT, LAST]])
@pytest.mark.parametrize("components", [0, 1, 16, 17])
def test_any_number_of_components_and_levels(
    device: Device, rng: np.random.Generator, levels: list[Level], components: int
) -> None:
    identity = rng.normal(size=(components, 3, 3)).astype(np.float32)
    alpha = rng.normal(size=components).astype(np.float32)
    head = evaluated(
        device,
        (TRIANGLE, identity, np.zeros((0, 3, 3), np.float32)),
        levels,
        alpha,
        np.zeros(0, np.float32),
    )
    expected = TRIANGLE + np.einsum("k,kvd->vd", alpha.astype(float), identity)
    if levels:
        expected = np.concatenate([expected, expected[:2].mean(0, keepdims=True)])
    if len(levels) == 2:
        expected = expected[3:]
    np.testing.assert_allclose(head, expected, atol=1e-5)  # float32 sums of a few units


def test_tables_that_do_not_fit_are_refused(device: Device) -> None:
    none = np.zeros((0, 3, 3), np.float32)
    evaluator = device.ops.HeadEvaluator
    with pytest.raises(ValueError, match=r"index 3 outside \[0, 3\)"):
        evaluator(TRIANGLE, none, none, [(MIDPOINT[0], MIDPOINT[1] + 1, MIDPOINT[2])])
    with pytest.raises(ValueError, match="indptr should run"):
        evaluator(TRIANGLE, none, none, [(MIDPOINT[0] + 1, *MIDPOINT[1:])])
    with pytest.raises(ValueError, match="indptr should not decrease"):
        evaluator(TRIANGLE, none, none, [(np.int32([0, 6, 5]), *MIDPOINT[1:])])
    with pytest.raises(ValueError, match="identity should have shape"):
        evaluator(TRIANGLE, none[:, :2], none, [])
    with pytest.raises(TypeError):
        evaluator(TRIANGLE, none, none, [(MIDPOINT[0].astype(np.int64), *MIDPOINT[1:])])
    head = evaluator(TRIANGLE, none, none, [MIDPOINT])
    with pytest.raises(ValueError, match=r"out should have shape \(4, 3"):
        head.evaluate(device.empty(0), device.empty(0), device.empty((3, 3)), device.stream)
