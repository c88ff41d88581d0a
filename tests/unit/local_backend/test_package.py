"""Packages that lie are refused with a reason; those that do not are copied, verified and described."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.contract.errors import ConfigurationError
from gateway.contract.money import Price
from local_backend.manifest import MANIFEST, PackageRefused
from local_backend.package import BUNDLED, describe, find, load, main, seal
from tests.unit.local_backend.making import TENSOR, doubling, package, tensor_package


def _edit(folder: Path, before: str, after: str) -> None:
    text = (folder / MANIFEST).read_text()
    assert before in text
    (folder / MANIFEST).write_text(text.replace(before, after, 1))


def _other_content(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "model.onnx").write_bytes(content)


def _symlink(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere.onnx")


def _symlinked_folder(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    shutil.copy(folder / "model.onnx", outside / "model.onnx")
    (folder / "sub").symlink_to(outside)
    _edit(folder, 'path = "model.onnx"', 'path = "sub/model.onnx"')
    _edit(folder, 'graph = "model.onnx"', 'graph = "sub/model.onnx"')
    (folder / "model.onnx").unlink()


def _hardlink_of_other_content(folder: Path) -> None:
    secret = folder.parent / "secret"
    secret.write_bytes(b"s" * len((folder / "model.onnx").read_bytes()))
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").hardlink_to(secret)


def _named_pipe(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")


def _deep(folder: Path) -> None:
    path = folder / "a/b/c/d/e/f"
    path.mkdir(parents=True)
    (path / "x").write_bytes(b"")


def _manifest_link(folder: Path) -> None:
    (folder / MANIFEST).rename(folder.parent / "manifest.toml")
    (folder / MANIFEST).symlink_to(folder.parent / "manifest.toml")


def _sparse_giant(folder: Path) -> None:
    size = 65 * 2**30
    os.truncate(folder / "model.onnx", size)
    _edit(folder, f"bytes = {len(doubling())}", f"bytes = {size}")


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "other content of the same size": (_other_content, "its content is not what"),
    "longer content": (
        lambda f: (f / "model.onnx").write_bytes(doubling() + b"x") and None,
        "bytes, package.toml says",
    ),
    "a wrong hash": (lambda f: _edit(f, 'sha256 = "', 'sha256 = "0' * 1) or None, "sha256 must be 64 hex"),
    "an absolute path": (lambda f: _edit(f, 'path = "model.onnx"', 'path = "/etc/passwd"'), "plain relative path"),
    "a path that climbs": (lambda f: _edit(f, 'path = "model.onnx"', 'path = "../model.onnx"'), "plain relative path"),
    "a path that climbs inside": (lambda f: _edit(f, 'path = "model.onnx"', 'path = "a/../model.onnx"'), "plain"),
    "a path with a backslash": (lambda f: _edit(f, 'path = "model.onnx"', "path = 'a\\model.onnx'"), "plain"),
    "a hidden path": (lambda f: _edit(f, 'path = "model.onnx"', 'path = ".model.onnx"'), "plain relative path"),
    "a symbolic link": (_symlink, "is a link"),
    "a symlinked folder": (_symlinked_folder, "is a link"),
    "a hard link to a secret": (_hardlink_of_other_content, "its content is not what"),
    "a named pipe": (_named_pipe, "no regular file"),
    "a manifest that is a link": (_manifest_link, "cannot be read"),
    "an unlisted file": (lambda f: (f / "extra.bin").write_bytes(b"x") and None, "is not listed"),
    "a missing file": (lambda f: (f / "model.onnx").unlink(), "is missing"),
    "nesting too deep": (_deep, "too deep"),
    "a sparse giant": (_sparse_giant, "make it smaller"),
    "a giant manifest": (lambda f: (f / MANIFEST).write_bytes(b"#" * (2 << 20)) and None, "under 1 MiB"),
    "a file listed twice": (
        lambda f: (
            (f / MANIFEST).write_text(
                (f / MANIFEST).read_text() + (f / MANIFEST).read_text()[(f / MANIFEST).read_text().index("[[files]]") :]
            )
            and None
        ),
        "listed twice",
    ),
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_a_hostile_package_is_refused_with_a_reason_and_leaves_nothing(trick: str, tmp_path: Path) -> None:
    folder = tensor_package(tmp_path / "pack")
    private = tmp_path / "private"
    private.mkdir()
    play, words = HOSTILE[trick]
    play(folder)
    with pytest.raises(PackageRefused, match=words) as refused:
        load(folder, into=private)
    assert "\n" not in str(refused.value)
    assert list(private.iterdir()) == []


def test_a_sound_package_is_copied_into_private_keeping(tmp_path: Path) -> None:
    loaded = load(tensor_package(tmp_path / "pack"), into=tmp_path)
    assert loaded.path("model.onnx").read_bytes() == doubling()
    assert stat.S_IMODE(loaded.folder.stat().st_mode) == 0o700
    # What happens to the original later is nothing to us.
    (tmp_path / "pack" / "model.onnx").write_bytes(b"")
    assert loaded.path("model.onnx").read_bytes() == doubling()


def test_a_hard_link_to_the_very_content_is_fine_since_installers_make_them(tmp_path: Path) -> None:
    folder = tensor_package(tmp_path / "pack")
    (tmp_path / "cache.onnx").hardlink_to(folder / "model.onnx")
    assert (folder / "model.onnx").stat().st_nlink == 2
    assert load(folder, into=tmp_path).version


def test_the_bundled_package_loads_and_its_version_is_what_the_catalog_says(tmp_path: Path) -> None:
    (model,) = describe([BUNDLED], price=Price(per_prediction=0))
    assert model.slug == "turnout/upscaler"
    loaded = load(BUNDLED / "upscaler", into=tmp_path)
    assert model.default_version == loaded.version
    (offer,) = model.offers
    assert (offer.id, offer.provider, offer.is_fallback) == ("turnout/upscaler@local", "local", True)
    assert offer.version == offer.remote_version == loaded.version
    assert offer.options == {"wait": True, "idempotent": True}
    assert offer.price.per_prediction == 0


def test_describing_needs_no_heavy_library() -> None:
    heavy = "'onnx', 'onnxruntime', 'numpy', 'PIL', 'tokenizers'"
    code = (
        "import sys; from local_backend.package import BUNDLED, describe; import local_backend.supervisor;"
        f"describe([BUNDLED]); print([name for name in ({heavy}) if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_describing_refuses_what_can_be_seen_without_reading_files(tmp_path: Path) -> None:
    folder = tensor_package(tmp_path / "pack")
    (folder / "extra").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="is not listed"):
        describe([folder])
    with pytest.raises(ConfigurationError, match="cannot be read"):
        describe([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="holds no package"):
        describe([tmp_path / "empty"])


def test_two_versions_of_one_model_are_two_offers_and_the_last_is_the_default(tmp_path: Path) -> None:
    tensor_package(tmp_path / "1")
    package(tmp_path / "2", "description = 'newer'\n" + TENSOR.replace("\n    ", "\n"), {"model.onnx": doubling()})
    (model,) = describe([tmp_path])
    assert model.description == "newer"
    assert model.versions[0].id == model.default_version
    assert [offer.id for offer in model.offers] == ["test/double@local", "test/double@local#2"]
    assert {offer.version for offer in model.offers} == {version.id for version in model.versions}


def test_a_folder_named_twice_is_one_package(tmp_path: Path) -> None:
    folder = tensor_package(tmp_path / "pack")
    assert find([folder, tmp_path, folder]) == (folder.resolve(),)


def test_sealing_keeps_the_manifests_own_words_and_is_stable(tmp_path: Path) -> None:
    folder = package(tmp_path / "pack", "# my model\n" + TENSOR, {"model.onnx": doubling()})
    first = (folder / MANIFEST).read_text()
    assert first.startswith("# my model")
    assert seal(folder) == load(folder, into=tmp_path).version
    assert (folder / MANIFEST).read_text() == first


def test_sealing_refuses_links(tmp_path: Path) -> None:
    folder = tensor_package(tmp_path / "pack")
    (folder / "more").symlink_to("/etc/passwd")
    with pytest.raises(PackageRefused, match="is a link"):
        seal(folder)


def test_the_command_seals_checks_and_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = package(tmp_path / "pack", TENSOR, {"model.onnx": doubling()}, sealed=False)
    assert main(["seal", str(folder)]) == 0
    version = capsys.readouterr().out.strip()
    assert main(["check", str(folder)]) == 0
    assert capsys.readouterr().out.strip() == version
    (folder / "model.onnx").write_bytes(b"no graph")
    assert main(["check", str(folder)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
