"""Which class runs which kind of package. The only place that knows them all."""

from __future__ import annotations

from collections.abc import Callable

from local_backend.batcher import Kind
from local_backend.kinds.embedding import Embedding
from local_backend.kinds.image_to_image import ImageToImage
from local_backend.kinds.tensor import TensorModel
from local_backend.package import Package
from local_backend.session import Device

_KINDS: dict[str, Callable[..., Kind]] = {"image-to-image": ImageToImage, "tensor": TensorModel, "embedding": Embedding}


def open_kind(package: Package, *, device: Device, threads: int) -> Kind:
    """Open a package's model. Raises whatever its files deserve."""
    return _KINDS[package.manifest.kind](package, device=device, threads=threads)
