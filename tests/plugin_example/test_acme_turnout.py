"""The adapter against its recordings: what it has to send, what comes back, and what that means."""

from __future__ import annotations

from pathlib import Path

import pytest
from acme_turnout import Acme

from gateway.testing.recording import missing_cases, play, read_recording, recordings

FOLDER = Path(__file__).parent / "recordings"


def test_every_case_is_recorded_or_excused() -> None:
    assert missing_cases(FOLDER) == set()


@pytest.mark.parametrize("path", recordings(FOLDER), ids=lambda path: path.stem)
def test_recording_is_understood(path: Path) -> None:
    recording = read_recording(path)
    play(Acme(options=recording.options), recording)
