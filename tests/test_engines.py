"""engines, half_precision and device_session: what is built, what is kept, what runs where.

Engines are built here for GPUs that are not here; what needs one is marked `gpu`.
"""

from __future__ import annotations

import importlib
import os
import shutil
import stat
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_networks import says, write_chain, write_network

from extreme3d_fast import cli, device_session, engines
from extreme3d_fast.device import RECORDING, Device, Gpu
from extreme3d_fast.device_session import DeviceSession, DeviceTensor
from extreme3d_fast.engines import PRECISIONS, EngineCache, EngineKey, Precision, cached_engine
from extreme3d_fast.errors import DeviceUnavailable, InvalidModelFile, UnsafeCache
from extreme3d_fast.half_precision import with_half_precision
from extreme3d_fast.photo_network import ASSETS
from extreme3d_fast.session import Session

Float32 = npt.NDArray[np.float32]
NETWORKS = sorted(path.stem for path in ASSETS.glob("*.onnx"))
KEY = EngineKey("0" * 64, "tensorrt_rtx 1.7", "sm86", "fp16")
SM86 = 86
H200 = Gpu(0, "NVIDIA H200", 90, 141)
A10 = Gpu(0, "NVIDIA A10", 86, 24)


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx-cu13")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_chain(tmp_path / "tiny.onnx", [np.ones((2, 3, 3, 3)), np.ones((1, 2, 1, 1))])


def inputs_of(session: Session, batch: int, rng: np.random.Generator) -> dict[str, Float32]:
    """Noise in the range that the network's contract gives."""
    if session.metadata["name"] == "bump":  # five maps at 512 px, about this size each
        return {"image": rng.uniform(-1, 1, (1, 5, 512, 512)).astype(np.float32)}
    mean, std = (float(session.metadata[key]) for key in ("mean", "std"))
    shape = (batch, *(size or 0 for size in session.inputs["image"][1:]))
    return {"image": ((rng.uniform(0, 255, shape) - mean) / std).astype(np.float32)}


def relative_error(got: Float32, expected: Float32) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def ran(model: bytes, image: Float32) -> list[Float32]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    answers: list[Float32] = session.run(None, {session.get_inputs()[0].name: image})
    return answers


# What is built.


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_each_shipped_network_builds_ahead_of_time(
    rtx: Any, name: str, precision: Precision
) -> None:
    path = ASSETS / f"{name}.onnx"
    engine = engines.build(path, precision=precision, compute_capability=SM86, runtime=rtx)
    weights = len(engines.prepared(path, precision=precision))
    assert len(engine) > 0.9 * weights  # it holds them all, at the precision asked for


@pytest.mark.parametrize("capability", [75, 80, 89, 120])
def test_other_gpus_are_built_for_as_well(rtx: Any, tiny: Path, capability: int) -> None:
    assert engines.build(tiny, compute_capability=capability, runtime=rtx)


def test_one_engine_for_each_gpu_that_the_runtime_knows(rtx: Any, tiny: Path) -> None:
    assert engines.build(tiny, runtime=rtx)


def test_gpu_that_nothing_is_built_for_is_refused_with_those_that_are(rtx: Any, tiny: Path) -> None:
    with pytest.raises(DeviceUnavailable, match=r"75, 80, 86.* not 30"):
        engines.build(tiny, compute_capability=30, runtime=rtx)


def test_unknown_precision_is_refused(tiny: Path) -> None:
    with pytest.raises(ValueError, match=r"precision: expected one of .*got 'int3'"):
        engines.build(tiny, precision="int3")  # type: ignore[arg-type]


def test_what_is_no_network_is_refused(rtx: Any, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no network")
    with pytest.raises(InvalidModelFile, match=r"no\.onnx is not a usable"):
        engines.build(tmp_path / "no.onnx", compute_capability=SM86, runtime=rtx)


def test_message_holds_the_reason_that_tensorrt_gives(
    rtx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ASSETS / "identity.onnx"  # weights of sixteen bits, which TensorRT does not take
    monkeypatch.setattr(engines, "prepared", lambda *_, **__: path.read_bytes())
    with pytest.raises(InvalidModelFile, match="int16"):
        engines.build(path, compute_capability=SM86, runtime=rtx)


@pytest.mark.parametrize("name", NETWORKS)
def test_unpacked_weights_say_what_the_file_says(name: str, rng: np.random.Generator) -> None:
    session = Session(ASSETS / f"{name}.onnx", threads=2)
    (image,) = inputs_of(session, 2, rng).values()
    model = engines.prepared(session.path, precision="fp32")
    expected = session.run({next(iter(session.inputs)): image})
    for got, want in zip(ran(model, image), expected.values(), strict=True):
        assert relative_error(got, want) < 1e-5  # the order of sums alone


@pytest.mark.parametrize("name", NETWORKS)
def test_half_precision_says_nearly_the_same(name: str, rng: np.random.Generator) -> None:
    path = ASSETS / f"{name}.onnx"
    (image,) = inputs_of(Session(path), 2, rng).values()
    whole, half = (engines.prepared(path, precision=p) for p in ("fp32", "fp16"))
    assert len(half) < 0.9 * len(whole)  # one has most of its weights in its last layer
    for got, want in zip(ran(half, image), ran(whole, image), strict=True):
        # 2^-11 for each of some thirty layers, adding up like noise to 3e-3, and room for as much
        assert relative_error(got, want) < 6e-3


def test_whole_numbers_stay_exact_in_half_precision(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    kernels = [rng.integers(-2, 3, shape) for shape in ((4, 3, 3, 3), (4, 4, 1, 1), (2, 4, 1, 1))]
    model = write_chain(tmp_path / "chain.onnx", kernels).read_bytes()
    image = rng.integers(-3, 4, (2, 3, 5, 6)).astype(np.float32)  # sums stay below 2048
    half = with_half_precision(model)
    assert half.count(b"Cast") == 2  # into the inner layers, and out before the last
    np.testing.assert_array_equal(ran(half, image)[0], ran(model, image)[0])


def test_last_layers_stay_in_float32(tmp_path: Path, rng: np.random.Generator) -> None:
    kernel = rng.normal(size=(1, 5, 3, 3)).astype(np.float32)
    model = write_network(tmp_path / "last.onnx", kernel, says()).read_bytes()
    image = rng.normal(size=(1, 5, 8, 8)).astype(np.float32)
    half = with_half_precision(model)
    assert b"Cast" not in half
    for got, want in zip(ran(half, image), ran(model, image), strict=True):
        np.testing.assert_array_equal(got, want)


def test_weight_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    path = write_chain(tmp_path / "big.onnx", [np.full((1, 1, 1, 1), 7e4), np.ones((1, 1, 1, 1))])
    with pytest.raises(InvalidModelFile, match="kernel0_half exceeds half precision"):
        with_half_precision(path.read_bytes())


@given(data=st.data())
def test_damaged_file_is_refused_and_nothing_else_happens(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.onnx"
    model = bytearray(write_chain(path, [np.ones((1, 1, 1, 1))] * 2).read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(model) - 1), max_size=3)):
        model[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(model)))
    with suppress(InvalidModelFile):
        with_half_precision(bytes(model[:cut]))


# What is kept.


@given(content=st.binary(max_size=300))
def test_cache_gives_back_what_was_stored(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = EngineCache(tmp_path_factory.mktemp("cache") / "engines")
    assert cache.load(KEY) is None
    cache.store(KEY, content, name="net")
    assert cache.load(KEY) == content
    (entry,) = cache.entries()
    assert (entry.name, entry.key, entry.size) == ("net", KEY, len(content))


@pytest.mark.parametrize("field", [field.name for field in fields(EngineKey)])
def test_each_part_of_the_key_leads_to_another_file(cache: EngineCache, field: str) -> None:
    other = replace(KEY, **{field: 99 if field == "recipe" else "another"})
    cache.store(KEY, b"engine", name="net")
    assert cache.load(other) is None
    assert cache.path(other) != cache.path(KEY)


def test_file_of_another_key_is_not_taken(cache: EngineCache) -> None:
    other = replace(KEY, gpu="sm89")
    shutil.copy(cache.store(other, b"engine", name="net"), cache.path(KEY))
    assert cache.load(KEY) is None


@given(data=st.data())
def test_file_with_a_changed_byte_is_not_taken(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = EngineCache(tmp_path_factory.mktemp("cache") / "engines")
    path = cache.store(KEY, b"an engine", name="net")
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert cache.load(KEY) is None
    assert list(cache.entries()) == []


@given(kept=st.floats(0, 1, exclude_max=True))
def test_file_that_is_cut_off_is_not_taken(
    kept: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = EngineCache(tmp_path_factory.mktemp("cache") / "engines")
    path = cache.store(KEY, b"an engine", name="net")
    os.truncate(path, int(kept * path.stat().st_size))
    assert cache.load(KEY) is None


posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX owners and modes")


@posix
def test_only_the_user_may_read_what_is_kept(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache = EngineCache(tmp_path / "extreme3d_fast" / "engines")
        path = cache.store(KEY, b"engine", name="net")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (cache.folder.parent, cache.folder, path)]
    assert modes == [0o700, 0o700, 0o600]
    assert list(cache.folder.iterdir()) == [path]  # nothing temporary is left


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_file_that_others_may_write_is_refused(cache: EngineCache, mode: int) -> None:
    cache.store(KEY, b"engine", name="net").chmod(mode)
    with pytest.raises(UnsafeCache, match=f"may be written by others .mode {mode:04o}"):
        cache.load(KEY)


@posix
@pytest.mark.parametrize("above", [False, True])
def test_folder_that_others_may_write_is_refused(tmp_path: Path, above: bool) -> None:
    folder = EngineCache(tmp_path / "a" / "engines").folder
    (folder.parent if above else folder).chmod(0o777)
    with pytest.raises(UnsafeCache, match="may be written by others"):
        EngineCache(folder)


@posix
def test_file_of_another_user_is_refused(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store(KEY, b"engine", name="net")
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    with pytest.raises(UnsafeCache, match="belongs to another user"):
        cache.load(KEY)


@posix
def test_link_is_not_followed(cache: EngineCache, tmp_path: Path) -> None:
    elsewhere = cache.store(KEY, b"engine", name="net").rename(tmp_path / "elsewhere")
    cache.path(KEY).symlink_to(elsewhere)
    assert cache.load(KEY) is None
    before = elsewhere.read_bytes()
    cache.store(KEY, b"new engine", name="net")
    assert elsewhere.read_bytes() == before
    assert cache.load(KEY) == b"new engine"


def test_writers_at_the_same_time_leave_one_whole_file(cache: EngineCache) -> None:
    contents = [bytes([i]) * 100_000 for i in range(4)]
    cache.store(KEY, contents[0], name="net")
    seen = []

    def write(content: bytes) -> None:
        for _ in range(5):
            cache.store(KEY, content, name="net")
            seen.append(cache.load(KEY))

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 20
    assert all(content in contents for content in seen)


def test_cache_folder_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EXTREME3D_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    home = tmp_path / "home" / ".cache" / "extreme3d_fast" / "engines"
    assert EngineCache().folder == home
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert EngineCache().folder == tmp_path / "xdg" / "extreme3d_fast" / "engines"
    monkeypatch.setenv("EXTREME3D_CACHE", str(tmp_path / "own"))
    assert EngineCache().folder == tmp_path / "own" / "engines"


def built_once(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of a `build` that answers with a number."""
    calls: list[Any] = []

    def build(path: Path, **how: Any) -> bytes:
        calls.append(how)
        return f"{path.stem} {len(calls)}".encode()

    monkeypatch.setattr(engines, "build", build)
    return calls


def fake_tensorrt(name: str = "tensorrt_rtx", version: str = "1.7") -> Any:
    fake = SimpleNamespace(__name__=name, __version__=version)
    if name == "tensorrt_rtx":
        fake.ComputeCapability = SimpleNamespace(__members__={"NONE": 0, "SM86": 1, "SM120": 2})
    return fake


def test_engine_is_built_once_and_again_when_it_is_damaged(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, cache: EngineCache
) -> None:
    calls = built_once(monkeypatch)
    how: Any = {"precision": "fp16", "target": 86, "runtime": fake_tensorrt(), "cache": cache}
    key, engine = cached_engine(tiny, **how)
    assert cached_engine(tiny, **how) == (key, engine) == (key, b"tiny 1")
    cache.path(key).write_bytes(b"damaged")
    assert cached_engine(tiny, **how) == (key, b"tiny 2")
    assert len(calls) == 2


def test_engines_are_told_apart_by_file_version_gpu_and_precision(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path, cache: EngineCache
) -> None:
    built_once(monkeypatch)
    base: dict[str, Any] = {"path": tiny, "precision": "fp16", "target": 86}
    base["runtime"] = fake_tensorrt()
    other = write_chain(tmp_path / "other.onnx", [np.ones((1, 3, 1, 1))])
    changes: list[dict[str, Any]] = [
        {},
        {"path": other},
        {"precision": "tf32"},
        {"target": 120},
        {"runtime": fake_tensorrt(version="1.8")},
    ]
    digests = [cached_engine(**base | change, cache=cache)[0].digest for change in changes]
    assert len(set(digests)) == len(changes)


@pytest.mark.parametrize(
    ("runtime", "gpu", "ahead"),
    [
        (fake_tensorrt(), "sm86", 86),
        (fake_tensorrt("tensorrt"), "sm86 NVIDIA A10", None),
    ],
    ids=["tensorrt_rtx", "tensorrt"],
)
def test_engine_is_for_the_model_of_gpu_where_tensorrt_measures_as_it_builds(
    monkeypatch: pytest.MonkeyPatch,
    tiny: Path,
    cache: EngineCache,
    runtime: Any,
    gpu: str,
    ahead: int | None,
) -> None:
    calls = built_once(monkeypatch)
    target = Gpu(0, "NVIDIA A10", 86, 24)
    key, _ = cached_engine(tiny, precision="fp16", target=target, runtime=runtime, cache=cache)
    assert key.gpu == gpu
    assert calls[0]["compute_capability"] == ahead


def test_gpu_that_the_list_lacks_is_refused_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, cache: EngineCache
) -> None:
    calls = built_once(monkeypatch)
    how: Any = {"precision": "fp16", "target": H200, "cache": cache}
    with pytest.raises(DeviceUnavailable, match="capability 86, 120, not 90"):
        cached_engine(tiny, runtime=fake_tensorrt(), **how)
    assert not calls


def test_tensorrt_builds_for_no_gpu_that_is_not_here(tiny: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="of the GPU it runs on, not 86"):
        engines.engine_key(
            tiny, precision="fp16", target=86, runtime=fake_tensorrt("tensorrt", "11.4")
        )


# What is installed.


def only(monkeypatch: pytest.MonkeyPatch, modules: Mapping[str, Any]) -> None:
    """Makes these the modules of TensorRT that can be imported."""
    real = importlib.import_module

    def load(name: str, package: str | None = None) -> Any:
        if name in ("tensorrt", "tensorrt_rtx"):
            if name not in modules:
                raise ImportError(f"No module named {name!r}")
            return modules[name]
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", load)


def test_tensorrt_comes_before_tensorrt_for_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {name: fake_tensorrt(name) for name in ("tensorrt_rtx", "tensorrt")}
    only(monkeypatch, modules)
    assert engines.installed_tensorrt() is modules["tensorrt"]
    assert engines.installed_tensorrt(ahead_of_time=True) is modules["tensorrt_rtx"]


def test_missing_tensorrt_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, {})
    with pytest.raises(DeviceUnavailable) as raised:
        engines.installed_tensorrt()
    for text in ("No module named", "pip install tensorrt-cu13", "pip install tensorrt-rtx-cu13"):
        assert text in str(raised.value)


class FakeOps:
    """What `_cuda` is asked for, said in `log`; memory is numbers."""

    ON_DEVICE = True

    def __init__(self) -> None:
        self.log: list[str] = []
        self.capturing = False
        self.captures_fail = 0  # so many of the next ones

    def set_device(self, number: int) -> None:
        del number

    def is_capturing(self, stream: int) -> bool:
        del stream
        return self.capturing

    def begin_capture(self, stream: int) -> None:
        self.log.append(f"begin {stream}")

    def end_capture(self, stream: int) -> FakeOps:
        self.log.append(f"end {stream}")
        self.captures_fail -= 1
        if self.captures_fail >= 0:
            raise RuntimeError("recording: operation failed due to a previous error")
        return self

    def launch(self, stream: int) -> None:
        self.log.append(f"launch on {stream}")

    def pointer(self, array: int) -> int:
        return array


class FakeDevice(Device):
    """A stream of a GPU as far as it is asked."""

    def __init__(self, gpu: Gpu = H200, stream: int = 16) -> None:
        self.ops, self.stream, self.number, self._gpu = FakeOps(), stream, gpu.number, gpu

    def __del__(self) -> None:
        pass

    @property
    def gpu(self) -> Gpu:
        return self._gpu

    def empty(self, shape: int | tuple[int, ...], dtype: str = "float32") -> int:
        del shape, dtype
        return 256


@pytest.fixture
def h200(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeDevice:
    monkeypatch.setenv("EXTREME3D_CACHE", str(tmp_path / "cache"))
    return FakeDevice()


def test_missing_runtimes_are_named_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, h200: FakeDevice
) -> None:
    only(monkeypatch, {})
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceUnavailable) as raised:
        DeviceSession(tiny, h200)
    said = str(raised.value)
    for text in ("tiny.onnx on NVIDIA H200", "9.0", "without CUDA"):
        assert text in said
    for package in ("tensorrt-cu13", "tensorrt-rtx-cu13", "onnxruntime-gpu"):
        assert f"pip install {package}" in said


# What runs. The stand-ins tell what would have been enqueued; those at the end are the real ones.

RECORDED = ["begin 16", "run 100", "end 16"]


class FakeBackend:
    name = "fake 1.0"

    def __init__(self, log: list[str], *, recordable: bool = True, warm_ups: int = 1) -> None:
        self.log, self._recordable, self.warm_ups = log, recordable, warm_ups

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        batch, _, height, width = shapes["image"]
        return {"answer": (batch, 1, height, width)}

    def bind(self, feeds: Any, outputs: Any) -> Any:
        del outputs
        return (
            lambda: self.log.append(f"run {feeds['image'].pointer}"),
            lambda: self._recordable,
        )

    def fork(self, device: Device) -> FakeBackend:
        return FakeBackend(device.ops.log)


def session_on(
    monkeypatch: pytest.MonkeyPatch,
    path: Path,
    device: FakeDevice,
    backend: Mapping[str, Any] | None = None,
    **how: Any,
) -> DeviceSession:
    fake = FakeBackend(device.ops.log, **(backend or {}))
    monkeypatch.setattr(DeviceSession, "_load", lambda *_: fake)
    return DeviceSession(path, device, **how)


def ends(pointer: int = 100, size: int = 8) -> tuple[dict[str, DeviceTensor], ...]:
    image, answer = (2, 3, size, size), (2, 1, size, size)
    return {"image": DeviceTensor(pointer, image)}, {"answer": DeviceTensor(pointer + 1, answer)}


@pytest.mark.parametrize("warm_ups", [1, 2])
def test_first_run_is_recorded_and_later_ones_launched(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, h200: FakeDevice, warm_ups: int
) -> None:
    session = session_on(monkeypatch, tiny, h200, {"warm_ups": warm_ups})
    for _ in range(3):
        session.run(*ends())
    assert h200.ops.log == ["run 100"] * warm_ups + RECORDED + ["launch on 16"] * 2


def test_other_buffers_and_sizes_have_graphs_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, h200: FakeDevice
) -> None:
    session = session_on(monkeypatch, tiny, h200)
    for _ in range(2):
        session.run(*ends(100))
        session.run(*ends(200))
        session.run(*ends(100, size=16))
    assert h200.ops.log.count("begin 16") == 3


def test_buffers_that_were_not_used_for_long_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, h200: FakeDevice
) -> None:
    session = session_on(monkeypatch, tiny, h200)
    for pointer in (100, *range(200, 215), 100, 300, 100, 200):
        session.run(*ends(pointer))
    assert h200.ops.log.count("launch on 16") == 2  # both of 100
    assert h200.ops.log.count("begin 16") == 1 + 15 + 1 + 1


def test_callers_graph_gets_the_kernels_and_not_a_graph(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, h200: FakeDevice
) -> None:
    session = session_on(monkeypatch, tiny, h200)
    session.run(*ends())
    h200.ops.capturing = True
    session.run(*ends())
    session.run(*ends(200))
    h200.ops.capturing = False
    session.run(*ends())
    assert h200.ops.log[1:] == [*RECORDED, "run 100", "run 200", "launch on 16"]


@pytest.mark.parametrize("how", ["switched off", "not recordable"])
def test_without_graphs_each_run_is_enqueued(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, h200: FakeDevice, how: str
) -> None:
    backend = {"recordable": how != "not recordable"}
    session = session_on(monkeypatch, tiny, h200, backend, graphs=how != "switched off")
    for _ in range(3):
        session.run(*ends())
    assert h200.ops.log == ["run 100"] * 3


def test_recording_that_fails_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, h200: FakeDevice
) -> None:
    session = session_on(monkeypatch, tiny, h200)
    h200.ops.captures_fail = 1
    for _ in range(2):
        session.run(*ends())
    assert h200.ops.log == ["run 100", *RECORDED, "run 100", *RECORDED, "launch on 16"]


def test_run_that_cannot_be_recorded_is_enqueued(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, h200: FakeDevice
) -> None:
    session = session_on(monkeypatch, tiny, h200)
    h200.ops.captures_fail = 2
    for _ in range(3):
        session.run(*ends())
    assert h200.ops.log == ["run 100", *[*RECORDED, "run 100"] * 2, "run 100", "run 100"]


def test_fork_records_on_its_own_stream(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, h200: FakeDevice
) -> None:
    session = session_on(monkeypatch, tiny, h200)
    other = FakeDevice(stream=32)
    fork = session.fork(other)
    fork.run(*ends())
    assert h200.ops.log == []
    assert other.ops.log == ["run 100", "begin 32", "run 100", "end 32"]
    assert fork.metadata == session.metadata
    assert fork.runtime == session.runtime == "fake 1.0 fp16 on NVIDIA H200"


def test_no_two_threads_record_or_start_at_once(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, h200: FakeDevice
) -> None:
    session = session_on(monkeypatch, tiny, h200)
    thread = threading.Thread(target=session.run, args=ends())
    with RECORDING:
        thread.start()
        thread.join(0.05)
        assert h200.ops.log == []
    thread.join()
    assert h200.ops.log == ["run 100", *RECORDED]


@pytest.mark.parametrize(
    ("feeds", "outputs", "message"),
    [
        ({}, {}, r"feeds: expected \['image'\], got \[\]"),
        ({"image": DeviceTensor(1, (2, 4, 8, 8))}, {}, r"image.*\(None, 3, None, None\)"),
        (ends()[0], {}, r"outputs: expected \{'answer': \(2, 1, 8, 8\)\}, got"),
        (ends()[0], {"answer": DeviceTensor(1, (2, 8, 8))}, r"got \{'answer': \(2, 8, 8\)\}"),
        (*ends(0)[:1], ends()[1], "image.*expected an address on the GPU, got 0"),
    ],
    ids=["no input", "channels", "no output", "shape of output", "null"],
)
def test_wrong_arrays_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    tiny: Path,
    h200: FakeDevice,
    feeds: Any,
    outputs: Any,
    message: str,
) -> None:
    session = session_on(monkeypatch, tiny, h200)
    with pytest.raises(ValueError, match=message):
        session.run(feeds, outputs)
    assert h200.ops.log == []


def test_contract_is_that_of_the_session_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, h200: FakeDevice
) -> None:
    path = ASSETS / "pose.onnx"
    cpu, gpu = Session(path), session_on(monkeypatch, path, h200)
    assert (gpu.path, gpu.metadata, gpu.inputs, gpu.outputs) == (
        cpu.path,
        cpu.metadata,
        cpu.inputs,
        cpu.outputs,
    )
    gpu.expect(inputs=cpu.inputs, outputs=cpu.outputs)
    with pytest.raises(InvalidModelFile, match="expected inputs"):
        gpu.expect(inputs={}, outputs=cpu.outputs)
    kernels = [np.ones((1, 1, 1, 1))]
    lacking = write_chain(tmp_path / "a.onnx", kernels, metadata={"licence": ""})
    with pytest.raises(InvalidModelFile, match="lacks the metadata licence"):
        DeviceSession(lacking, h200)
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        DeviceSession(tmp_path / "nothing.onnx", h200)


def test_unknown_runtime_and_precision_are_refused(tiny: Path, h200: FakeDevice) -> None:
    with pytest.raises(ValueError, match=r"runtime: expected one of .*got 'openvino'"):
        DeviceSession(tiny, h200, runtime="openvino")
    with pytest.raises(ValueError, match=r"precision: expected one of .*got 'fp8'"):
        DeviceSession(tiny, h200, precision="fp8")  # type: ignore[arg-type]


class FakeContext:
    """Takes batches of at most 64, and says what it is told."""

    def __init__(self, engine: FakeEngine, config: Any) -> None:
        self._engine, self.config, self._batch = engine, config, 0
        engine.contexts.append(self)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._batch = shape[0]
        return name == "image" and self._batch <= 64

    def get_tensor_shape(self, name: str) -> list[int]:
        return [self._batch, 1, 8, 8] if name == "answer" else []

    def set_device_memory(self, pointer: int, size: int) -> None:
        self.memory = pointer, size

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        del name
        return pointer % 4 == 0

    def execute_async_v3(self, stream: int) -> bool:
        self._engine.log.append(f"batch {self._batch} on {stream}")
        self._engine.kernels.add(self._batch)
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return stream == 16


class FakeEngine:
    """As tensorrt_rtx has it; its kernels are the batches that it has run."""

    num_io_tensors = 2
    device_memory_size_v2 = 4096

    def __init__(self) -> None:
        self.log: list[str] = []
        self.contexts: list[FakeContext] = []
        self.kernels: set[int] = set()

    def get_tensor_name(self, i: int) -> str:
        return ("image", "answer")[i]

    def get_tensor_mode(self, name: str) -> str:
        return "out" if name == "answer" else "in"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        del name, profile
        return [[size, 3, 8, 8] for size in engines.BATCHES]

    def create_runtime_config(self) -> Any:
        config = SimpleNamespace(
            set_execution_context_allocation_strategy=lambda _: None,
            create_runtime_cache=lambda: self,
            set_runtime_cache=lambda _: None,
        )
        self.config = config
        return config

    def create_execution_context(self, config: Any) -> FakeContext:
        return FakeContext(self, config)

    def serialize(self) -> bytes:
        return bytes(sorted(self.kernels))

    def deserialize(self, data: bytes) -> bool:
        self.kernels = set(data)
        return True


@pytest.fixture
def a10(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeDevice:
    monkeypatch.setenv("EXTREME3D_CACHE", str(tmp_path / "cache"))
    return FakeDevice(A10)


@pytest.fixture
def fake_rtx(monkeypatch: pytest.MonkeyPatch) -> Any:
    """tensorrt_rtx with one engine after the other in `loaded`."""
    fake = fake_tensorrt()
    fake.loaded, fake.errors, fake.fails = [], [], False

    def deserialize(data: bytes) -> FakeEngine | None:
        if fake.fails:
            fake.errors.append("cannot run on this GPU")
            return None
        assert data == b"tiny 1"
        fake.loaded.append(FakeEngine())
        return fake.loaded[-1]

    fake.Runtime = lambda _: SimpleNamespace(deserialize_cuda_engine=deserialize)
    fake.TensorIOMode = SimpleNamespace(OUTPUT="out")
    fake.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="mine")
    fake.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    fake.IRuntimeCache = FakeEngine
    log = SimpleNamespace(errors=fake.errors)
    monkeypatch.setattr(device_session, "logger", lambda _: log)
    built_once(monkeypatch)
    only(monkeypatch, {"tensorrt_rtx": fake})
    return fake


def tiny_ends(batch: int, pointer: int = 64) -> tuple[dict[str, DeviceTensor], ...]:
    image, answer = (batch, 3, 8, 8), (batch, 1, 8, 8)
    return {"image": DeviceTensor(pointer, image)}, {"answer": DeviceTensor(128, answer)}


def test_each_shape_has_a_context_and_all_share_memory(
    fake_rtx: Any, a10: FakeDevice, tiny: Path
) -> None:
    session = DeviceSession(tiny, a10, graphs=False)
    assert session.runtime == "tensorrt_rtx 1.7 fp16 on NVIDIA A10"
    for batch in (1, 2, 1, 2):
        session.run(*tiny_ends(batch))
    (engine,) = fake_rtx.loaded
    assert engine.log == ["batch 1 on 16", "batch 2 on 16"] * 2
    assert [context.memory for context in engine.contexts] == [(256, 4096)] * 2
    session.fork(FakeDevice(A10, stream=32)).run(*tiny_ends(1))
    assert len(engine.contexts) == 3
    assert engine.log[-1] == "batch 1 on 32"


def test_kernels_of_new_shapes_are_kept_for_the_next_process(
    fake_rtx: Any, a10: FakeDevice, tiny: Path
) -> None:
    session = DeviceSession(tiny, a10, graphs=False)
    for batch in (1, 7):
        session.run(*tiny_ends(batch))
    DeviceSession(tiny, a10)
    assert fake_rtx.loaded[1].kernels == {1, 7}
    assert fake_rtx.loaded[1].config.dynamic_shapes_kernel_specialization_strategy == "eager"


@pytest.mark.usefixtures("fake_rtx")
def test_shape_beyond_the_engine_is_refused_with_what_it_takes(a10: FakeDevice, tiny: Path) -> None:
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\) to \(64, 3, 8, 8\), got \(65, 3, 8, 8\)"):
        DeviceSession(tiny, a10).output_shapes({"image": (65, 3, 8, 8)})


@pytest.mark.usefixtures("fake_rtx")
def test_address_that_tensorrt_refuses_is_named(a10: FakeDevice, tiny: Path) -> None:
    with pytest.raises(ValueError, match=r"'image': tensorrt_rtx 1\.7 refuses the address 0x41"):
        DeviceSession(tiny, a10).run(*tiny_ends(1, pointer=65))


def test_engine_that_does_not_load_is_told_with_its_reason(
    fake_rtx: Any, a10: FakeDevice, tiny: Path
) -> None:
    fake_rtx.fails = True
    with pytest.raises(DeviceUnavailable, match="cannot load its engine: cannot run on this GPU"):
        DeviceSession(tiny, a10, runtime="tensorrt_rtx")


# ONNX Runtime with its CUDA provider: the stand-in runs on the CPU what it is told of.


class FakeOnnxRuntime:
    """Sessions of the CUDA provider, with the options that they were made with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.options: list[dict[str, str]] = []
        self.graph_refused = False
        real, outer = onnxruntime.InferenceSession, self
        providers = [PROVIDER, "CPUExecutionProvider"]

        class Made:
            def __init__(self, model: Any, options: Any, *, providers: Any, **how: Any) -> None:
                (provider, asked), *_ = providers
                assert provider == PROVIDER
                if asked.get("enable_cuda_graph") and outer.graph_refused:
                    raise RuntimeError("cannot use the graph capture feature")
                outer.options.append(asked)
                self._real = real(model, options, providers=["CPUExecutionProvider"], **how)
                self.get_inputs, self.get_outputs = self._real.get_inputs, self._real.get_outputs

            def get_providers(self) -> list[str]:
                return [PROVIDER]

            def io_binding(self) -> Any:
                def bind(name: str, *where: Any) -> None:
                    outer.log.append(f"bind {name} {where[-1]}")

                return SimpleNamespace(bind_input=bind, bind_output=bind)

            def run_with_iobinding(self, binding: Any, options: Any) -> None:
                del binding
                entries = ("disable_synchronize_execution_providers", "gpu_graph_id")
                assert [options.get_run_config_entry(e) for e in entries] == ["1", "-1"]
                (image,) = self.get_inputs()
                outer.log.append(f"run {image.shape}")

        def made(model: Any, options: Any = None, *, providers: Any, **how: Any) -> Any:
            cuda = providers[0] != "CPUExecutionProvider"
            return (Made if cuda else real)(model, options, providers=providers, **how)

        monkeypatch.setattr(onnxruntime, "InferenceSession", made)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)


PROVIDER = "CUDAExecutionProvider"


@pytest.fixture
def fake_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> FakeOnnxRuntime:
    only(monkeypatch, {"tensorrt_rtx": fake_tensorrt()})
    return FakeOnnxRuntime(monkeypatch)


def test_gpu_that_tensorrt_for_rtx_lacks_gets_onnxruntime(
    fake_onnxruntime: FakeOnnxRuntime, monkeypatch: pytest.MonkeyPatch, h200: FakeDevice, tiny: Path
) -> None:
    del fake_onnxruntime
    calls = built_once(monkeypatch)
    assert DeviceSession(tiny, h200).runtime.startswith("onnxruntime")
    assert not calls


def test_onnxruntime_has_a_session_of_fixed_size_for_each_set_of_buffers(
    fake_onnxruntime: FakeOnnxRuntime, h200: FakeDevice, tiny: Path
) -> None:
    session = DeviceSession(tiny, h200)
    assert session.output_shapes({"image": (2, 3, 8, 8)}) == {"answer": (2, 1, 8, 8)}
    for pointer, size in ((100, 8), (200, 16), (100, 8)):
        session.run(*ends(pointer, size=size))
    small, large = ["run [2, 3, 8, 8]"], ["run [2, 3, 16, 16]"]
    assert fake_onnxruntime.log == [
        *["bind image 100", "bind answer 101", *small * 3],
        *["bind image 200", "bind answer 201", *large * 3],
    ]
    assert h200.ops.log == ["begin 16", "end 16"] * 2 + ["launch on 16"]


def test_onnxruntime_that_refuses_graphs_is_run_without(
    fake_onnxruntime: FakeOnnxRuntime, h200: FakeDevice, tiny: Path
) -> None:
    fake_onnxruntime.graph_refused = True
    session = DeviceSession(tiny, h200)
    for _ in range(2):
        session.run(*ends())
    assert fake_onnxruntime.log[2:] == ["run [2, 3, 8, 8]"] * 3
    assert h200.ops.log == []


def test_onnxruntime_is_told_the_stream_of_each_lane(
    fake_onnxruntime: FakeOnnxRuntime, h200: FakeDevice, tiny: Path
) -> None:
    session = DeviceSession(tiny, h200)
    fork = session.fork(FakeDevice(stream=32))
    for lane in (session, fork):
        lane.run(*ends())
    streams = [options["user_compute_stream"] for options in fake_onnxruntime.options]
    assert streams == ["16", "16", "32"]


@pytest.mark.parametrize(("number", "named"), [(0, None), (1, "1")])
def test_onnxruntime_is_told_the_gpu_only_where_it_is_not_the_first(
    fake_onnxruntime: FakeOnnxRuntime, h200: FakeDevice, tiny: Path, number: int, named: str | None
) -> None:
    h200.number = number
    DeviceSession(tiny, h200)
    assert fake_onnxruntime.options[0].get("device_id") == named


# The command line.


def test_engines_are_built_and_listed_on_the_command_line(
    rtx: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EXTREME3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cli, "_ASSETS", tiny.parent)
    for said in ("built in", "there"):
        assert cli.main(["engines", "build", "--sm", "86", "--precision", "tf32"]) == cli.ALL_DONE
        out = capsys.readouterr().out
        assert out.startswith("tiny             sm86 tf32")
        assert said in out
    assert cli.main(["engines", "list"]) == cli.ALL_DONE
    out = capsys.readouterr().out
    assert f"engine for sm86, tf32, tensorrt_rtx {rtx.__version__}" in out
    assert str(tmp_path / "cache" / "engines") in out


def test_engines_of_an_unknown_gpu_are_refused_on_the_command_line(
    rtx: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del rtx
    monkeypatch.setenv("EXTREME3D_CACHE", str(tmp_path / "cache"))
    assert cli.main(["engines", "build", "--sm", "30"]) == cli.WRONG_USE
    assert "not 30" in capsys.readouterr().err


def test_file_that_cannot_be_built_does_not_stop_the_others(
    rtx: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del rtx
    monkeypatch.setenv("EXTREME3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cli, "_ASSETS", tiny.parent)
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    assert cli.main(["engines", "build", "--sm", "86"]) == cli.SOME_FAILED
    said = capsys.readouterr()
    assert "broken.onnx" in said.err
    assert "tiny" in said.out


# On a GPU.


@pytest.fixture(scope="module")
def device() -> Device:
    try:
        return Device()
    except DeviceUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def gpu_cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    return EngineCache(tmp_path_factory.mktemp("gpu") / "engines")


def on_gpu(path: Path, device: Device, cache: EngineCache, **how: Any) -> DeviceSession:
    try:
        return DeviceSession(path, device, cache=cache, **how)
    except DeviceUnavailable as error:
        pytest.skip(str(error))


class Lane:
    """A session with buffers of its own for images of the host."""

    def __init__(self, session: DeviceSession, device: Device) -> None:
        self._session, self._device = session, device
        self._arrays: dict[Any, Any] = {}

    def run(self, images: Mapping[str, Float32]) -> dict[str, Float32]:
        device, shapes = self._device, {name: image.shape for name, image in images.items()}
        key = tuple(shapes.values())
        if key not in self._arrays:
            made = self._session.output_shapes(shapes)
            self._arrays[key] = [
                {name: device.empty(shape) for name, shape in group.items()}
                for group in (shapes, made)
            ]
        feeds, outputs = self._arrays[key]
        for name, image in images.items():
            device.ops.upload(np.ascontiguousarray(image), feeds[name], device.stream)
        tensors = (
            {n: DeviceTensor(device.ops.pointer(a), device.ops.shape(a)) for n, a in group.items()}
            for group in (feeds, outputs)
        )
        self._session.run(*tensors)
        return {name: device.get(array) for name, array in outputs.items()}


# Products of ten-bit mantissas, fp16 and tf32 alike, err by 2^-11 in each of some thirty layers,
# which adds up like noise to 3e-3; sums in another order err by 1e-6 in each.
TOLERANCES = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 1e-2}


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", device_session.RUNTIMES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_gpu_says_what_the_cpu_says(
    device: Device,
    gpu_cache: EngineCache,
    rng: np.random.Generator,
    name: str,
    precision: Precision,
    runtime: str,
) -> None:
    path = ASSETS / f"{name}.onnx"
    cpu = Session(path)
    gpu = on_gpu(path, device, gpu_cache, precision=precision, runtime=runtime)
    lane = Lane(gpu, device)
    batches = (1,) if cpu.inputs["image"][0] == 1 else (1, 3)
    for batch in batches:
        first, second = (inputs_of(cpu, batch, rng) for _ in range(2))
        # Enqueued and recorded, launched: and the graph reads what is in the buffers by then.
        for images in (first, first, second):
            answers = lane.run(images)
            for n, expected in cpu.run(images).items():
                assert relative_error(answers[n], expected) < TOLERANCES[precision], n
    assert all(ready.launch is not ready.run for ready in gpu._ready.values()), "not recorded"


@pytest.mark.gpu
@pytest.mark.parametrize("runtime", device_session.RUNTIMES)
def test_sizes_may_alternate_and_lanes_start_side_by_side(
    device: Device, gpu_cache: EngineCache, rng: np.random.Generator, runtime: str
) -> None:
    path = ASSETS / "pose.onnx"
    cpu, gpu = Session(path), on_gpu(path, device, gpu_cache, runtime=runtime)
    devices = [device, Device(), Device()]
    lanes = [Lane(gpu if d is device else gpu.fork(d), d) for d in devices]
    photos = [inputs_of(cpu, batch, rng) for batch in (1, 4)]
    expected = [cpu.run(images)["pose"] for images in photos]

    def work(lane: Lane) -> list[Float32]:
        return [lane.run(images)["pose"] for _ in range(4) for images in photos]

    with ThreadPoolExecutor(len(lanes)) as workers:
        for said in workers.map(work, lanes):
            for i, pose in enumerate(said):
                assert relative_error(pose, expected[i % 2]) < TOLERANCES["fp16"]


@pytest.mark.gpu
def test_batch_beyond_the_engine_is_refused(device: Device, gpu_cache: EngineCache) -> None:
    gpu = on_gpu(ASSETS / "pose.onnx", device, gpu_cache)
    if "onnxruntime" in gpu.runtime:
        pytest.skip("ONNX Runtime takes any batch")
    with pytest.raises(ValueError, match=r"image.*\(1, 128, 128, 3\) to \(64, 128, 128, 3\)"):
        gpu.output_shapes({"image": (65, 128, 128, 3)})


@pytest.mark.gpu
def test_compiled_kernels_are_kept(
    device: Device, gpu_cache: EngineCache, rng: np.random.Generator
) -> None:
    path = ASSETS / "pose.onnx"
    gpu = on_gpu(path, device, gpu_cache, runtime="tensorrt_rtx")
    Lane(gpu, device).run(inputs_of(Session(path), 2, rng))
    assert "kernels" in {entry.key.content for entry in gpu_cache.entries()}


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceUnavailable, match="EXTREME3D_CACHE"):
        EngineCache(tmp_path / "file" / "engines")
