"""The bundled upscaler against Pillow, tile against whole, and the graph against the code that builds it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gateway.contract.errors import InputInvalid
from local_backend.graph import SCALES, build, main
from local_backend.kinds.image_to_image import ImageToImage
from local_backend.kinds.tile import cut
from local_backend.package import BUNDLED, load
from tests.unit.local_backend.conftest import RunHere
from tests.unit.local_backend.making import data_uri, encoded, opened, package, picture


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> ImageToImage:
    loaded = load(BUNDLED / "upscaler", into=tmp_path_factory.mktemp("private"))
    return ImageToImage(loaded, device="cpu", threads=2)


def _difference(ours: Image.Image, theirs: Image.Image) -> tuple[int, float]:
    """Largest and mean difference, of 255."""
    assert (ours.size, ours.mode) == (theirs.size, theirs.mode)
    apart = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int))
    return int(apart.max()), float(apart.mean())


@pytest.mark.parametrize("scale", SCALES)
def test_rebuilding_the_graph_gives_the_committed_bytes(scale: int, tmp_path: Path) -> None:
    main([str(tmp_path)])
    committed = (BUNDLED / "upscaler" / f"x{scale}.onnx").read_bytes()
    assert (tmp_path / f"x{scale}.onnx").read_bytes() == build(scale) == committed


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 7), (3, 3), (64, 48), (257, 131)])
async def test_it_equals_pillows_bicubic_to_within_one_of_255_borders_included(
    scale: int, size: tuple[int, int], upscaler: ImageToImage, run_here: RunHere
) -> None:
    image = picture(*size)
    (job,) = run_here(upscaler, {"image": data_uri(encoded(image)), "scale": scale})
    expected = image.resize((size[0] * scale, size[1] * scale), Image.Resampling.BICUBIC)
    largest, mean = _difference(opened(job.output), expected)
    assert largest <= 1
    assert mean <= 0.001


@pytest.mark.parametrize("scale", SCALES)
async def test_tiles_leave_no_seam(scale: int, upscaler: ImageToImage, run_here: RunHere) -> None:
    # Six tiles of at most 512; the same picture in one piece is Pillow's.
    image = picture(1100, 530, seed=1)
    (job,) = run_here(upscaler, {"image": data_uri(encoded(image)), "scale": scale})
    expected = image.resize((1100 * scale, 530 * scale), Image.Resampling.BICUBIC)
    assert "6 tiles, on CPU" in job.logs
    assert _difference(opened(job.output), expected)[0] <= 1


async def test_progress_is_written_as_replicates_clients_read_it(upscaler: ImageToImage, run_here: RunHere) -> None:
    (job,) = run_here(upscaler, {"image": data_uri(encoded(picture(600, 20)))})
    found = re.findall(r"^\s*(\d+)%\s*\|.+?\|\s*(\d+)/(\d+)", job.logs, re.MULTILINE)
    assert found == [("50", "1", "2"), ("100", "2", "2")]
    assert job.metrics["image_output_megapixel_count"] == 0.048


@pytest.mark.parametrize("scale", SCALES)
async def test_alpha_is_resampled_as_pillow_does_and_does_not_bleed(
    scale: int, upscaler: ImageToImage, run_here: RunHere
) -> None:
    image = picture(61, 43, "RGBA")
    (job,) = run_here(upscaler, {"image": data_uri(encoded(image)), "scale": scale})
    result, expected = opened(job.output), image.resize((61 * scale, 43 * scale), Image.Resampling.BICUBIC)
    assert _difference(result.getchannel("A"), expected.getchannel("A"))[0] <= 1
    # Where little is visible a colour is a quotient of small numbers: compare what is seen on black and on white.
    for ground in ("black", "white"):
        seen = [Image.new("RGBA", result.size, ground) for _ in range(2)]
        for under, over in zip(seen, (result, expected), strict=True):
            under.alpha_composite(over)
        assert _difference(*(under.convert("RGB") for under in seen))[0] <= 2


async def test_a_picture_is_turned_upright_and_loses_its_exif(upscaler: ImageToImage, run_here: RunHere) -> None:
    image = picture(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    (job,) = run_here(upscaler, {"image": data_uri(encoded(image, exif=exif))})
    result = opened(job.output)
    assert result.size == (40, 80)
    assert not result.getexif()
    expected = image.transpose(Image.Transpose.ROTATE_270).resize((40, 80), Image.Resampling.BICUBIC)
    assert _difference(result, expected)[0] <= 1


@pytest.mark.parametrize(
    ("mode", "expected"), [("L", "RGB"), ("LA", "RGBA"), ("P", "RGB"), ("1", "RGB"), ("CMYK", "RGB"), ("I;16", "RGB")]
)
async def test_other_modes_become_rgb_or_rgba(
    mode: str, expected: str, upscaler: ImageToImage, run_here: RunHere
) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 9), 0x80FF, np.uint16))
    else:
        image = picture(9, 8, "LA" if mode == "LA" else "RGB").convert(mode)
    content = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    (job,) = run_here(upscaler, {"image": data_uri(content)})
    assert opened(job.output).mode == expected
    if mode == "I;16":
        assert set(opened(job.output).tobytes()) == {0x80}


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
async def test_the_result_has_the_format_that_was_asked_for(
    name: str, upscaler: ImageToImage, run_here: RunHere
) -> None:
    image = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    (job,) = run_here(upscaler, {"image": data_uri(encoded(image)), "format": name})
    assert job.output.startswith(f"data:image/{name};base64,")
    result = opened(job.output)
    assert result.format == name.upper()
    if name == "jpeg":  # laid on white, not on what colour the invisible pixels have
        assert min(result.convert("RGB").getpixel((5, 5))) > 250


def test_a_result_over_the_cap_is_refused_before_decoding(upscaler: ImageToImage) -> None:
    # 50 million pixels of output: 12.5 million at scale 2, 3.125 million at 4.
    flat = data_uri(encoded(Image.new("1", (3_000, 1_500))))
    assert upscaler.prepare({"image": flat, "scale": 2}).cost == 18.0
    with pytest.raises(InputInvalid, match="over the 3125000"):
        upscaler.prepare({"image": flat, "scale": 4})


def test_a_side_too_long_for_the_format_is_refused(upscaler: ImageToImage) -> None:
    wide = data_uri(encoded(Image.new("1", (9_000, 2))))
    with pytest.raises(InputInvalid, match="webp holds no picture of 18000 x 4"):
        upscaler.prepare({"image": wide, "scale": 2, "format": "webp"})


async def test_a_result_too_large_to_carry_says_what_to_do(
    upscaler: ImageToImage, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local_backend.kinds.image_to_image.MAX_RESULT_BYTES", 1_000)
    (job,) = run_here(upscaler, {"image": data_uri(encoded(picture(30, 30)))})
    assert job.status == "failed"
    assert "ask for jpeg or webp" in str(job.error)


async def test_a_float_graph_in_the_other_layout_works_too(tmp_path: Path, run_here: RunHere) -> None:
    from onnx import TensorProto, helper

    from tests.unit.local_backend.making import FLOAT, graph

    node = helper.make_node("Sub", ["white", "x"], ["y"])
    white = helper.make_tensor("white", TensorProto.FLOAT, [], [1.0])
    ends = {"x": (FLOAT, [1, "h", "w", 3])}, {"y": (FLOAT, [1, "h", "w", 3])}
    manifest = """
        name = "test/negative"
        kind = "image-to-image"
        [input.image]
        type = "file:image"
        [output]
        type = "file:image"
        [parameters]
        layout = "nhwc"
        tile = 16
        overlap = 0
        graphs = [{ file = "m.onnx", scale = 1 }]
    """
    folder = package(tmp_path / "pack", manifest, {"m.onnx": graph([node], *ends, [white]).SerializeToString()})
    kind = ImageToImage(load(folder, into=tmp_path), device="cpu", threads=1)
    image = picture(33, 21)
    (job,) = run_here(kind, {"image": data_uri(encoded(image))})
    assert (np.asarray(opened(job.output)) == 255 - np.asarray(image)).all()


def test_a_graph_that_does_not_fit_its_manifest_is_not_opened(tmp_path: Path) -> None:
    text = (BUNDLED / "upscaler" / "package.toml").read_text().partition("\n[[files]]")[0]
    files = {name: (BUNDLED / "upscaler" / name).read_bytes() for name in ("x2.onnx", "x4.onnx")}
    folder = package(tmp_path / "pack", text.replace('"uint8"', '"float32"'), files)
    with pytest.raises(ValueError, match="the manifest says one float32"):
        ImageToImage(load(folder, into=tmp_path), device="cpu", threads=1)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(16, 128), st.integers(0, 32))
def test_tiles_cover_every_pixel_once_and_stay_small(width: int, height: int, size: int, overlap: int) -> None:
    covered = np.zeros((height, width), int)
    for tile in cut(width, height, size=size, overlap=overlap):
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
        assert 0 < tile.right - tile.left <= size
        assert 0 < tile.bottom - tile.top <= size
        assert tile.outer_left == max(0, tile.left - overlap)
        assert tile.outer_right == min(width, tile.right + overlap)
        assert tile.outer_top == max(0, tile.top - overlap)
        assert tile.outer_bottom == min(height, tile.bottom + overlap)
    assert (covered == 1).all()
