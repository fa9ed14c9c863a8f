"""engines, half_precision and device_session: what is built, what is kept, what runs where.

Engines are built here for GPUs that are not here; what needs one is marked `gpu`.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import shutil
import stat
import threading
from collections.abc import Mapping
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

from extreme3d_fast import cli, cuda_driver, device_session, engines
from extreme3d_fast.cuda_driver import Gpu, Memory
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
    target = Gpu(0, "NVIDIA A10", 86)
    key, _ = cached_engine(tiny, precision="fp16", target=target, runtime=runtime, cache=cache)
    assert key.gpu == gpu
    assert calls[0]["compute_capability"] == ahead


def test_gpu_that_the_list_lacks_gets_the_portable_engine(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, cache: EngineCache
) -> None:
    calls = built_once(monkeypatch)
    target = Gpu(0, "NVIDIA H200", 90)
    key, _ = cached_engine(
        tiny, precision="fp16", target=target, runtime=fake_tensorrt(), cache=cache
    )
    assert key.gpu == "any"
    assert calls[0]["compute_capability"] is None


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


def no_driver(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


def test_missing_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_driver._driver.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", no_driver)
    with pytest.raises(DeviceUnavailable, match="no NVIDIA GPU here, or no driver"):
        cuda_driver.gpu(0)


@pytest.fixture
def h200(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU as far as its name goes."""
    monkeypatch.setenv("EXTREME3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(device_session, "gpu", lambda number: Gpu(number, "NVIDIA H200", 90))
    monkeypatch.setattr(device_session, "use", lambda _: None)
    monkeypatch.setattr(device_session, "is_capturing", lambda stream: stream == CAPTURING)


@pytest.mark.usefixtures("h200")
def test_missing_runtimes_are_named_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    only(monkeypatch, {})
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceUnavailable) as raised:
        DeviceSession(tiny)
    said = str(raised.value)
    for text in ("tiny.onnx on NVIDIA H200", "9.0", "without CUDA"):
        assert text in said
    for package in ("tensorrt-cu13", "tensorrt-rtx-cu13", "onnxruntime-gpu"):
        assert f"pip install {package}" in said


# What runs. The stand-ins tell what would have been enqueued; those at the end are the real ones.

CAPTURING, STREAM = 8, 16


class FakeBackend:
    name = "fake 1.0"

    def __init__(self, *, recordable: bool = True) -> None:
        self.log: list[str] = []
        self._recordable = recordable

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        batch, _, height, width = shapes["image"]
        return {"answer": (batch, 1, height, width)}

    def run(self, feeds: Any, outputs: Any, stream: int) -> None:
        del outputs
        self.log.append(f"run {feeds['image'].pointer} on {stream}")

    def recordable(self, feeds: Any, stream: int) -> bool:
        del feeds, stream
        return self._recordable

    def fork(self) -> FakeBackend:
        return FakeBackend()


class FakeGraph:
    log: list[str]
    fails = False

    @classmethod
    def begin(cls, stream: int) -> None:
        cls.log.append(f"begin {stream}")

    @classmethod
    def end(cls, stream: int) -> FakeGraph:
        cls.log.append(f"end {stream}")
        if cls.fails:
            raise DeviceUnavailable("device: cuStreamEndCapture failed")
        return cls()

    def launch(self, stream: int) -> None:
        self.log.append(f"launch on {stream}")


def session_on(
    monkeypatch: pytest.MonkeyPatch, path: Path, backend: FakeBackend, **how: Any
) -> DeviceSession:
    FakeGraph.log, FakeGraph.fails = backend.log, False
    monkeypatch.setattr(device_session, "Graph", FakeGraph)
    monkeypatch.setattr(DeviceSession, "_load", lambda *_: backend)
    return DeviceSession(path, **how)


def ends(pointer: int = 100, size: int = 8) -> tuple[dict[str, DeviceTensor], ...]:
    image, answer = (2, 3, size, size), (2, 1, size, size)
    return {"image": DeviceTensor(pointer, image)}, {"answer": DeviceTensor(pointer + 1, answer)}


@pytest.mark.usefixtures("h200")
def test_second_run_is_recorded_and_later_ones_launched(
    monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    backend = FakeBackend()
    session = session_on(monkeypatch, tiny, backend)
    for _ in range(4):
        session.run(*ends(), stream=STREAM)
    recorded = ["begin 16", "run 100 on 16", "end 16", "launch on 16"]
    assert backend.log == ["run 100 on 16", *recorded, "launch on 16", "launch on 16"]


@pytest.mark.usefixtures("h200")
def test_other_buffers_and_sizes_have_graphs_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    backend = FakeBackend()
    session = session_on(monkeypatch, tiny, backend)
    for _ in range(2):
        session.run(*ends(100), stream=STREAM)
        session.run(*ends(200), stream=STREAM)
        session.run(*ends(100, size=16), stream=STREAM)
    assert backend.log.count("begin 16") == 3


@pytest.mark.usefixtures("h200")
@pytest.mark.parametrize("stream", [0, CAPTURING], ids=["default stream", "caller records"])
def test_nothing_is_recorded_on(monkeypatch: pytest.MonkeyPatch, tiny: Path, stream: int) -> None:
    backend = FakeBackend()
    session = session_on(monkeypatch, tiny, backend)
    for _ in range(3):
        session.run(*ends(), stream=stream)
    assert backend.log == [f"run 100 on {stream}"] * 3


@pytest.mark.usefixtures("h200")
@pytest.mark.parametrize("how", ["switched off", "not recordable"])
def test_without_graphs_each_run_is_enqueued(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, how: str
) -> None:
    backend = FakeBackend(recordable=how != "not recordable")
    session = session_on(monkeypatch, tiny, backend, graphs=how != "switched off")
    for _ in range(3):
        session.run(*ends(), stream=STREAM)
    assert backend.log == ["run 100 on 16"] * 3


@pytest.mark.usefixtures("h200")
def test_run_that_cannot_be_recorded_is_enqueued(
    monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    backend = FakeBackend()
    session = session_on(monkeypatch, tiny, backend)
    FakeGraph.fails = True
    for _ in range(3):
        session.run(*ends(), stream=STREAM)
    failed = ["begin 16", "run 100 on 16", "end 16"]
    assert backend.log == ["run 100 on 16", *failed, "run 100 on 16", "run 100 on 16"]


@pytest.mark.usefixtures("h200")
def test_fork_records_for_itself(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    backend = FakeBackend()
    session = session_on(monkeypatch, tiny, backend)
    session.run(*ends(), stream=STREAM)
    fork = session.fork()
    fork.run(*ends(), stream=STREAM)
    assert backend.log == ["run 100 on 16"]
    assert fork.metadata == session.metadata
    assert fork.runtime == session.runtime == "fake 1.0 fp16 on NVIDIA H200"


@pytest.mark.usefixtures("h200")
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
    monkeypatch: pytest.MonkeyPatch, tiny: Path, feeds: Any, outputs: Any, message: str
) -> None:
    backend = FakeBackend()
    session = session_on(monkeypatch, tiny, backend)
    with pytest.raises(ValueError, match=message):
        session.run(feeds, outputs, stream=STREAM)
    assert backend.log == []


@pytest.mark.usefixtures("h200")
def test_contract_is_that_of_the_session_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = ASSETS / "pose.onnx"
    cpu, gpu = Session(path), session_on(monkeypatch, path, FakeBackend())
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
        DeviceSession(lacking)
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        DeviceSession(tmp_path / "nothing.onnx")


def test_unknown_runtime_and_precision_are_refused(tiny: Path) -> None:
    with pytest.raises(ValueError, match=r"runtime: expected one of .*got 'openvino'"):
        DeviceSession(tiny, runtime="openvino")
    with pytest.raises(ValueError, match=r"precision: expected one of .*got 'fp8'"):
        DeviceSession(tiny, precision="fp8")  # type: ignore[arg-type]


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
        return stream == STREAM


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
def fake_rtx(monkeypatch: pytest.MonkeyPatch, h200: None) -> Any:
    """tensorrt_rtx with one engine after the other in `loaded`, and a GPU as far as it is asked."""
    del h200
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
    monkeypatch.setattr(device_session, "Memory", lambda n: SimpleNamespace(pointer=256, size=n))
    built_once(monkeypatch)
    only(monkeypatch, {"tensorrt_rtx": fake})
    return fake


def tiny_ends(batch: int, pointer: int = 64) -> tuple[dict[str, DeviceTensor], ...]:
    image, answer = (batch, 3, 8, 8), (batch, 1, 8, 8)
    return {"image": DeviceTensor(pointer, image)}, {"answer": DeviceTensor(128, answer)}


def test_each_shape_has_a_context_and_all_share_memory(fake_rtx: Any, tiny: Path) -> None:
    session = DeviceSession(tiny, graphs=False)
    assert session.runtime == "tensorrt_rtx 1.7 fp16 on NVIDIA H200"
    for batch in (1, 2, 1, 2):
        session.run(*tiny_ends(batch), stream=STREAM)
    (engine,) = fake_rtx.loaded
    assert engine.log == ["batch 1 on 16", "batch 2 on 16"] * 2
    assert [context.memory for context in engine.contexts] == [(256, 4096)] * 2
    session.fork().run(*tiny_ends(1), stream=STREAM)
    assert len(engine.contexts) == 3


def test_kernels_of_new_shapes_are_kept_for_the_next_process(fake_rtx: Any, tiny: Path) -> None:
    session = DeviceSession(tiny, graphs=False)
    for batch in (1, 7):
        session.run(*tiny_ends(batch), stream=STREAM)
    DeviceSession(tiny)
    assert fake_rtx.loaded[1].kernels == {1, 7}
    assert fake_rtx.loaded[1].config.dynamic_shapes_kernel_specialization_strategy == "eager"


def test_shape_beyond_the_engine_is_refused_with_what_it_takes(fake_rtx: Any, tiny: Path) -> None:
    del fake_rtx
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\) to \(64, 3, 8, 8\), got \(65, 3, 8, 8\)"):
        DeviceSession(tiny).output_shapes({"image": (65, 3, 8, 8)})


def test_address_that_tensorrt_refuses_is_named(fake_rtx: Any, tiny: Path) -> None:
    del fake_rtx
    with pytest.raises(ValueError, match=r"'image': tensorrt_rtx 1\.7 refuses the address 0x41"):
        DeviceSession(tiny).run(*tiny_ends(1, pointer=65), stream=STREAM)


def test_engine_that_does_not_load_is_told_with_its_reason(fake_rtx: Any, tiny: Path) -> None:
    fake_rtx.fails = True
    with pytest.raises(DeviceUnavailable, match="cannot load its engine: cannot run on this GPU"):
        DeviceSession(tiny, runtime="tensorrt_rtx")


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


class Arrays:
    """Arrays on the GPU and a stream, through the driver alone."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        stream = ctypes.c_void_p()
        self._do(self._driver.cuStreamCreate(ctypes.byref(stream), 1))  # not synchronised with 0
        self.stream = stream.value or 0
        self._kept: list[Memory] = []

    @staticmethod
    def _do(error: int) -> None:
        assert error == 0

    def empty(self, shape: tuple[int, ...]) -> DeviceTensor:
        self._kept.append(Memory(4 * int(np.prod(shape))))
        return DeviceTensor(self._kept[-1].pointer, shape)

    def put(self, tensor: DeviceTensor, array: Float32) -> None:
        data = np.ascontiguousarray(array)
        size = ctypes.c_size_t(data.nbytes)
        target = ctypes.c_uint64(tensor.pointer)
        self._do(self._driver.cuMemcpyHtoD_v2(target, ctypes.c_void_p(data.ctypes.data), size))

    def get(self, tensor: DeviceTensor) -> Float32:
        self._do(self._driver.cuStreamSynchronize(ctypes.c_void_p(self.stream)))
        data = np.empty(tensor.shape, np.float32)
        source, size = ctypes.c_uint64(tensor.pointer), ctypes.c_size_t(data.nbytes)
        self._do(self._driver.cuMemcpyDtoH_v2(ctypes.c_void_p(data.ctypes.data), source, size))
        return data


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    cuda_driver._driver.cache_clear()
    try:
        cuda_driver.gpu(0)
        cuda_driver.use(0)
    except DeviceUnavailable as error:
        pytest.skip(str(error))
    return Arrays()


@pytest.fixture(scope="module")
def gpu_cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    return EngineCache(tmp_path_factory.mktemp("gpu") / "engines")


def on_gpu(path: Path, cache: EngineCache, **how: Any) -> DeviceSession:
    try:
        return DeviceSession(path, cache=cache, **how)
    except DeviceUnavailable as error:
        pytest.skip(str(error))


# Products of ten-bit mantissas, fp16 and tf32 alike, err by 2^-11 in each of some thirty layers,
# which adds up like noise to 3e-3; sums in another order err by 1e-6 in each.
TOLERANCES = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 1e-2}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_gpu_says_what_the_cpu_says(
    arrays: Arrays,
    gpu_cache: EngineCache,
    rng: np.random.Generator,
    name: str,
    precision: Precision,
) -> None:
    path = ASSETS / f"{name}.onnx"
    cpu, gpu = Session(path), on_gpu(path, gpu_cache, precision=precision)
    batches = (1,) if cpu.inputs["image"][0] == 1 else (1, 3)
    for batch in batches:
        first, second = (inputs_of(cpu, batch, rng) for _ in range(2))
        feeds = {n: arrays.empty(a.shape) for n, a in first.items()}
        shapes = gpu.output_shapes({n: a.shape for n, a in first.items()})
        outputs = {n: arrays.empty(shape) for n, shape in shapes.items()}
        # Enqueued, recorded, launched: and the graph reads what is in the buffers by then.
        for images in (first, first, second):
            for n, image in images.items():
                arrays.put(feeds[n], image)
            gpu.run(feeds, outputs, stream=arrays.stream)
            for n, expected in cpu.run(images).items():
                assert relative_error(arrays.get(outputs[n]), expected) < TOLERANCES[precision], n


@pytest.mark.gpu
def test_sizes_may_alternate_and_forks_agree(
    arrays: Arrays, gpu_cache: EngineCache, rng: np.random.Generator
) -> None:
    path = ASSETS / "pose.onnx"
    cpu, gpu = Session(path), on_gpu(path, gpu_cache)
    fork = gpu.fork()
    cases = []
    for batch in (1, 4):
        images = inputs_of(cpu, batch, rng)
        feeds = {n: arrays.empty(a.shape) for n, a in images.items()}
        for n, image in images.items():
            arrays.put(feeds[n], image)
        cases.append((feeds, {"pose": arrays.empty((batch, 10))}, cpu.run(images)["pose"]))
    for session in (gpu, fork, gpu, gpu, fork):
        for feeds, outputs, expected in cases:
            session.run(feeds, outputs, stream=arrays.stream)
            got = arrays.get(outputs["pose"])
            assert relative_error(got, expected) < TOLERANCES["fp16"]


@pytest.mark.gpu
def test_batch_beyond_the_engine_is_refused(arrays: Arrays, gpu_cache: EngineCache) -> None:
    del arrays
    gpu = on_gpu(ASSETS / "pose.onnx", gpu_cache)
    if "onnxruntime" in gpu.runtime:
        pytest.skip("ONNX Runtime takes any batch")
    with pytest.raises(ValueError, match=r"image.*\(1, 128, 128, 3\) to \(64, 128, 128, 3\)"):
        gpu.output_shapes({"image": (65, 128, 128, 3)})


@pytest.mark.gpu
def test_compiled_kernels_are_kept(arrays: Arrays, gpu_cache: EngineCache) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx-cu13")
    gpu = on_gpu(ASSETS / "pose.onnx", gpu_cache, runtime="tensorrt_rtx")
    feeds = {"image": arrays.empty((2, 128, 128, 3))}
    gpu.run(feeds, {"pose": arrays.empty((2, 10))}, stream=arrays.stream)
    assert "kernels" in {entry.key.content for entry in gpu_cache.entries()}
