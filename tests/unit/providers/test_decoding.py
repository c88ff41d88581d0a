"""Content codings undone within bounds."""

import gzip
import tracemalloc
import zlib

import pytest

from providers._decoding import BodyTooLarge, BodyUndecodable, make_decoder

TEXT = b"all that rises must converge " * 50


@pytest.mark.parametrize(
    ("coding", "body"),
    [("", TEXT), ("identity", TEXT), ("GZIP ", gzip.compress(TEXT, mtime=0)), ("deflate", zlib.compress(TEXT))],
)
def test_a_body_in_any_pieces_comes_out_whole(coding: str, body: bytes) -> None:
    decode = make_decoder(coding, max_bytes=len(TEXT))
    assert b"".join(decode(body[i : i + 7]) for i in range(0, len(body), 7)) == TEXT


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_one_byte_over_the_limit_is_refused(coding: str) -> None:
    decode = make_decoder(coding, max_bytes=len(TEXT) - 1)
    with pytest.raises(BodyTooLarge):
        decode(gzip.compress(TEXT, mtime=0) if coding else TEXT)


def test_a_gzip_bomb_costs_no_more_than_the_limit() -> None:
    bomb = gzip.compress(gzip.compress(bytes(200_000_000)))
    inner = gzip.decompress(bomb)
    assert len(bomb) < 1_000
    tracemalloc.start()
    decode = make_decoder("gzip", max_bytes=1_000_000)
    with pytest.raises(BodyTooLarge):
        decode(inner)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
def test_a_coding_nobody_asked_for_is_refused(coding: str) -> None:
    with pytest.raises(BodyUndecodable):
        make_decoder(coding, max_bytes=1000)


def test_bytes_that_are_not_in_their_coding_are_refused() -> None:
    with pytest.raises(BodyUndecodable):
        make_decoder("gzip", max_bytes=1000)(b"plain text")
