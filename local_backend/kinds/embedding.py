"""Texts in, vectors out: tokenizer, graph, pooling. Texts of like length run together: padding costs as text does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from local_backend.batcher import Batch, run_rows
from local_backend.input import invalid
from local_backend.job import Work
from local_backend.manifest import EmbeddingParameters
from local_backend.package import Package
from local_backend.session import Array, Device, Session

MAX_CHARACTERS = 2_000_000
_FEEDS = ("input_ids", "attention_mask", "token_type_ids")


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """
    Group rows so that rows x longest row stays within `budget` tokens; a row longer than that is alone.

    Shortest first: neighbours in length share a run, and little is padded. Returns row numbers.
    """
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and (len(groups[-1]) + 1) * lengths[row] <= budget:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


class Embedding:
    """One package of kind embedding."""

    def __init__(self, package: Package, *, device: Device, threads: int) -> None:
        parameters = package.manifest.parameters
        assert isinstance(parameters, EmbeddingParameters)  # noqa: S101 - the manifest's kind decides both
        self._parameters = parameters
        self._session = Session(package.path(parameters.graph), device=device, threads=threads)
        self.devices: tuple[str, ...] = (self._session.device,)
        self.max_cost = 4.0 * parameters.max_batch_tokens  # enough for several groups of like length
        self._tokenizer = Tokenizer.from_file(str(package.path(parameters.tokenizer)))
        padding = self._tokenizer.padding or {}
        self._pad = int(padding.get("pad_id", 0))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(parameters.max_tokens)
        self._output = parameters.output or self._session.outputs[0].name
        self._dtypes = {tensor.name: tensor.dtype for tensor in self._session.inputs}
        unknown = self._dtypes.keys() - set(_FEEDS)
        if unknown or self._output not in {tensor.name for tensor in self._session.outputs}:
            raise ValueError(f"the graph takes {sorted(self._dtypes)}; known are {', '.join(_FEEDS)}")

    def prepare(self, input: dict[str, Any]) -> Work:
        given = input["texts"]
        texts = [given] if isinstance(given, str) else given
        if not 1 <= len(texts) <= self._parameters.max_texts:
            raise invalid("texts", f"texts must hold between 1 and {self._parameters.max_texts} texts")
        if sum(map(len, texts)) > MAX_CHARACTERS:
            raise invalid("texts", f"texts hold over {MAX_CHARACTERS} characters")
        rows = [np.array(self._tokenizer.encode(text).ids, np.int64) for text in texts]
        tokens = sum(map(len, rows))
        return Work(payload=rows, cost=tokens, size_bytes=8 * tokens, group="texts")

    def run(self, batch: Batch) -> None:
        works = dict(batch.wanted())
        places = [(number, place) for number, work in works.items() for place in range(len(work.payload))]
        texts = [works[number].payload[place] for number, place in places]
        vectors: dict[int, list[Any]] = {number: [None] * len(work.payload) for number, work in works.items()}
        left = {number: len(work.payload) for number, work in works.items()}

        def succeed(row: int, vector: Array) -> None:
            number, place = places[row]
            vectors[number][place] = vector.tolist()
            left[number] -= 1
            total = len(vectors[number])
            batch.progress(number, total - left[number], total, "texts")
            if not left[number]:
                batch.succeed(
                    number,
                    vectors[number],
                    20 * total * len(vector),
                    input_token_count=sum(map(len, works[number].payload)),
                )

        def fail(row: int, error: str) -> None:
            batch.fail(places[row][0], error)

        for group in pack([len(text) for text in texts], self._parameters.max_batch_tokens):
            run_rows(group, lambda rows: self._embed(batch, [texts[row] for row in rows]), succeed, fail)

    def _embed(self, batch: Batch, texts: list[Array]) -> list[Array]:
        """One float32 vector for each text."""
        length = max(1, *(len(text) for text in texts))
        ids = np.full((len(texts), length), self._pad, np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (hidden,) = batch.run(
            self._session,
            {name: feeds[name].astype(dtype) for name, dtype in self._dtypes.items()},
            [self._output],
        )
        return list(pool(hidden, mask, self._parameters.pooling, normalize=self._parameters.normalize))


def pool(hidden: Array, mask: Array, how: str, *, normalize: bool) -> Array:
    """One vector per row of `[rows, tokens, dimensions]` (`[rows, dimensions]` for "none"). Raises ValueError."""
    rank = 2 if how == "none" else 3
    if hidden.ndim != rank or len(hidden) != len(mask):
        raise ValueError(f"the graph gave shape {hidden.shape}; pooling {how!r} needs rank {rank}")
    values = hidden.astype(np.float32)
    if how == "mean":
        weights = mask[..., None].astype(np.float32)
        values = (values * weights).sum(1) / np.maximum(weights.sum(1), 1)
    elif how == "cls":
        values = values[:, 0]
    elif how == "last":
        values = values[np.arange(len(values)), np.maximum(mask.sum(1) - 1, 0)]
    if normalize:
        values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    result: Array = values
    return result
