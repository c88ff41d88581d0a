"""Which ONNX Runtime distribution is installed, read from metadata. Imports none of it."""

from __future__ import annotations

import importlib.metadata

import msgspec

from gateway.contract.errors import ConfigurationError

_DISTRIBUTIONS = ("onnxruntime-gpu", "onnxruntime")


class Runtime(msgspec.Struct, kw_only=True, frozen=True):
    """The installed distribution."""

    distribution: str
    version: str


def installed_runtime() -> Runtime:
    """
    The one installed distribution. Raises ConfigurationError if there is none, or both.

    Both write the same folder: whichever came last wins, and removing either breaks the other.
    """
    found = []
    for name in _DISTRIBUTIONS:
        try:
            found.append(Runtime(distribution=name, version=importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    if not found:
        raise ConfigurationError("onnxruntime: is not installed; pip install onnxruntime-gpu (or onnxruntime)")
    if len(found) > 1:
        keep = found[0]
        raise ConfigurationError(
            "onnxruntime: both onnxruntime-gpu and onnxruntime are installed, and they overwrite each other; "
            "pip uninstall -y onnxruntime && "
            f"pip install --force-reinstall --no-deps {keep.distribution}=={keep.version}"
        )
    return found[0]
