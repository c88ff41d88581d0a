"""Catalogues of others: read beside ours, later files winning, and every fault told with its file and line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.config.catalogue import SHIPPED, read_catalogue
from gateway.config.load import Loaded, parse
from gateway.contract.errors import ConfigurationError

MODEL = """
[[models]]
name = "Acme/Painter"
task = "text-to-image"
output = "files"
description = "Paints."

[models.input]
prompt = { type = "string", required = true, description = "What to paint." }
size = { type = "string", enum = ["small", "large"], default = "small" }
picture = { type = "file" }
steps = { type = "integer", minimum = 1, maximum = 8 }

[[models.offers]]
adapter = "acme"
name = "painter-1"
price = { per_image = "0.01" }
output = { path = "pictures[*].url" }
input.rename = { prompt = "text" }
input.spread.size.small = { width = 1, height = 1 }
"""


def loaded(text: str, folder: Path) -> Loaded:
    return parse(text, place="turnout.toml", folder=folder, environ={})


def faults(text: str, folder: Path) -> list[str]:
    (folder / "bad.toml").write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        loaded('[catalogue]\nfiles = ["bad.toml"]\n', folder)
    return [line.removeprefix(f"{folder / 'bad.toml'}:") for line in str(refused.value).splitlines()]


def test_a_local_file_stands_beside_the_shipped_ones_and_wins(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "acme.toml").write_text(MODEL)
    (tmp_path / "ours.toml").write_text(MODEL.replace("Acme/Painter", "Black-Forest-Labs/FLUX-schnell"))
    catalogue = loaded('[catalogue]\nfiles = ["more", "ours.toml"]\n', tmp_path).catalogue
    assert len(catalogue.models) == len(read_catalogue(()).models) + 1
    painter = catalogue.get("acme/painter")
    assert painter is not None
    assert painter.offers[0].output.path == "pictures[*].url"
    replaced = catalogue.get("black-forest-labs/flux-schnell")
    assert replaced is not None
    assert [offer.adapter for offer in replaced.offers] == ["acme"], "replaced, not merged"


def test_switched_off_nothing_is_known(tmp_path: Path) -> None:
    assert loaded('[catalogue]\nenabled = false\nfiles = ["gone.toml"]\n', tmp_path).catalogue.models == {}


def test_a_model_becomes_a_schema(tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text(MODEL)
    model = read_catalogue([tmp_path / "acme.toml"], shipped=False).models["acme/painter"]
    assert model.schema == {
        "Input": {
            "properties": {
                "prompt": {"type": "string", "description": "What to paint."},
                "size": {"type": "string", "enum": ["small", "large"], "default": "small"},
                "picture": {"type": "string", "format": "uri"},
                "steps": {"type": "integer", "minimum": 1, "maximum": 8},
            },
            "required": ["prompt"],
        },
        "Output": {"title": "Output", "type": "array", "items": {"type": "string", "format": "uri"}},
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"Acme/Painter"', '"painter"', '3: models[0].name: "painter" is no name of a model'),
        ('output = "files"', 'output = "flies"', '5: models[0].output: "flies" is not known; did you mean "files"?'),
        ('type = "file"', 'type = "picture"', '11: models[0].input.picture.type: "picture" is not known; known here:'),
        ('default = "small"', 'default = "tiny"', "10: models[0].input.size.default: it is none of `enum`"),
        ('per_image = "0.01"', 'per_image = "cheap"', "17: models[0].offers[0].price.per_image: 'cheap' is no amount"),
        ('per_image = "0.01"', 'per_pixel = "0.01"', '17: models[0].offers[0].price.per_pixel: "per_pixel" is no unit'),
        (
            'per_image = "0.01"',
            "per_image = 0.01",
            "17: models[0].offers[0].price: this is a number; write dollars",
        ),
        ("pictures[*].url", "pictures[].url", "18: models[0].offers[0].output.path: this is no path"),
        ('adapter = "acme"\n', "", "14: models[0].offers[0].adapter: it is missing"),
        ('name = "painter-1"', 'nmae = "painter-1"', '16: models[0].offers[0].nmae: unknown key "nmae"; did you mean'),
        ('task = "text-to-image"', "task = 1", "4: models[0].task: this is a whole number"),
        ("[[models]]", "[models]", "2: models: this is a table"),
        ("[models.input]", "[models.input", "8: not TOML"),
    ],
)
def test_a_fault_is_told_with_its_file_and_line(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in MODEL
    assert any(line.startswith(said) for line in faults(MODEL.replace(old, new, 1), tmp_path)), faults(
        MODEL.replace(old, new, 1), tmp_path
    )


def test_a_model_twice_in_one_file_is_a_fault(tmp_path: Path) -> None:
    [fault] = faults(MODEL + MODEL.replace("Acme/Painter", "acme/painter"), tmp_path)
    assert 'models[1].name: "acme/painter" is there already, in models[0]' in fault


def test_files_that_are_not_there_or_no_text_are_told_with_the_rest(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError) as refused:
        loaded('[server]\nprot = 1\n[catalogue]\nfiles = ["gone.toml", "bytes.toml"]\n', tmp_path)
    first, gone, unread = str(refused.value).splitlines()
    assert first.startswith("turnout.toml:2: server.prot: unknown key")
    assert gone == f"{tmp_path / 'gone.toml'}: no such file or folder; correct [catalogue] files"
    assert unread.startswith(f"{tmp_path / 'bytes.toml'}: it cannot be read (it is not UTF-8)")


def test_the_shipped_files_are_there_and_are_read_once_and_fast() -> None:
    assert {path.stem for path in SHIPPED.glob("*.toml")} >= {"image", "video", "speech", "chat", "adapters"}
    read_catalogue(())
    begun = time.process_time()
    read_catalogue(())
    assert time.process_time() - begun < 0.01
