"""A visit to the pages in a real browser: how controls are found and filled, and when something has happened.

Anything that goes wrong on the way is a trouble of the visit: an error of a script, a request that fails or is refused,
a request to another server.
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    Response,
    Route,
    expect,
)

PAGES = (
    "txt2img", "img2img", "extras", "png_info", "merger", "train",
    "gallery", "jobs", "models", "settings", "extensions", "api",
)  # fmt: skip
"""Names of the pages, in the order of their tabs."""

FILLED = {
    "gallery": "#gallery-status:not(:empty)",
    "jobs": "#jobs-status:not(:empty)",
    "models": "#models-grid li",
    "settings": "#settings-list [data-option]",
    "extensions": "#extensions-status:not(:empty)",
    "merger": "#merger-a input",
}
"""What is there once a page has asked the server for what it shows."""

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 4}
"""A picture that is drawn in no time."""

LONG: dict[str, Any] = {"width": 128, "height": 128, "steps": 150, "batch_size": 8, "n_iter": 6}
"""One that is drawn as long as it takes to do something meanwhile; whoever asks for it stops it."""


@dataclass
class Visit:
    """One tab of a browser on one server."""

    page: Page
    url: str
    troubles: list[str] = field(default_factory=list)
    forgiven: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.troubles.append(f"script: {error}"))
        self.page.on("requestfailed", self._miss)
        self.page.on("response", self._note)

    def forgive(self, part: str) -> None:
        """Do not count troubles in which this stands: the test causes them."""
        self.forgiven.append(part)

    def check(self) -> None:
        """Nothing went wrong."""
        found = [trouble for trouble in self.troubles if not any(part in trouble for part in self.forgiven)]
        assert found == [], "\n".join(found)

    def open(self, tab: str = "txt2img", query: str = "") -> "Visit":
        """Load the pages and show one."""
        self.page.goto(f"{self.url}/ui/{query}")
        self.page.locator("#txt2img-generate").wait_for()
        self.page.wait_for_function("window.darkroom !== undefined")
        self.page.wait_for_load_state("networkidle")  # lists are filled, and what follows from the checkpoint
        return self.show(tab)

    def show(self, tab: str) -> "Visit":
        """Show a page by its tab."""
        button = self.page.locator(f"#tab-{tab}-button")
        if button.count() and button.is_visible():
            button.click()
        else:  # on narrow screens the tab is in a menu
            self.page.evaluate("(tab) => window.darkroom.choose(tab)", tab)
        self.page.locator(f"#tab-{tab}").wait_for(state="visible")
        if tab in FILLED:
            self.page.locator(FILLED[tab]).first.wait_for(state="attached")
        return self

    def find(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def put(self, page: str, **values: Any) -> None:
        """Fill controls, as a person does."""
        for name, value in values.items():
            self._fill(self.page.locator(f"#{page}-{name}"), value)

    def _fill(self, control: Locator, value: Any) -> None:
        control.locator("input, textarea").first.wait_for(state="attached")
        if isinstance(value, bool):
            control.locator("input[type=checkbox]").set_checked(value)
            return
        choice = control.locator("input[role=combobox], input[role=listbox]")
        if choice.count():
            choice.click()
            choice.fill(str(value))
            self.page.get_by_role("option", name=str(value), exact=True).first.click()
            expect(choice).to_have_value(str(value))
            return
        box = control.locator("textarea, input[type=number], input[type=text]").first
        box.fill(str(value))
        box.blur()

    def begin(self, page: str = "txt2img") -> Locator:
        """Press the page's button; the card that appears."""
        with self.new_card(page) as found:
            self.page.locator(f"#{page}-generate").click()
        return found[0]

    @contextmanager
    def new_card(self, page: str) -> Iterator[list[Locator]]:
        """The card that appears when something is done. It is in the list on leaving."""
        box = self.page.locator(f"#{page}-results")
        known: list[str] = box.locator(".dk-card").evaluate_all("(cards) => cards.map((card) => card.id)")
        found: list[Locator] = []
        yield found
        newest = box.locator(".dk-card" + "".join(f":not(#{one})" for one in known)).first
        newest.wait_for()
        name = newest.get_attribute("id")
        found.append(self.page.locator(f"#{name}"))

    def made(self, page: str = "txt2img", **values: Any) -> Locator:
        """The card of a job that is done."""
        self.put(page, **values)
        return self.done(self.begin(page))

    def done(self, card: Locator, state: str = "done") -> Locator:
        """Wait until a job has ended as it should."""
        expect(card).to_have_attribute("data-state", state, timeout=60_000)
        return card

    def picture(self, card: Locator) -> bytes:
        """The file that the card shows."""
        source = card.locator(".dk-picture img").first.get_attribute("src")
        assert source is not None
        answer = self.page.request.get(self.url + source)
        assert answer.ok
        return answer.body()

    def request_of(self, card: Locator) -> tuple[str, dict[str, Any]]:
        """The route and the JSON that *Show request* has; both as they are copied."""
        card.locator("[data-act=request]").click()
        dialog = self.page.locator("#request")
        told = dialog.locator("p:not([role=status])").first.inner_text()
        dialog.locator("#request-json").get_by_role("button").first.click()
        body = json.loads(self.page.evaluate("navigator.clipboard.readText()"))
        self.page.keyboard.press("Escape")
        dialog.wait_for(state="detached")
        return told.rsplit(" ", 1)[-1], body

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.troubles.append(f"console: {message.text} ({message.location.get('url')})")

    def _miss(self, request: Request) -> None:
        if request.failure not in {"net::ERR_ABORTED", None}:  # what a tab that goes elsewhere no longer waits for
            self.troubles.append(f"{request.failure}: {request.url}")

    def _note(self, response: Response) -> None:
        if response.status >= 400:
            self.troubles.append(f"{response.status}: {response.url}")


def keep_inside(context: BrowserContext, url: str, troubles: list[str]) -> None:
    """Let a browser reach this server and no other."""

    def decide(route: Route) -> None:
        wanted = route.request.url
        if wanted.startswith((url + "/", "data:", "blob:")):
            route.continue_()
        else:
            troubles.append(f"elsewhere: {wanted}")
            route.abort()

    context.route("**/*", decide)


def as_image(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def as_png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format="PNG")
    return sink.getvalue()
