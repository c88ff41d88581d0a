"""Any graph: named arrays in, named arrays out. Rows of several callers share a run if the manifest says they may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from local_backend.batcher import Batch, run_rows
from local_backend.input import invalid
from local_backend.job import Work
from local_backend.kinds.array import ArrayRefused, read_array, write_array
from local_backend.manifest import TensorParameters
from local_backend.package import Package
from local_backend.session import Array, Device, Session

ENCODING = "encoding"  # the input that chooses "list" or "base64" for outputs, where a manifest declares it


class TensorModel:
    """One package of kind tensor."""

    def __init__(self, package: Package, *, device: Device, threads: int) -> None:
        parameters = package.manifest.parameters
        assert isinstance(parameters, TensorParameters)  # noqa: S101 - the manifest's kind decides both
        self._session = Session(package.path(parameters.graph), device=device, threads=threads)
        self.devices: tuple[str, ...] = (self._session.device,)
        self._inputs = {tensor.name: tensor for tensor in self._session.inputs}
        self._batches = parameters.batch
        self.max_cost = float(parameters.max_rows)
        self._outputs = list(parameters.outputs) or [tensor.name for tensor in self._session.outputs]
        declared = set(package.manifest.input) - {ENCODING}
        missing = (declared ^ set(self._inputs)) | (set(self._outputs) - {t.name for t in self._session.outputs})
        if missing:
            raise ValueError(f"manifest and graph disagree about {', '.join(map(repr, sorted(missing)))}")

    def prepare(self, input: dict[str, Any]) -> Work:
        feeds: dict[str, Array] = {}
        for name, tensor in self._inputs.items():
            if name not in input:
                raise invalid(name, f"{name} is required", "required")
            value = input[name]
            if len(tensor.shape) == 1 and isinstance(value, int | float):
                value = [value]  # a scalar input of a graph that wants it as [1]
            try:
                feeds[name] = read_array(value, tensor)
            except ArrayRefused as refused:
                raise invalid(name, f"{name} {refused}", "invalid_type") from None
        rows = 1
        group = None
        if self._batches:
            rows = self._rows(feeds)
            group = tuple((name, array.shape[1:]) for name, array in feeds.items())
        as_bytes = input.get(ENCODING) == "base64"
        size_bytes = sum(array.nbytes for array in feeds.values())
        return Work(payload=(feeds, rows, as_bytes), cost=rows, size_bytes=size_bytes, group=group)

    def _rows(self, feeds: dict[str, Array]) -> int:
        counts = {len(array) if array.ndim else 0 for array in feeds.values()}
        if len(counts) != 1 or counts == {0}:
            raise invalid(next(iter(feeds)), "all inputs must have the same number of rows, at least one")
        return counts.pop()

    def run(self, batch: Batch) -> None:
        works = dict(batch.wanted())

        def together(numbers: Sequence[int]) -> list[list[Array]]:
            feeds = {
                name: np.concatenate([works[number].payload[0][name] for number in numbers])
                if len(numbers) > 1
                else works[numbers[0]].payload[0][name]
                for name in self._inputs
            }
            outputs = batch.run(self._session, feeds, self._outputs)
            if len(numbers) == 1:
                return [outputs]
            return _split(outputs, [works[number].payload[1] for number in numbers])

        def succeed(number: int, outputs: list[Array]) -> None:
            as_bytes = works[number].payload[2]
            shown = {
                name: write_array(array, as_bytes=as_bytes) for name, array in zip(self._outputs, outputs, strict=True)
            }
            batch.succeed(number, shown, sum(array.nbytes for array in outputs) * 4)

        if works:
            run_rows(tuple(works), together, succeed, batch.fail)


def _split(outputs: list[Array], rows: list[int]) -> list[list[Array]]:
    """The rows of each job. Raises ValueError if the graph does not keep rows apart."""
    total = sum(rows)
    if any(array.ndim == 0 or len(array) != total for array in outputs):
        raise ValueError("the graph does not give one row for each row")
    edges = np.cumsum(rows)[:-1]
    parts = [np.split(array, edges) for array in outputs]
    return [[part[number] for part in parts] for number in range(len(rows))]
