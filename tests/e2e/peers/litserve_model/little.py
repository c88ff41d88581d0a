"""
A language model and an embedding, small enough to need no download, and always the same. Knows nothing of any server.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterator

SENTENCES = (
    "the train leaves the yard before the sun is up .",
    "the turnout sends the train down the other line .",
    "the signal is green and the line is free .",
    "before the bridge the driver sees the signal and slows down .",
)
DIMENSIONS = 16


class Chain:
    """Writes on from a text, word after word: after each word comes what came after it in the sentences, in turn."""

    def __init__(self) -> None:
        self._after: dict[str, list[str]] = defaultdict(list)
        for word, following in itertools.pairwise(words_of(" ".join(SENTENCES))):
            self._after[word].append(following)

    def write(self, text: str, *, most: int) -> Iterator[str]:
        """So many words, from the last that it knows in the text, each but the first with the space before it."""
        word = next((word for word in reversed(words_of(text)) if word in self._after), "the")
        turns: dict[str, int] = defaultdict(int)
        for number in range(most):
            following = self._after[word]
            turns[word] += 1
            word = following[(turns[word] - 1) % len(following)] if following else "the"
            yield word if number == 0 else f" {word}"


def embed(text: str) -> list[float]:
    """The words in a text, whatever their order: each counts in the place that its hash names. Of length 1."""
    counts = [0.0] * DIMENSIONS
    for word in words_of(text):
        counts[hashlib.sha256(word.encode()).digest()[0] % DIMENSIONS] += 1
    length = math.hypot(*counts) or 1.0
    return [count / length for count in counts]


def words_of(text: str) -> list[str]:
    return re.findall(r"[\w']+|[.]", text.lower())
