"""On a CUDA device: that it is really used, and gives what the CPU gives. Skipped, and said so, without one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from gateway.contract.clock import SystemClock
from local_backend.kinds.image_to_image import ImageToImage
from local_backend.package import BUNDLED, load
from local_backend.session import Session, choose_device, count_cuda_devices
from local_backend.supervisor import LocalBackend
from tests.unit.local_backend.conftest import run_here
from tests.unit.local_backend.making import data_uri, doubling, encoded, opened, picture

__all__ = ["run_here"]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),  # the first CUDA context and its libraries take their time
    pytest.mark.skipif(count_cuda_devices() == 0, reason="no CUDA device on this machine"),
]


def test_cuda_is_chosen_and_a_session_is_really_on_it(tmp_path: Path) -> None:
    assert choose_device("auto") == choose_device("cuda") == "cuda"
    (tmp_path / "m.onnx").write_bytes(doubling())
    session = Session(tmp_path / "m.onnx", device="cuda", threads=1)
    assert session.device == "cuda"
    assert session._session.get_providers()[0] == "CUDAExecutionProvider"
    (result,) = session.run({"x": np.ones((2, 3), np.float32)})
    assert (result == 2).all()


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
async def test_the_upscaler_gives_on_cuda_what_it_gives_on_the_cpu(
    scale: int, mode: str, tmp_path: Path, run_here: object
) -> None:
    assert choose_device("cuda") == "cuda"
    package = load(BUNDLED / "upscaler", into=tmp_path)
    given = {"image": data_uri(encoded(picture(700, 333, mode))), "scale": scale}
    results = []
    for device in ("cpu", "cuda"):
        kind = ImageToImage(package, device=device, threads=2)  # type: ignore[arg-type]
        (job,) = run_here(kind, given)  # type: ignore[operator]
        assert f"on {device.upper()}" in job.logs
        results.append(np.asarray(opened(job.output).convert("RGB")).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 2


async def test_the_child_says_that_it_is_on_cuda() -> None:
    backend = LocalBackend(clock=SystemClock(), device="cuda")
    try:
        await backend.start()
        assert await backend.wait_ready(240)
        assert backend.device == "cuda"
    finally:
        await backend.aclose()
    await asyncio.sleep(0)
