"""Which device a session is really on, and that nothing pretends."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnxruntime
import pytest

from gateway.contract.errors import ConfigurationError
from local_backend.session import DeviceLost, Session, choose_device, count_cuda_devices
from tests.unit.local_backend.making import doubling

without_gpu = pytest.mark.skipif(count_cuda_devices() > 0, reason="says what happens without a CUDA device")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    (tmp_path / "m.onnx").write_bytes(doubling())
    return tmp_path / "m.onnx"


@without_gpu
def test_wanting_cuda_without_a_device_is_an_error_and_auto_is_the_cpu() -> None:
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(ConfigurationError, match="device = "):
        choose_device("cuda")


@without_gpu
def test_a_session_that_silently_landed_on_the_cpu_is_not_passed_off_as_cuda(graph: Path) -> None:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime is built without CUDA")
    with pytest.raises(DeviceLost):
        Session(graph, device="cuda", threads=1)


def test_a_driver_that_shows_devices_is_not_yet_a_usable_cuda(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Stuck:
        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]  # what ONNX Runtime answers when CUDA did not load

    monkeypatch.setattr("local_backend.session.count_cuda_devices", lambda: 1)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcublas"), raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: Stuck())
    assert choose_device("auto") == "cpu"
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        choose_device("cuda")
    assert capfd.readouterr().out == ""  # standard output belongs to the ready line


def test_a_failing_run_does_not_rebuild_the_session_elsewhere(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(graph, device="cpu", threads=1)
    made: list[Any] = []
    monkeypatch.setattr(session._session, "_create_inference_session", lambda *args: made.append(args))

    def lost(*_: Any) -> None:
        raise onnxruntime.capi.onnxruntime_pybind11_state.EPFail("the device is gone")

    monkeypatch.setattr(
        session._session, "_sess", Mock(**{"run": lost, "is_webgpu_graph_capture_enabled.return_value": False})
    )
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.EPFail):
        session.run({"x": np.ones((1, 3), np.float32)})
    assert made == []


def test_inputs_and_outputs_are_told_as_the_graph_declares_them(graph: Path) -> None:
    session = Session(graph, device="cpu", threads=1)
    assert [(t.name, t.dtype, t.shape) for t in session.inputs] == [("x", "float32", (None, 3))]
    assert session.device == "cpu"
