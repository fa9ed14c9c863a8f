"""TensorRT engines: built from the package's ONNX files, and kept in the user's cache folder.

`tensorrt` and `tensorrt_rtx` (TensorRT for RTX) go one way through this file: their Python modules
are the same but for what is asked of them by name here. The first builds for the GPU it runs on
and measures as it builds; the second builds for any GPU of a compute capability, without one being
there, and compiles the kernels on the GPU when they first run. Neither is imported before an engine
is asked for.

*What is built.* Weights that are stored in eight or sixteen bits are unpacked first (ONNX Runtime
folds constants): TensorRT has no sixteen-bit integers, and takes eight-bit ones only for quantised
activations. TensorRT has no switch for half precision any more, tensors have the type that the file
gives them; so `fp16`, the default, rewrites the graph (`half_precision.py`). `tf32` keeps float32
with products of ten-bit mantissas, `fp32` is plain. There is no int8: it would need activations
quantised from sample photos, and these networks hold a few megabytes and are bound by latency.

*What is kept.* Files of our own format in a private folder, named by a digest of all that an engine
depends on, with a digest of the content. A file or folder that somebody else owns or may write is
refused: an engine is code. A damaged one is built again. Engines are loaded from nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import onnxruntime

from extreme3d_fast.device import Gpu
from extreme3d_fast.errors import DeviceUnavailable, InvalidModelFile, UnsafeCache
from extreme3d_fast.half_precision import with_half_precision

Precision = Literal["fp16", "tf32", "fp32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
#: The modules that build and run engines, best first, and the packages that bring them.
PACKAGES = {"tensorrt": "tensorrt-cu13", "tensorrt_rtx": "tensorrt-rtx-cu13"}
#: Least, usual and largest size of an open first axis: images per run.
BATCHES = (1, 8, 64)
#: The same for other open axes, px: the bump network takes multiples of 64 up to its map's side.
SIDES = (64, 512, 512)

_RECIPE = 1  # raised when what is built from a file changes, so that older engines are left alone
_MAGIC = b"extreme3d engine 1\n"
_DIGEST_LETTERS = 64  # of a SHA-256 in hexadecimal
_FOLDER_MODE = 0o700
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on."""

    network: str  #: SHA-256 of the ONNX file
    runtime: str  #: which TensorRT and its version: `tensorrt_rtx 1.7.1.116`
    gpu: str  #: what it is built for: `sm86`, or `sm90 NVIDIA H200`
    precision: str  #: one of `PRECISIONS`
    content: str = "engine"  #: or `kernels`, which TensorRT for RTX compiles from an engine
    recipe: int = _RECIPE  #: version of what this module makes of a file

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CacheEntry:
    """One file of the cache."""

    path: Path
    name: str  #: of the network: the stem of its ONNX file
    key: EngineKey
    size: int  #: bytes of the content


class EngineCache:
    """Engines in files that only their user may read or write.

    Args:
        folder: where; made if missing. None is `engines` in the folder that the environment
            variable EXTREME3D_CACHE names, or in `extreme3d_fast` in the user's cache folder
            (XDG_CACHE_HOME, else ~/.cache).

    Raises:
        UnsafeCache: somebody else owns the folder or may write there.
        DeviceUnavailable: the folder cannot be made.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        try:
            self.folder = Path(folder) if folder is not None else _default_folder()
            self.folder.parent.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
            self.folder.mkdir(exist_ok=True, mode=_FOLDER_MODE)
        except (OSError, RuntimeError) as error:  # no home, nowhere to write
            raise DeviceUnavailable(
                f"folder: engines cannot be kept ({error}); say where in EXTREME3D_CACHE"
            ) from error
        # Who may write to the folder above could put another one in its place.
        for above in (self.folder.parent, self.folder):
            _check_private(above, os.stat(above))

    def path(self, key: EngineKey) -> Path:
        """Where the content of this key is, or would be."""
        return self.folder / f"{key.digest}.{key.content}"

    def load(self, key: EngineKey) -> bytes | None:
        """What was stored under this key; None if nothing was, or it is damaged.

        Raises:
            UnsafeCache: somebody else owns the file or may write to it.
        """
        found = _read(self.path(key), key)
        return found[1] if found else None

    def store(self, key: EngineKey, content: bytes, *, name: str) -> Path:
        """Keeps content under this key; a process that reads meanwhile sees the old or the new.

        Args:
            key: what the content depends on.
            content: any bytes.
            name: of the network, for lists.

        Returns:
            The file.
        """
        header = asdict(key) | {"name": name, "size": len(content)}
        body = json.dumps(header, sort_keys=True).encode() + b"\n" + content
        digest = hashlib.sha256(body).hexdigest().encode()
        # mkstemp gives the mode 0600 whatever the umask.
        descriptor, temporary = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_MAGIC + digest + b"\n" + body)
            os.replace(temporary, self.path(key))
        except BaseException:
            os.unlink(temporary)
            raise
        return self.path(key)

    def entries(self) -> Iterator[CacheEntry]:
        """The files of the cache that are whole, in the order of their names.

        Raises:
            UnsafeCache: somebody else owns a file or may write to it.
        """
        for path in sorted(self.folder.glob("[0-9a-f]*.*")):
            if found := _read(path, None):
                yield found[0]


def _default_folder() -> Path:
    if root := os.environ.get("EXTREME3D_CACHE"):
        return Path(root) / "engines"
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The specification says that a relative one is to be ignored.
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "extreme3d_fast" / "engines"


def _check_private(path: Path, status: os.stat_result) -> None:
    if not hasattr(os, "getuid"):  # Windows: the profile is private by its access control lists
        return
    if status.st_uid != os.getuid():
        raise UnsafeCache(
            f"{path} belongs to another user: set EXTREME3D_CACHE to a folder of your own"
        )
    if status.st_mode & _OTHERS_MAY_WRITE:
        mode = stat.S_IMODE(status.st_mode)
        raise UnsafeCache(
            f"{path} may be written by others (mode {mode:04o}): make it private, or set "
            "EXTREME3D_CACHE to a folder of your own"
        )


def _read(path: Path, key: EngineKey | None) -> tuple[CacheEntry, bytes] | None:
    """A whole file that only its user may write, if it is there and is that of the key."""
    try:
        # A link is no file of ours, wherever it leads.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        _check_private(path, status)
        data = file.read()
    start = len(_MAGIC) + _DIGEST_LETTERS + 1
    body = data[start:]
    digest = hashlib.sha256(body).hexdigest().encode()
    if data[:start] != _MAGIC + digest + b"\n":
        return None
    header, _, content = body.partition(b"\n")
    try:
        fields = json.loads(header)
        name, size = fields.pop("name"), fields.pop("size")
        found = EngineKey(**fields)
    except (ValueError, KeyError, TypeError, AttributeError):  # another version wrote it
        return None
    if key not in (None, found):
        return None
    return CacheEntry(path, name, found, size), content


def tensorrt(name: str) -> Any:
    """The module `tensorrt` or `tensorrt_rtx`.

    Raises:
        DeviceUnavailable: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise DeviceUnavailable(f"{name} cannot be imported ({error})") from error


def installed_tensorrt(*, ahead_of_time: bool = False) -> Any:
    """The best module that builds engines here.

    Args:
        ahead_of_time: for a GPU that is not here, which `tensorrt_rtx` alone can.

    Raises:
        DeviceUnavailable: none is installed; the message names the packages.
    """
    reasons, packages = [], []
    for name, package in PACKAGES.items():
        if ahead_of_time and name != "tensorrt_rtx":
            continue
        try:
            return tensorrt(name)
        except DeviceUnavailable as error:
            reasons.append(str(error))
            packages.append(f"pip install {package}")
    raise DeviceUnavailable(f"no TensorRT here: {'; '.join(reasons)}. Try {' or '.join(packages)}")


def engine_key(
    path: str | Path, *, precision: Precision, target: Gpu | int, runtime: Any
) -> EngineKey:
    """What the engine of a network depends on.

    Args:
        path: the ONNX file.
        precision: one of `PRECISIONS`.
        target: the GPU that it is for, or a compute capability (86, 120): `tensorrt_rtx` alone
            builds for GPUs that are not here.
        runtime: the module `tensorrt` or `tensorrt_rtx`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such precision.
        DeviceUnavailable: this runtime does not build for that target.
    """
    _check_precision(precision)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no network file at {path}")
    check_target(runtime, target)
    if not isinstance(target, Gpu):
        gpu = f"sm{target}"
    elif _capabilities(runtime):
        gpu = f"sm{target.compute_capability}"
    else:  # it measures as it builds: the very model counts
        gpu = f"sm{target.compute_capability} {target.name}"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return EngineKey(digest, f"{runtime.__name__} {runtime.__version__}", gpu, precision)


def cached_engine(
    path: str | Path,
    *,
    precision: Precision,
    target: Gpu | int,
    runtime: Any,
    cache: EngineCache,
) -> tuple[EngineKey, bytes]:
    """The engine of a network, from the cache, or built and put there.

    Args:
        path, precision, target, runtime: as in `engine_key`.
        cache: where engines are kept.

    Returns:
        What it depends on, and the serialised engine.

    Raises:
        FileNotFoundError, ValueError, DeviceUnavailable: as `engine_key` does.
        InvalidModelFile: TensorRT cannot build the file.
        UnsafeCache: the cache is not private.
    """
    key = engine_key(path, precision=precision, target=target, runtime=runtime)
    engine = cache.load(key)
    if engine is None:
        capability = target.compute_capability if isinstance(target, Gpu) else target
        ahead = capability if capability in _capabilities(runtime) else None
        engine = build(path, precision=precision, compute_capability=ahead, runtime=runtime)
        with contextlib.suppress(OSError):  # a full disk: it is built again next time
            cache.store(key, engine, name=Path(path).stem)
    return key, engine


def build(
    path: str | Path,
    *,
    precision: Precision = "fp16",
    compute_capability: int | None = None,
    runtime: Any = None,
) -> bytes:
    """Builds an engine.

    Args:
        path: ONNX file with float32 inputs and outputs. An open first axis is the batch, 1 to 64;
            other open axes are 64 to 512 px.
        precision: one of `PRECISIONS`; inputs and outputs are float32 in each.
        compute_capability: of the GPU, 86 for instance, for `tensorrt_rtx`; None is each that it
            knows. `tensorrt` builds for the current GPU.
        runtime: the module `tensorrt` or `tensorrt_rtx`; None is the best that is installed.

    Returns:
        The serialised engine.

    Raises:
        ValueError: no such precision.
        DeviceUnavailable: no TensorRT is installed, or not one that builds for that GPU.
        InvalidModelFile: TensorRT cannot build this file; the message says why.
    """
    _check_precision(precision)
    trt = runtime or installed_tensorrt()
    if compute_capability is not None:
        check_target(trt, compute_capability)
    model = prepared(path, precision=precision)
    log = logger(trt)
    log.errors.clear()
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        reasons = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise InvalidModelFile(f"path: {trt.__name__} cannot read {path}: {'; '.join(reasons)}")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shapes = zip(*(_sizes(axis, size) for axis, size in enumerate(tensor.shape)), strict=True)
        profile.set_shape(tensor.name, *shapes)
    config.add_optimization_profile(profile)
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # no allocation in a run: CUDA graphs
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if compute_capability is not None:
        config.num_compute_capabilities = 1
        capability = getattr(trt.ComputeCapability, f"SM{compute_capability}")
        config.set_compute_capability(capability, 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise InvalidModelFile(
            f"path: {trt.__name__} cannot build {path}: {'; '.join(log.errors) or 'no reason'}"
        )
    return bytes(engine)


def prepared(path: str | Path, *, precision: Precision) -> bytes:
    """The network as a GPU's runtime takes it: plain weights, in the precision asked for.

    Args:
        path: ONNX file.
        precision: one of `PRECISIONS`; `fp16` alone changes the graph.

    Returns:
        ONNX file.

    Raises:
        InvalidModelFile: the file cannot be read, or a weight exceeds half precision.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    # "Basic" folds constants and stays within ONNX; more would put in operators of its own.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(folded)
        try:
            onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # the runtime's exceptions share no base class of their own
            raise InvalidModelFile(f"path: {path} is not a usable ONNX file: {error}") from error
        model = folded.read_bytes()
    return with_half_precision(model) if precision == "fp16" else model


@functools.cache
def logger(trt: Any) -> Any:
    """The module's one logger: TensorRT takes the first that it is given for all that follows.

    Its `errors` are what went wrong since they were last cleared.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {PRECISIONS}, got {precision!r}")


def check_target(runtime: Any, target: Gpu | int) -> None:
    """Checks that a runtime builds engines for a target.

    Args:
        runtime, target: as in `engine_key`.

    Raises:
        DeviceUnavailable: it does not.
    """
    known = _capabilities(runtime)
    if isinstance(target, Gpu) and not known:
        return
    capability = target.compute_capability if isinstance(target, Gpu) else target
    if capability not in known:
        what = ", ".join(map(str, known)) or "that of the GPU it runs on"
        raise DeviceUnavailable(
            f"{runtime.__name__} {runtime.__version__} builds for compute capability {what}, "
            f"not {capability}"
        )


def _capabilities(trt: Any) -> list[int]:
    """Compute capabilities that it builds for without such a GPU; none for `tensorrt`."""
    members = getattr(getattr(trt, "ComputeCapability", None), "__members__", {})
    return [int(name[2:]) for name in members if name.startswith("SM")]


def _network_flags(trt: Any) -> int:
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)  # TensorRT 11 knows nothing else


def _sizes(axis: int, size: int) -> tuple[int, int, int]:
    if size >= 0:
        return size, size, size
    return BATCHES if axis == 0 else SIDES
