"""Networks on OpenVINO, an optional package, which multiplies in bfloat16 where processors do."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["OpenVinoRunner", "multiplies_bfloat16"]

Float32 = NDArray[np.float32]


class OpenVinoRunner:
    """One network, compiled for the processor at hand.

    OpenVINO multiplies in bfloat16 where the processor does so itself, else in float32; sums are
    float32. In bfloat16 answers do not depend on the number of threads, in float32 up to rounding.

    Args:
        path: an ONNX file that has been checked.
        inputs: shape per input name; None where any size is taken.
        threads: threads inside one run.

    Raises:
        ImportError: OpenVINO is not installed.
        RuntimeError: it cannot run this network.
    """

    def __init__(
        self, path: Path, inputs: Mapping[str, tuple[int | None, ...]], threads: int
    ) -> None:
        core = _core()
        network = core.read_model(path)
        network.reshape({n: [-1 if d is None else d for d in s] for n, s in inputs.items()})
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # several processes would all sit on the same cores
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(network, "CPU", options)
        self._request = compiled.create_infer_request()
        self._one_at_a_time = threading.Lock()
        #: What it multiplies in: `bf16` or `f32`.
        self.precision: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()

    def run(self, names: list[str], feeds: Mapping[str, Float32]) -> list[Float32]:
        """The outputs of these names for inputs that fit, as ONNX Runtime's `run`."""
        with self._one_at_a_time:
            answers = self._request.infer(
                {name: np.ascontiguousarray(array) for name, array in feeds.items()},
                share_inputs=True,
            )
            return [np.array(answers[name], np.float32) for name in names]

    @property
    def description(self) -> str:
        """For reports: `openvino 2026.4.1 CPU bf16`."""
        import openvino

        return f"openvino {openvino.__version__.split('-')[0]} CPU {self.precision}"


@cache
def multiplies_bfloat16() -> bool:
    """Whether OpenVINO is installed and may use bfloat16 here."""
    try:
        return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ImportError, RuntimeError):
        return False


@cache
def _core() -> Any:
    """The library, loaded once."""
    import openvino

    return openvino.Core()
