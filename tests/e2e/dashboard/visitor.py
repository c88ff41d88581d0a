"""Somebody who opens the dashboard, and notes what must never happen on it. Clicks nothing by itself."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, Self

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from tests.e2e.dashboard.peer import KEY

DESKTOP = (1440, 900)
PHONE = (390, 844)
_FAILED_LOAD = "Failed to load resource"  # what the browser says itself of every status of 400 and more

expect.set_options(timeout=8_000)


class Visitor:
    """
    `open` gives a page that is signed in. `judge` raises AssertionError for errors in the console, uncaught errors,
    dialogs of scripts, requests to other origins, and violations of the content policy, on any page opened.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._wrong: list[str] = []
        self.expects_refusals = False  # the test makes the gateway refuse

    def open(
        self,
        url: str,
        address: str = "#/",
        *,
        size: tuple[int, int] = DESKTOP,
        theme: Literal["light", "dark"] = "light",
        key: str | None = KEY,
    ) -> Page:
        page = self.blank(size=size, theme=theme, key=key)
        self._watch(page, url)
        page.goto(f"{url}/dashboard{address}")
        return page

    def blank(self, *, size: tuple[int, int], theme: Literal["light", "dark"], key: str | None) -> Page:
        width, height = size
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
        )
        self._contexts.append(context)
        if key is not None:
            # Once in a tab: a page that forgets it stays without.
            context.add_init_script(
                "if (sessionStorage.getItem('visited') === null) {"
                f" sessionStorage.setItem('visited', '1'); sessionStorage.setItem('turnout.key', '{key}'); }}"
            )
        return context.new_page()

    def judge(self) -> None:
        assert not self._wrong, "\n".join(self._wrong)

    def _watch(self, page: Page, url: str) -> None:
        def refuse(kind: str, what: str) -> None:
            self._wrong.append(f"{kind}: {what}")

        def on_console(message: ConsoleMessage) -> None:
            is_refusal = self.expects_refusals and message.text.startswith(_FAILED_LOAD)
            if message.type in ("error", "warning") and not is_refusal:
                refuse("console", message.text[:500])

        def on_request(address: str) -> None:
            if not address.startswith((f"{url}/", "data:", "blob:")):
                refuse("request", address[:500])

        page.on("console", on_console)
        page.on("pageerror", lambda error: refuse("uncaught", str(error)[:500]))
        page.on("request", lambda request: on_request(request.url))
        page.on("dialog", lambda dialog: (refuse("dialog", dialog.message[:500]), dialog.dismiss()))
        page.on("popup", lambda popup: refuse("popup", popup.url[:500]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for context in self._contexts:
            context.close()
