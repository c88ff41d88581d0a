from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from gateway.config.secret import Secret, SecretMissing, resolve


def test_a_secret_shows_itself_in_no_way_of_printing() -> None:
    secret = Secret("hunter2-canary")
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>10}", "%s" % secret, repr({"a": [secret]})]  # noqa: UP031 - one of the ways
    assert all("hunter2" not in text and "***" in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret.reveal() == "hunter2-canary"


def test_a_secret_comes_from_the_environment_or_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    assert resolve("env:T", environ={"T": "from-env"}, folder=tmp_path).reveal() == "from-env"
    assert resolve("file:token", environ={}, folder=tmp_path).reveal() == "from-file"
    assert resolve(f"file:{tmp_path}/token", environ={}, folder=Path("/")).reveal() == "from-file"


@pytest.mark.parametrize("literal", ["r8_literal-canary", "https://literal-canary", "ENV:literal-canary", "env:", ":x"])
def test_a_secret_written_out_is_refused_and_not_repeated(literal: str, tmp_path: Path) -> None:
    with pytest.raises(SecretMissing) as refused:
        resolve(literal, environ={}, folder=tmp_path)
    assert "not written out" in refused.value.problem
    assert "literal-canary" not in refused.value.problem + refused.value.remedy
    assert "env:NAME" in refused.value.remedy


@pytest.mark.parametrize("value", ["", " ", "a\nb-canary", "a\r-canary", "a\t-canary", " a-canary", "a\0-canary"])
def test_a_value_that_could_break_a_header_is_refused_and_not_repeated(value: str, tmp_path: Path) -> None:
    with pytest.raises(SecretMissing) as refused:
        resolve("env:T", environ={"T": value}, folder=tmp_path)
    assert "environment variable T" in refused.value.problem
    assert "canary" not in refused.value.problem


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent", None, "No such file or directory"),
        ("empty", b"", "is empty"),
        ("binary", b"\xff\xfe\x00", "not UTF-8"),
        ("lines", b"one\ntwo\n", "line breaks"),
    ],
)
def test_a_file_that_holds_no_secret_is_named(name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SecretMissing) as refused:
        resolve(f"file:{name}", environ={}, folder=tmp_path)
    assert said in refused.value.problem
    assert str(tmp_path / name) in refused.value.problem
