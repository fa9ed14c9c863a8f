"""Relief of a reference set in device memory: what is needed is decoded once and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from extreme3d_fast.device import Device, DeviceArray
from extreme3d_fast.face_chart import FaceChart
from extreme3d_fast.references import Reference, ReferenceSet

__all__ = ["DeviceReferences", "chart_on_device"]

#: Reliefs that are kept at most; 51 KB each.
SLOTS = 4096


def chart_on_device(device: Device, chart: FaceChart) -> Any:
    """The chart's tables with `unroll` and `warp_by_surface` on device arrays."""
    return device.ops.FaceChart(
        chart.raster.triangle, chart.raster.barycentric, chart.place, chart.faces
    )


class DeviceReferences:
    """A reference set whose relief is in device memory, as far as it was needed lately.

    Args:
        device: where.
        references: the set.
        slots: number of reliefs to keep; those of one search have to fit. Of a smaller set, all.

    Raises:
        ValueError: too few slots.

    Attributes:
        chosen: (MAX_REFERENCES,) int32 device array, what `choose` chose: 2 slot + mirrored, -1
            behind the last.
        relief: the operations' `ReferenceRelief`, which reads it.
    """

    def __init__(self, device: Device, references: ReferenceSet, *, slots: int = SLOTS) -> None:
        self._most = int(device.ops.MAX_REFERENCES)
        if slots < self._most:
            raise ValueError(f"`slots` should be at least {self._most}, is {slots}")
        self._device, self._references = device, references
        self._slots = min(slots, max(len(references), self._most))
        self._slot_of: OrderedDict[int, int] = OrderedDict()  # the longest unused first
        self.relief: Any = device.ops.ReferenceRelief(self._slots)
        self.chosen: DeviceArray = device.empty(self._most, "int32")

    def keep(self, indices: Iterable[int]) -> None:
        """Brings the relief of some references into device memory, in the order of the stream.

        Raises:
            IndexError: no such reference.
            InvalidModelFile: the set is damaged.
        """
        for index in indices:
            if index in self._slot_of:
                self._slot_of.move_to_end(index)
                continue
            record = self._references.stored_relief(index)
            if len(self._slot_of) < self._slots:
                slot = len(self._slot_of)
            else:
                slot = next(iter(self._slot_of.values()))
            self.relief.store(slot, np.frombuffer(record.tobytes(), np.uint8), self._device.stream)
            if len(self._slot_of) == self._slots:
                self._slot_of.popitem(last=False)
            self._slot_of[index] = slot

    def keep_all(self) -> None:
        """Brings as much of the set into device memory as there are slots."""
        self.keep(range(min(self._slots, len(self._references))))

    def choose(self, found: Sequence[Reference]) -> None:
        """Says which references the next expected relief is of, in the order of the stream.

        Args:
            found: what the set's `search` found, MAX_REFERENCES at most.

        Raises:
            ValueError: too many.
            InvalidModelFile: the set is damaged.
        """
        if len(found) > self._most:
            raise ValueError(f"`found` should be {self._most} at most, is {len(found)}")
        indices = [reference.index for reference in found]
        # first those that are here, lest they make room for the others
        self.keep(sorted(set(indices), key=lambda index: index not in self._slot_of))
        chosen = np.full(self._most, -1, np.int32)
        for k, reference in enumerate(found):
            chosen[k] = 2 * self._slot_of[reference.index] + reference.mirrored
        self._device.ops.upload(chosen, self.chosen, self._device.stream)
