"""One micro-benchmark an operation, on what a real reconstruction gave it."""

from __future__ import annotations

from typing import Any

import pytest

from bench.workloads import OPERATIONS


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(
    name: str, operations: tuple[dict[str, Any], dict[str, str]], benchmark: Any
) -> None:
    workloads, left_out = operations
    if name in left_out:
        pytest.skip(left_out[name])
    workload = workloads[name]
    benchmark.extra_info |= {"does": workload.does, **workload.work}
    benchmark(workload.call)
