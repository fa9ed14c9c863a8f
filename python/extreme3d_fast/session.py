"""What an ONNX network says of itself, and how one runs on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from extreme3d_fast.errors import InvalidModelFile
from extreme3d_fast.openvino_runner import OpenVinoRunner, multiplies_bfloat16

Runtime = Literal["onnxruntime", "openvino"]
"""What runs networks on the CPU."""

# Without these in a file's metadata nobody could know how to feed it or whether they may use it.
REQUIRED_METADATA = (
    "name",
    "version",
    "input_size",
    "colour_order",
    "mean",
    "std",
    "crop_rule",
    "source",
    "licence",
)
_FLOATS = "tensor(float)"


class Network:
    """What an ONNX file says of itself, whichever runtime runs it.

    The file's contract travels in its metadata: `input = (pixel - mean) / std`, colour order, input
    size, crop rule, source and licence. It is checked here, once.
    """

    #: The ONNX file.
    path: Path
    #: The file's contract, as text.
    metadata: dict[str, str]
    #: Shape per input name; None where any size is taken (the batch).
    inputs: dict[str, tuple[int | None, ...]]
    #: Shape per output name.
    outputs: dict[str, tuple[int | None, ...]]

    def _open(self, path: str | Path, options: Any) -> Any:
        """Reads and checks the contract; returns the session on the CPU that it was read with."""
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"path: no network file at {self.path}")
        options.log_severity_level = 3  # errors only: they are raised anyway
        try:
            session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            self.metadata = dict(session.get_modelmeta().custom_metadata_map)
            ends = session.get_inputs(), session.get_outputs()
            others = [f"{v.name} is {v.type}" for end in ends for v in end if v.type != _FLOATS]
            self.inputs, self.outputs = ({value.name: _shape(value) for value in e} for e in ends)
        except Exception as error:  # the runtime's exceptions share no base class of their own
            raise InvalidModelFile(
                f"path: {self.path} is not a usable ONNX file: {error}"
            ) from error
        missing = [key for key in REQUIRED_METADATA if key not in self.metadata]
        if missing:
            raise InvalidModelFile(f"path: {self.path} lacks the metadata {', '.join(missing)}")
        if others:
            raise InvalidModelFile(f"path: {self.path}: expected float32, {', '.join(others)}")
        return session

    @property
    def runtime(self) -> str:
        """Which runtime runs the network, for reports."""
        raise NotImplementedError

    def expect(
        self,
        *,
        inputs: Mapping[str, tuple[int | None, ...]],
        outputs: Mapping[str, tuple[int | None, ...]],
    ) -> None:
        """Checks that the file has exactly these inputs and outputs.

        None stands for an axis of any size, which the file leaves open by a name or not at all.

        Raises:
            InvalidModelFile: a name or a shape differs.
        """
        for kind, want, have in (
            ("inputs", dict(inputs), self.inputs),
            ("outputs", dict(outputs), self.outputs),
        ):
            if want != have:
                raise InvalidModelFile(f"path: {self.path}: expected {kind} {want}, it has {have}")

    def _check_names(self, feeds: Mapping[str, Any]) -> None:
        if set(feeds) != set(self.inputs):
            raise ValueError(f"feeds: expected {sorted(self.inputs)}, got {sorted(feeds)}")

    def _fits(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether an input takes arrays of this shape."""
        want = self.inputs[name]
        return len(want) == len(shape) and all(
            size in (None, have) for size, have in zip(want, shape, strict=True)
        )


class Session(Network):
    """A network loaded from an ONNX file, on the CPU.

    Args:
        path: the ONNX file.
        threads: threads inside one run, at least 1.
        runtime: what runs it; None is OpenVINO where it is installed and the processor multiplies
            bfloat16, else ONNX Runtime.

    Raises:
        FileNotFoundError: there is no such file.
        InvalidModelFile: the file is not an ONNX network, or its metadata lacks an entry, or the
            runtime asked for cannot run it.
        ImportError: OpenVINO is asked for and not installed.

    Example:
        >>> from extreme3d_fast.detect import ASSETS
        >>> session = Session(ASSETS / "face_detection.onnx", threads=1)
        >>> session.metadata["colour_order"]
        'RGB'
    """

    def __init__(
        self, path: str | Path, *, threads: int = 2, runtime: Runtime | None = "onnxruntime"
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        rounded = runtime == "openvino" or (runtime is None and multiplies_bfloat16())
        self._session = self._open(path, _options(threads, to_run=not rounded))
        self._openvino = self._compiled(threads, runtime) if rounded else None
        if self._openvino is not None:
            self._session = None  # and its memory
        elif rounded:
            self._session = self._open(path, _options(threads, to_run=True))

    def _compiled(self, threads: int, runtime: Runtime | None) -> OpenVinoRunner | None:
        """The network on OpenVINO; None where ONNX Runtime is as good, and nobody asked."""
        try:
            runner = OpenVinoRunner(self.path, self.inputs, threads)
        except ImportError as error:
            if runtime is None:
                return None
            raise ImportError(
                "runtime: openvino is not installed (pip install extreme3d-fast[openvino])"
            ) from error
        except RuntimeError as error:
            if runtime is None:
                return None
            raise InvalidModelFile(f"path: OpenVINO cannot run {self.path}: {error}") from error
        return runner if runtime == "openvino" or runner.precision == "bf16" else None

    @property
    def runtime(self) -> str:
        """What runs the network, for reports: `onnxruntime 1.32.0 CPU`."""
        if self._openvino is not None:
            return self._openvino.description
        return f"onnxruntime {onnxruntime.__version__} CPU"

    def run(self, feeds: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Runs the network once.

        Args:
            feeds: float32 array per input name, of the shapes in `inputs`.

        Returns:
            float32 array per output name.

        Raises:
            ValueError: a name, dtype or shape differs from the network's.
            InvalidModelFile: the network cannot be run on arrays of these shapes.
        """
        self._check_names(feeds)
        for name, array in feeds.items():
            if array.dtype != np.float32 or not self._fits(name, array.shape):
                raise ValueError(
                    f"feeds[{name!r}]: expected float32 {self.inputs[name]}, "
                    f"got {array.dtype} {array.shape}"
                )
        names = list(self.outputs)
        try:
            answers = (self._openvino or self._session).run(names, dict(feeds))
        except Exception as error:  # see above
            raise InvalidModelFile(f"path: {self.path} fails when it is run: {error}") from error
        return dict(zip(names, answers, strict=True))


def _options(threads: int, *, to_run: bool) -> Any:
    """Of a session that runs a network, or only reads what its file says."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads if to_run else 1
    options.inter_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if to_run else levels.ORT_DISABLE_ALL
    # Threads that spin after a run would take the cores from the geometry stages that follow.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _shape(value: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in value.shape)
