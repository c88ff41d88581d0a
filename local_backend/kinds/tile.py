"""A picture cut into overlapping tiles, and put together again without seams. Knows nothing of what is done to them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec


class Tile(msgspec.Struct, kw_only=True, frozen=True):
    """
    One tile, in input pixels: the part it is responsible for, and that part with its surroundings.

    Surroundings end at the picture's border, so that a graph sees the same border as it would in the whole.
    """

    left: int
    top: int
    right: int
    bottom: int
    outer_left: int
    outer_top: int
    outer_right: int
    outer_bottom: int


def cut(width: int, height: int, *, size: int, overlap: int) -> Iterator[Tile]:
    """Tiles of at most `size` a side, row by row, that cover the picture once; each with `overlap` around it."""
    for top, bottom in _spans(height, size):
        for left, right in _spans(width, size):
            yield Tile(
                left=left,
                top=top,
                right=right,
                bottom=bottom,
                outer_left=max(left - overlap, 0),
                outer_top=max(top - overlap, 0),
                outer_right=min(right + overlap, width),
                outer_bottom=min(bottom + overlap, height),
            )


def _spans(length: int, size: int) -> Iterator[tuple[int, int]]:
    """Even spans of at most `size`: no sliver at the end."""
    count = -(-length // size)
    edges = [length * number // count for number in range(count + 1)]
    yield from itertools.pairwise(edges)
