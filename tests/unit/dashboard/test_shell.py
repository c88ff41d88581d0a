"""The page's files: found by name only, never outside of their folder, under a policy that runs nothing foreign."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.dashboard.shell import Shell
from tests.unit.dashboard.making import BASE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    static = tmp_path / "static"
    static.mkdir()
    (static / "index.html").write_text("<!doctype html>")
    (static / "main.js").write_text("1")
    (static / "__init__.py").write_text("secret")
    (tmp_path / "secret.txt").write_text("secret")
    (static / "folder.d").mkdir()
    return static


@pytest.fixture
def shell(folder: Path) -> Shell:
    return Shell(public_url=BASE, folder=folder)


def test_the_page_is_the_file_without_a_name(shell: Shell) -> None:
    page, named = shell.file(""), shell.file("index.html")
    assert page is not None
    assert page == named
    assert (page.content, page.content_type) == (b"<!doctype html>", "text/html; charset=utf-8")
    script = shell.file("main.js")
    assert script is not None
    assert script.content_type == "text/javascript; charset=utf-8"
    assert script.etag != page.etag


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "..",
        ".",
        "/etc/passwd",
        "..%2fsecret.txt",
        "main.js/",
        "main.js\0",
        "__init__.py",
        "folder.d",
        "nothing.js",
        "x" * 5_000 + ".js",
        "index.html\n",
        ".hidden.js",
        "MAIN.JS",
    ],
)
def test_no_other_name_leads_anywhere(shell: Shell, name: str) -> None:
    assert shell.file(name) is None


def test_a_file_that_changed_is_seen_with_another_etag(shell: Shell, folder: Path) -> None:
    before = shell.file("main.js")
    (folder / "main.js").write_text("2")
    os.utime(folder / "main.js", ns=(1, 1))
    after = shell.file("main.js")
    assert before is not None
    assert after is not None
    assert (after.content, after.etag != before.etag) == (b"2", True)


def test_pictures_may_come_from_the_public_url_and_scripts_only_from_here(shell: Shell) -> None:
    directives = dict(part.strip().partition(" ")[::2] for part in shell.policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == directives["connect-src"] == "'self'"
    assert directives["img-src"] == f"'self' {BASE} data: blob:"
    assert directives["media-src"] == f"'self' {BASE} blob:"
    assert directives["frame-ancestors"] == directives["base-uri"] == directives["form-action"] == "'none'"


@pytest.mark.parametrize("url", ["https://x.example; script-src *", "https://x.example/a b", "", "https://[::1"])
def test_no_public_url_widens_the_policy(url: str, folder: Path) -> None:
    try:
        policy = Shell(public_url=url, folder=folder).policy
    except ValueError:
        return
    assert "script-src 'self';" in policy
    assert "script-src *" not in policy


def test_the_shipped_page_is_there() -> None:
    page = Shell(public_url=BASE).file("")
    assert page is not None
    assert b"<script" in page.content
