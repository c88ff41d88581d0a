"""A real Chromium, pages that are watched for all that must not happen, and gateways for them to look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.e2e.dashboard.peer import OpsPeer
from tests.e2e.dashboard.scene import Scene
from tests.e2e.dashboard.visitor import Visitor

REQUIRED = "TURNOUT_REQUIRE_CHROMIUM"

Serve = Callable[[Scene], OpsPeer]


# Not for the whole session: its loop would be in the way of asynchronous tests in other folders.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{REQUIRED}=1, but there is no chromium on the PATH")
        pytest.skip("there is no chromium on the PATH: install Debian's package of that name")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(scene) is a peer that shows it."""
    with ExitStack() as stack:
        yield lambda scene: stack.enter_context(OpsPeer(scene))


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """Opens pages; fails the test if one of them did what no page of ours may do."""
    with Visitor(browser) as visitor:
        yield visitor
        visitor.judge()


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)
