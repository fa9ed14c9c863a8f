"""Device memory, streams and recorded work, and arrays of other libraries."""

from __future__ import annotations

import gc
import subprocess
import sys

import numpy as np
import pytest

from extreme3d_fast.device import Device
from extreme3d_fast.errors import DeviceUnavailable


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8"])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (2, 3, 4)])
def test_what_is_put_is_what_one_gets(
    device: Device, rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
) -> None:
    values = (100 * rng.random(shape)).astype(dtype)
    np.testing.assert_array_equal(device.get(device.put(values), dtype), values)
    assert device.ops.shape(device.put(values)) == shape


def test_masks_are_bytes_on_the_device(device: Device) -> None:
    mask = np.array([True, False, True])
    on_device = device.put(mask)
    np.testing.assert_array_equal(device.get(on_device, np.uint8), [1, 0, 1])
    np.testing.assert_array_equal(device.get(on_device, np.bool_), mask)


def test_slices_share_memory_and_keep_it(device: Device) -> None:
    whole = device.put(np.arange(12, dtype=np.float32).reshape(6, 2))
    part = device.ops.slice(whole, 1, 3, [4])
    device.ops.fill_bytes(part, 0, device.stream)
    expected = [[0, 1], [0, 0], [0, 0], [6, 7], [8, 9], [10, 11]]
    np.testing.assert_array_equal(device.get(whole), expected)
    del whole
    gc.collect()
    np.testing.assert_array_equal(device.get(part), np.zeros(4))


def test_what_does_not_fit_is_refused(device: Device) -> None:
    array = device.empty((4, 2))
    for begin, end, shape in ((3, 2, []), (0, 5, []), (0, 4, [3, 3])):
        with pytest.raises(ValueError, match="slice"):
            device.ops.slice(array, begin, end, shape)
    with pytest.raises(ValueError, match="smaller"):
        device.ops.upload(np.zeros(9, np.float32), array, device.stream)
    with pytest.raises(ValueError, match="smaller"):
        device.ops.download(array, np.zeros(9, np.float32), device.stream)
    with pytest.raises(ValueError, match="dtype"):
        device.empty(3, "float16")


def test_recorded_work_runs_again_on_what_is_there_then(device: Device) -> None:
    source, target = device.put(np.float32([1, 2])), device.put(np.float32([0, 0]))
    work = device.record(lambda: device.ops.copy(source, target, device.stream))
    for values in ([3, 4], [5, 6]):
        device.ops.upload(np.float32(values), source, device.stream)
        work()
        np.testing.assert_array_equal(device.get(target), values)


def test_twin_takes_and_gives_numpy_arrays(rng: np.random.Generator) -> None:
    device = _twin()
    points = rng.random((5, 3)).astype(np.float32)
    out = np.empty_like(points)
    device.ops.transform_points(np.eye(4, dtype=np.float32), points, out)
    np.testing.assert_array_equal(out, points)
    np.testing.assert_array_equal(np.from_dlpack(device.put(points)), points)


@pytest.mark.gpu
def test_arrays_of_torch_go_in_and_out_without_copies(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    try:
        device = Device("cuda")
    except DeviceUnavailable as error:
        pytest.skip(str(error))
    points = torch.tensor(rng.random((5, 3)), dtype=torch.float32, device="cuda")
    out = torch.zeros_like(points)
    eye = torch.eye(4, device="cuda")
    stream = torch.cuda.current_stream().cuda_stream
    device.ops.transform_points(eye, points, out, stream)
    assert torch.equal(out, points)
    ours = device.put(np.float32([1, 2, 3]))
    theirs = torch.from_dlpack(ours)
    assert theirs.data_ptr() == device.ops.pointer(ours)
    theirs += 1
    torch.cuda.synchronize()
    np.testing.assert_array_equal(device.get(ours), [2, 3, 4])


def test_without_its_module_a_device_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr("extreme3d_fast.device.import_module", absent)
    with pytest.raises(DeviceUnavailable, match="EXTREME3D_CUDA=ON"):
        Device("cuda")


def _twin() -> Device:
    try:
        return Device("host")
    except DeviceUnavailable as error:
        pytest.skip(str(error))


def test_the_module_and_its_twin_can_be_loaded_together() -> None:
    pytest.importorskip("extreme3d_fast._cuda")
    code = (
        "import numpy as np; from extreme3d_fast import _cuda, _cuda_host;"
        "print(_cuda.Rasterizer is not _cuda_host.Rasterizer, _cuda_host.Blender(4, 4) is not None)"
    )
    _twin()
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["True", "True"]
