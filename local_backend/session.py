"""ONNX Runtime: one graph, on CUDA if that really works, else on the CPU, and truthful about which. Queues nothing."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnxruntime

from gateway.contract.errors import ConfigurationError
from local_backend.graph import build_probe

Device = Literal["cuda", "cpu"]
Array = np.ndarray[Any, Any]

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
# Names checked by hand: where CUDA cannot be loaded ONNX Runtime lets unknown ones pass in silence.
_CUDA_OPTIONS = {
    "device_id": "0",
    "arena_extend_strategy": "kSameAsRequested",  # the default doubles, and an arena never shrinks by itself
    "cudnn_conv_algo_search": "HEURISTIC",  # the default benchmarks every new shape, and ours are dynamic
}
_log = logging.getLogger("local_backend.session")
# Sessions of one device are made one after another: creating them side by side has crashed drivers.
_creation = threading.Lock()


class Tensor(msgspec.Struct, kw_only=True, frozen=True):
    """An input or output as the graph declares it; dimensions that are not fixed are None."""

    name: str
    dtype: str  # numpy's name, or "str"
    shape: tuple[int | None, ...]


class Session:
    """
    A graph ready to run. Thread-safe for `run`.

    `device` is where it really is: ONNX Runtime turns a CUDA session that cannot load into a CPU one without a word.
    """

    def __init__(self, path: Path, *, device: Device, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1 if device == "cuda" else threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        providers: list[Any] = [(_CUDA, _CUDA_OPTIONS), _CPU] if device == "cuda" else [_CPU]
        with _creation:
            # By path, never by bytes: a model given as bytes may read its data from the working directory.
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        # Without this a CUDA error in a run quietly rebuilds the session on the CPU.
        self._session.disable_fallback()
        self.device: Device = "cuda" if self._session.get_providers()[0] == _CUDA else "cpu"
        if self.device != device:
            raise DeviceLost(f"{path.name}: CUDA could not be used for this graph")
        self.inputs = tuple(_tensor(value) for value in self._session.get_inputs())
        self.outputs = tuple(_tensor(value) for value in self._session.get_outputs())

    def run(self, feeds: dict[str, Array], *, outputs: list[str] | None = None, options: Any = None) -> list[Array]:
        """Blocks, with the GIL released. Raises what ONNX Runtime raises."""
        result: list[Array] = self._session.run(outputs, feeds, options)
        return result


class DeviceLost(Exception):
    """A session did not land on the device it was asked for."""


_DTYPES = {"float": "float32", "double": "float64", "string": "str"}


def _tensor(value: Any) -> Tensor:
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    return Tensor(
        name=value.name,
        dtype=_DTYPES.get(kind, kind),
        shape=tuple(size if isinstance(size, int) and size >= 0 else None for size in value.shape),
    )


def choose_device(wanted: Literal["auto", "cuda", "cpu"]) -> Device:
    """
    The device that sessions can really use. Loads CUDA only if it is wanted and a device answers.

    Raises ConfigurationError if `cuda` is wanted and not to be had.
    """
    if wanted == "cpu":
        return "cpu"
    reason = _cuda_problem()
    if reason is None:
        return "cuda"
    if wanted == "cuda":
        raise ConfigurationError(f'[local] device = "cuda": {reason}; mend that, or set device = "auto"')
    _log.info("running on the CPU: %s", reason)
    return "cpu"


def _cuda_problem() -> str | None:
    if _CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime is built without CUDA (install onnxruntime-gpu)"
    if not count_cuda_devices():
        return "the NVIDIA driver shows no device"
    with contextlib.redirect_stdout(sys.stderr):  # it prints what it misses, and returns as if nothing were wrong
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(build_probe(), options, providers=[(_CUDA, _CUDA_OPTIONS), _CPU])
    if session.get_providers()[0] != _CUDA:
        return "CUDA's libraries cannot be loaded (pip install 'onnxruntime-gpu[cuda,cudnn]')"
    return None


def count_cuda_devices() -> int:
    """What the driver says, asked without loading CUDA's gigabytes; 0 if there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1" if os.name == "posix" else "nvcuda.dll")
        count = ctypes.c_int(0)
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value


def default_threads() -> int:
    """One thread per core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def runtime_version() -> str:
    version: str = onnxruntime.__version__
    return version
