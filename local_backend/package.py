"""Packages on disk: found, checked, copied into private keeping, described for the catalog, sealed. Runs no model.

`python -m local_backend.package seal DIR` writes sizes and hashes of the folder's files into its manifest;
`… check DIR` loads a package as the server would and says its version.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.contract.errors import ConfigurationError
from gateway.contract.model import Model, Version
from gateway.contract.money import Price
from gateway.contract.route import Offer
from local_backend.manifest import MANIFEST, MAX_MANIFEST_BYTES, Manifest, PackageRefused, parse, path_problem

BUNDLED = Path(__file__).parent / "packages"
MAX_PACKAGE_BYTES = 64 * 2**30
_MAX_FILES = 256
_CHUNK_BYTES = 1 << 20


class Package(msgspec.Struct, kw_only=True, frozen=True):
    """A package that may be run. `folder` is a private copy whose bytes were verified; `source` where it came from."""

    manifest: Manifest
    source: Path
    folder: Path

    @property
    def version(self) -> str:
        return self.manifest.version

    def schema(self) -> dict[str, object]:
        return self.manifest.schema()

    def path(self, name: str) -> Path:
        return self.folder / name


def find(paths: Iterable[str | Path]) -> tuple[Path, ...]:
    """The package folders in `paths`, each of which is a package or a folder of packages. Raises ConfigurationError."""
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        try:
            entries = sorted(entry.path for entry in os.scandir(path))
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read ({error.strerror}); name a folder of packages") from None
        folders = [path] if (path / MANIFEST).exists() else [Path(e) for e in entries if (Path(e) / MANIFEST).exists()]
        if not folders:
            raise ConfigurationError(f"{path}: holds no package; a package is a folder with a {MANIFEST}")
        found |= dict.fromkeys(folder.resolve() for folder in folders)
    return tuple(found)


def read(folder: Path) -> tuple[Manifest, datetime]:
    """A package's manifest and its time, with names, kinds and sizes of its files checked. Hashes are not. Cheap."""
    with _opened(folder) as root:
        manifest, changed_at = _read_manifest(root, folder)
        _check_listing(root, folder, manifest)
        return manifest, manifest.created_at or changed_at


def load(folder: str | Path, *, into: Path | None = None) -> Package:
    """
    Check a package wholly and copy it to a new private folder (mode 0700) in `into`, by default the temporary one.

    Only bytes that were hashed on their way into the copy are ever given to ONNX Runtime. That is why a hard link is
    no threat and not refused (installers make them): it shows nothing but content whose hash the manifest knew.
    Raises PackageRefused.
    """
    private = Path(tempfile.mkdtemp(prefix="package-", dir=into))
    try:
        return _load(Path(folder), private)
    except BaseException:
        shutil.rmtree(private, ignore_errors=True)
        raise


def _load(folder: Path, private: Path) -> Package:
    with _opened(folder) as root:
        manifest, _ = _read_manifest(root, folder)
        _check_listing(root, folder, manifest)
        for file in manifest.files:
            target = private / file.path
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            digest = _copy(root, file.path, target, file.bytes)
            if digest != file.sha256:
                raise PackageRefused(
                    f"{folder / file.path}: its content is not what {MANIFEST} says (SHA-256 {digest[:12]}…, "
                    f"expected {file.sha256[:12]}…); restore the file, or seal the package anew"
                )
    _audit(folder, private, manifest)
    return Package(manifest=manifest, source=folder, folder=private)


def _audit(folder: Path, private: Path, manifest: Manifest) -> None:
    from local_backend.audit import Unfit, audit  # here, because the gateway describes packages without onnx

    sizes = {file.path: file.bytes for file in manifest.files}
    graphs = {path for path in sizes if path.endswith(".onnx")}
    graphs |= {path for path in manifest.parameters.files if not path.endswith(".json")}
    for path in sorted(graphs):
        try:
            audit(private / path, path, sizes)
        except Unfit as unfit:
            raise PackageRefused(f"{folder / path}: {unfit}") from None


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise PackageRefused(f"{folder}: cannot be read ({error.strerror}); name a package's folder") from None
    try:
        yield root
    except OSError as error:
        raise PackageRefused(
            f"{error.filename or folder}: cannot be read ({error.strerror}); check its rights"
        ) from None
    finally:
        os.close(root)


def _open_inside(root: int, path: str) -> int:
    """Open a regular file below `root` without following any link on the way. Raises PackageRefused or OSError."""
    *folders, name = path.split("/")
    here = os.dup(root)
    try:
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        # O_NONBLOCK: opening a named pipe would wait for its writer.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise PackageRefused(f"{path}: is no regular file; put a plain file there")
    return file


def _read_manifest(root: int, folder: Path) -> tuple[Manifest, datetime]:
    place = str(folder / MANIFEST)
    try:
        file = os.open(MANIFEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
    except OSError as error:
        raise PackageRefused(f"{place}: cannot be read ({error.strerror}); write it as a plain file") from None
    with os.fdopen(file, "rb") as source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_MANIFEST_BYTES:
            raise PackageRefused(f"{place}: is no plain file under 1 MiB; write it as one")
        manifest = parse(source.read(MAX_MANIFEST_BYTES + 1), place)
    return manifest, datetime.fromtimestamp(int(status.st_mtime), UTC)


def _listing(root: int, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Every entry below `root` that is no folder, by its relative path; links as links."""
    with os.scandir(root) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if path.count("/") >= 4:
                    raise PackageRefused(f"{path}: is nested too deep; move it up")
                below = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
                try:
                    yield from _listing(below, path + "/")
                finally:
                    os.close(below)
            else:
                yield path, entry.stat(follow_symlinks=False)


def _check_listing(root: int, folder: Path, manifest: Manifest) -> None:
    expected = {file.path: file.bytes for file in manifest.files}
    if len(expected) > _MAX_FILES or sum(expected.values()) > MAX_PACKAGE_BYTES:
        raise PackageRefused(
            f"{folder / MANIFEST}: lists over {_MAX_FILES} files or {MAX_PACKAGE_BYTES >> 30} GiB; make it smaller"
        )
    for path, status in _listing(root):
        if path == MANIFEST:
            continue
        place = folder / path
        if not stat.S_ISREG(status.st_mode):
            raise PackageRefused(f"{place}: is a link or no regular file; put a plain file there")
        if path not in expected:
            raise PackageRefused(f"{place}: is not listed in {MANIFEST}; list it under [[files]], or delete it")
        size = expected.pop(path)
        if status.st_size != size:
            raise PackageRefused(
                f"{place}: has {status.st_size} bytes, {MANIFEST} says {size}; restore it, or seal the package anew"
            )
    for path in expected:
        raise PackageRefused(f"{folder / path}: is missing; restore it, or take it out of {MANIFEST}")


def _copy(root: int, path: str, target: Path, size_bytes: int) -> str:
    """Copy at most `size_bytes` + 1 bytes of a file; returns the SHA-256 of what was written."""
    digest = hashlib.sha256()
    left = size_bytes + 1
    with os.fdopen(_open_inside(root, path), "rb") as source, target.open("xb") as copy:
        while left and (chunk := source.read(min(left, _CHUNK_BYTES))):
            digest.update(chunk)
            copy.write(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def describe(paths: Iterable[str | Path], *, price: Price | None = None, provider: str = "local") -> tuple[Model, ...]:
    """
    The models that the packages in `paths` make, each with one fallback offer per version, for the catalog.

    Of several versions the last one found is the default. Reads manifests only, and imports neither onnx nor
    onnxruntime. Raises ConfigurationError.
    """
    manifests: dict[str, dict[str, tuple[Manifest, datetime]]] = {}
    for folder in find(paths):
        manifest, created_at = read(folder)
        manifests.setdefault(manifest.name, {})[manifest.version] = (manifest, created_at)
    return tuple(
        _model(list(reversed(versions.values())), price or Price(), provider) for versions in manifests.values()
    )


def _model(versions: list[tuple[Manifest, datetime]], price: Price, provider: str) -> Model:
    newest, created_at = versions[0]
    owner, name = newest.owner_and_name
    return Model(
        owner=owner,
        name=name,
        description=newest.description,
        default_version=newest.version,
        versions=tuple(Version(id=m.version, created_at=when, schema=m.schema()) for m, when in versions),
        offers=tuple(
            Offer(
                id=f"{m.name}@{provider}" + (f"#{number}" if number > 1 else ""),
                model=m.name,
                provider=provider,
                name=m.name,
                version=m.version,
                remote_version=m.version,
                price=price,
                capabilities=frozenset({"cancel"}),
                is_fallback=True,
                options={"wait": True, "idempotent": True},
            )
            for number, (m, _) in enumerate(versions, 1)
        ),
        created_at=min(created_at, *(when for _, when in versions)),
    )


_FILE_TABLES = re.compile(r"(?ms)^\[\[files\]\]\s*?$.*?(?=^\[|\Z)")


def seal(folder: str | Path) -> str:
    """
    Write the sizes and hashes of every file in `folder` into its manifest, as [[files]] at its end; its version.

    The rest of the manifest, comments too, stays as it is. Raises PackageRefused for links and unfit names.
    """
    folder = Path(folder)
    with _opened(folder) as root:
        tables = []
        for path, status in _listing(root):
            if path == MANIFEST:
                continue
            problem = path_problem(path)
            if problem or not stat.S_ISREG(status.st_mode):
                raise PackageRefused(f"{folder / path}: {problem or 'is a link or no regular file; replace it'}")
            with os.fdopen(_open_inside(root, path), "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            tables.append(f'[[files]]\npath = "{path}"\nsha256 = "{digest}"\nbytes = {status.st_size}\n')
        place = folder / MANIFEST
        text = _FILE_TABLES.sub("", place.read_text(encoding="utf-8")).rstrip() + "\n\n" + "\n".join(tables)
    manifest = parse(text.encode(), str(place))
    fresh = place.with_name(f".{MANIFEST}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(place)
    return manifest.version


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m local_backend.package", description="Seal or check a package.")
    parser.add_argument("verb", choices=("seal", "check"))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.verb == "seal":
            version = seal(options.folder)
        else:
            with tempfile.TemporaryDirectory(prefix="turnout-") as private:
                version = load(options.folder, into=Path(private)).version
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{version}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
