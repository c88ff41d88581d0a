"""Embeddings with a model made here: a table of vectors, a word tokenizer, every pooling against plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from gateway.contract.errors import InputInvalid
from local_backend.kinds.embedding import Embedding, pack
from local_backend.package import load
from tests.unit.local_backend.conftest import RunHere
from tests.unit.local_backend.making import FLOAT, INT64, graph, package

WORDS = ["[PAD]", "[UNK]", "red", "green", "blue", "and"]
TABLE = np.random.default_rng(3).standard_normal((len(WORDS), 4)).astype(np.float32)
MANIFEST = """
    name = "test/words"
    kind = "embedding"
    [input.texts]
    type = "texts"
    [output]
    type = "vectors"
    [parameters]
    graph = "model.onnx"
    max_tokens = 6
    max_batch_tokens = 12
"""


def _open(folder: Path, extra: str = "") -> Embedding:
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    model = graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["hidden"])],
        {"input_ids": (INT64, ["n", "s"]), "attention_mask": (INT64, ["n", "s"])},
        {"hidden": (FLOAT, ["n", "s", 4])},
        [numpy_helper.from_array(TABLE, "table")],
    )
    files = {"model.onnx": model.SerializeToString(), "tokenizer.json": tokenizer.to_str().encode()}
    made = package(folder / "pack", MANIFEST + extra, files)
    return Embedding(load(made, into=folder), device="cpu", threads=1)


def _rows(text: str) -> np.ndarray:
    return TABLE[[WORDS.index(word) if word in WORDS else 1 for word in text.split()][:6]]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
async def test_vectors_do_not_depend_on_company_or_padding(pooling: str, tmp_path: Path, run_here: RunHere) -> None:
    kind = _open(tmp_path, f'    pooling = "{pooling}"\n    normalize = false\n')
    texts = ["red", "green and blue", "blue", "red and green and blue and red and green", "unheard"]
    (job,) = run_here(kind, {"texts": texts})
    expected = {"mean": lambda rows: rows.mean(0), "cls": lambda rows: rows[0], "last": lambda rows: rows[-1]}[pooling]
    assert np.allclose(job.output, [expected(_rows(text)) for text in texts], atol=1e-6)
    assert job.metrics["input_token_count"] == 1 + 3 + 1 + 6 + 1


async def test_vectors_are_normalised_and_an_empty_text_is_a_zero_one(tmp_path: Path, run_here: RunHere) -> None:
    kind = _open(tmp_path)
    one, many = run_here(kind, {"texts": "red and blue"}, {"texts": ["", "red and blue"]})
    assert np.isclose(np.linalg.norm(one.output[0]), 1)
    assert many.output[0] == [0, 0, 0, 0]
    assert np.allclose(many.output[1], one.output[0], atol=1e-6)


def test_too_many_or_no_texts_are_refused(tmp_path: Path) -> None:
    kind = _open(tmp_path, "    max_texts = 2\n")
    for texts in ([], ["a", "b", "c"]):
        with pytest.raises(InputInvalid, match="between 1 and 2"):
            kind.prepare({"texts": texts})


async def test_pooling_that_does_not_fit_the_graph_is_the_jobs_failure(tmp_path: Path, run_here: RunHere) -> None:
    (job,) = run_here(_open(tmp_path, '    pooling = "none"\n'), {"texts": "red"})
    assert job.status == "failed"
    assert "needs rank 2" in str(job.error)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 100))
def test_packing_places_every_row_once_and_keeps_the_budget(lengths: list[int], budget: int) -> None:
    groups = pack(lengths, budget)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[row] for row in group) <= budget


def test_packing_pads_less_than_running_in_order() -> None:
    lengths = [3, 100] * 16

    def padded(groups: list[list[int]]) -> int:
        return sum(len(group) * max(lengths[row] for row in group) for group in groups)

    in_order = [list(range(at, at + 4)) for at in range(0, 32, 4)]
    assert padded(pack(lengths, 400)) == sum(lengths)
    assert padded(in_order) > 1.8 * padded(pack(lengths, 400))
