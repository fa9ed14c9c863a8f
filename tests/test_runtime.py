"""Runtimes of networks on the CPU: OpenVINO beside ONNX Runtime."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from extreme3d_fast import InvalidModelFile, Reconstructor, openvino_runner
from extreme3d_fast.photo_network import ASSETS, HostNetworks
from extreme3d_fast.session import Session

# A bfloat16 number is off by up to 2^-9 of itself, and errors of some thirty layers in a row add up
# like noise: 2^-9 sqrt(2 * 30). Of the answers' root mean square, on noise, which no network knows.
BFLOAT16 = 0.016 * 3
NETWORKS = {
    "pose": (1, 128, 128, 3),
    "foundation": (1, 150, 150, 3),
    "identity": (2, 150, 150, 3),
    "bump": (1, 5, 192, 128),
}

installed = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="needs openvino (the test extra has it)"
)


def feeds(name: str) -> dict[str, NDArray[np.float32]]:
    shape = NETWORKS[name]
    return {"image": np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)}


def asset(name: str) -> Path:
    return ASSETS / f"{name}.onnx"


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    found_before = (openvino_runner._core, openvino_runner.multiplies_bfloat16)
    for found in found_before:
        found.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    yield
    for found in found_before:
        found.cache_clear()


@installed
@pytest.mark.parametrize("name", NETWORKS)
def test_openvino_answers_as_onnx_runtime_up_to_rounding(name: str) -> None:
    want = Session(asset(name), threads=1).run(feeds(name))
    got = Session(asset(name), threads=1, runtime="openvino").run(feeds(name))
    assert got.keys() == want.keys()
    for key, answer in got.items():
        assert answer.dtype == np.float32
        error = np.sqrt(np.mean((answer - want[key]) ** 2) / np.mean(want[key] ** 2))
        assert error < BFLOAT16, key


@installed
@pytest.mark.parametrize("name", NETWORKS)
def test_openvino_answers_alike_on_any_number_of_threads(name: str) -> None:
    one = Session(asset(name), threads=1, runtime="openvino")
    if one.runtime.endswith("f32"):
        pytest.skip("only its sums of bfloat16 products are in one order")
    three = Session(asset(name), threads=3, runtime="openvino")
    for a, b in zip(one.run(feeds(name)).values(), three.run(feeds(name)).values(), strict=True):
        np.testing.assert_array_equal(a, b)


@installed
def test_openvino_keeps_answers_when_it_is_asked_again() -> None:
    session = Session(asset("pose"), threads=1, runtime="openvino")
    first = session.run(feeds("pose"))
    kept = {key: answer.copy() for key, answer in first.items()}
    session.run({"image": np.zeros(NETWORKS["pose"], np.float32)})
    for key, answer in first.items():
        np.testing.assert_array_equal(answer, kept[key])


@installed
def test_openvino_reads_arrays_that_are_not_contiguous() -> None:
    session = Session(asset("pose"), threads=1, runtime="openvino")
    image = feeds("pose")["image"]
    turned = np.ascontiguousarray(image.swapaxes(1, 2)).swapaxes(1, 2)
    for a, b in zip(
        session.run({"image": image}).values(), session.run({"image": turned}).values(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("without_openvino")
def test_without_openvino_onnx_runtime_runs() -> None:
    assert Session(asset("pose"), runtime=None).runtime.startswith("onnxruntime")


@pytest.mark.usefixtures("without_openvino")
def test_missing_openvino_is_named_when_it_is_asked_for() -> None:
    with pytest.raises(ImportError, match=r"extreme3d-fast\[openvino\]"):
        Session(asset("pose"), runtime="openvino")


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_openvino_is_taken_by_itself_only_for_bfloat16(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    class Runner:
        def __init__(self, *_: object) -> None:
            self.precision = self.description = precision

    monkeypatch.setattr("extreme3d_fast.session.OpenVinoRunner", Runner)
    monkeypatch.setattr("extreme3d_fast.session.multiplies_bfloat16", lambda: True)
    assert (Session(asset("pose"), runtime=None).runtime == precision) is (precision == "bf16")
    assert Session(asset("pose"), runtime="openvino").runtime == precision


def test_network_that_openvino_cannot_run_is_left_to_onnx_runtime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("extreme3d_fast.session.OpenVinoRunner", refuse)
    monkeypatch.setattr("extreme3d_fast.session.multiplies_bfloat16", lambda: True)
    assert Session(asset("pose"), runtime=None).runtime.startswith("onnxruntime")
    with pytest.raises(InvalidModelFile, match="no such operator"):
        Session(asset("pose"), runtime="openvino")


@installed
def test_networks_that_answer_in_pixels_stay_in_full_precision() -> None:
    networks = HostNetworks(runtime="openvino")
    runtimes = [networks.open(asset(n)).runtime.split()[0] for n in ("face_detection", "pose")]
    assert runtimes == ["onnxruntime", "openvino"]
    assert networks.runtime.startswith("openvino")
    assert "onnxruntime" in networks.runtime


@installed
def test_other_networks_are_rounded_only_when_asked(tmp_path: Path) -> None:
    copy = tmp_path / "pose.onnx"
    copy.write_bytes(asset("pose").read_bytes())
    assert HostNetworks().open(copy).runtime.startswith("onnxruntime")
    assert HostNetworks(runtime="openvino").open(copy).runtime.startswith("openvino")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_unknown_or_useless_runtime_is_refused(device: str) -> None:
    runtime = "tensorflow" if device == "cpu" else "onnxruntime"
    with pytest.raises(ValueError, match="runtime"):
        Reconstructor(device=device, runtime=runtime)  # type: ignore[arg-type]


@installed
def test_face_is_the_same_on_both_runtimes_up_to_rounding(portrait: NDArray[np.uint8]) -> None:
    exact, rounded = (
        Reconstructor(runtime=runtime).reconstruct(portrait)  # type: ignore[arg-type]
        for runtime in ("onnxruntime", "openvino")
    )
    moved = np.linalg.norm(exact.foundation - rounded.foundation, axis=1)
    assert np.median(moved) < 0.15  # mm; twice the most among 29 photos
    assert exact.warnings == rounded.warnings
    assert np.mean(exact.face_mask != rounded.face_mask) < 0.01
