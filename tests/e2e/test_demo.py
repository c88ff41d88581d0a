"""The demonstration is run as the README says, and does what it says."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image


async def start(*arguments: str, folder: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        "demo",
        *arguments,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "160"},
    )


@pytest.mark.timeout(90)
async def test_it_shows_what_it_promises_and_then_prints_a_line_that_works(tmp_path: Path) -> None:
    """The whole of it once: every prediction ends while all providers die, and the picture is upscaled."""
    Image.linear_gradient("L").convert("RGB").resize((90, 60)).save(tmp_path / "given.png")
    process = await start("--keep", "given.png", folder=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    try:
        while not lines or not lines[-1].startswith("curl "):
            lines.append((await process.stdout.readline()).decode())
            assert lines[-1], "it ended without the line to try"
        curl = await asyncio.create_subprocess_shell(lines[-1], stdout=asyncio.subprocess.PIPE)
        answer, _ = await curl.communicate()
        assert b'"status":"succeeded"' in answer
        url = re.search(r"http://\S+?(?=/v1)", lines[-1])
        assert url is not None
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{url[0]}/livez")).status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url[0]}/livez")  # its processes went with it

    output = "".join(lines)
    assert "60 of 60 predictions ended" in output
    assert "thrifty is killed" in output
    assert "swift is killed" in output
    assert "steady is killed" in output
    assert re.search(r"fallback: the last resort", output)
    assert re.search(r"webhook +verified, id msg_", output)
    assert "60 webhooks arrived signed" in output
    with Image.open(tmp_path / "turnout-demo.png") as picture:
        assert picture.size == (180, 120)


async def test_a_file_that_is_no_picture_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    process = await start("notes.txt", folder=tmp_path)
    output, errors = (stream.decode() for stream in await process.communicate())
    assert process.returncode == 2
    assert output == ""
    assert errors.startswith("turnout: notes.txt: it cannot be read as a picture")
    assert errors.count("\n") == 1
