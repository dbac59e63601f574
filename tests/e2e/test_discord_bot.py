"""The Discord bot of the examples, with the real discord.py, on a gateway that is none, with a real server."""

import asyncio
import importlib.util
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from darkroom.client import AsyncClient
from tests.e2e.fake_discord import EPHEMERAL, Answer, FakeDiscord
from tests.e2e.serving import Server, picture

# Until Python 3.13 discord.py takes the sounds of voice channels from a module that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:'audioop' is deprecated:DeprecationWarning")

TOKEN = "a.fake.token"
SMALL = {"steps": 4, "width": 64, "height": 64}

Story = Callable[[FakeDiscord], Awaitable[None]]


@pytest.fixture
def bot(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module that changes its messages as often as it can."""
    found = importlib.util.spec_from_file_location("discord_bot", repository / "examples/discord_bot.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    monkeypatch.setattr(module, "EDIT_S", 0.0)
    return module


@asynccontextmanager
async def connected(bot: ModuleType, url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeDiscord]:
    import discord
    import yarl

    async with FakeDiscord(TOKEN).serving() as fake, AsyncClient(url) as darkroom, bot.Bot(darkroom) as client:
        monkeypatch.setattr(discord.http.Route, "BASE", f"{fake.url}/api")
        gateway = yarl.URL(f"ws://127.0.0.1:{fake.port}/gateway/")
        monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", gateway)
        running = asyncio.ensure_future(client.start(TOKEN))
        ready = asyncio.ensure_future(fake.until_ready())
        await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
        assert not running.done(), running.exception()
        yield fake
        await client.close()
        await running


@pytest.fixture
def tell(bot: ModuleType, server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[Story], None]:
    """Runs what people do with a bot that is connected."""

    def run(story: Story, url: str = server.url) -> None:
        async def all_of_it() -> None:
            async with connected(bot, url, monkeypatch) as fake:
                await story(fake)

        asyncio.run(all_of_it())

    return run


def is_done(answer: Answer) -> bool:
    return bool(answer.files)


def says(words: str) -> Callable[[Answer], bool]:
    return lambda answer: words in answer.text


def drawn(answer: Answer) -> list[Image.Image]:
    return [picture(data) for data in answer.files.values()]


def as_png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format="PNG")
    return sink.getvalue()


def test_its_commands_say_what_they_take(tell: Callable[[Story], None]) -> None:
    async def story(fake: FakeDiscord) -> None:
        assert set(fake.commands) == {"draw", "vary", "upscale"}
        options = {option["name"]: option for option in fake.commands["draw"]["options"]}
        assert options["prompt"]["required"]
        assert (options["prompt"]["min_length"], options["prompt"]["max_length"]) == (1, 1000)
        assert (options["count"]["min_value"], options["count"]["max_value"]) == (1, 4)
        assert all(option["description"] != "…" for entry in fake.commands.values() for option in entry["options"])

    tell(story)


def test_drawing_shows_progress_then_pictures_with_buttons(tell: Callable[[Story], None]) -> None:
    async def story(fake: FakeDiscord) -> None:
        answer = await fake.command("draw", prompt="a *red* apple @everyone", count=2, seed=5, steps=20)
        await answer.until(is_done)
        assert [image.size for image in drawn(answer)] == [(128, 128), (128, 128)]
        assert set(answer.files) == {"picture-5.png", "picture-6.png"}
        assert answer.text.startswith(r"**a \*red\* apple @everyone** · seed 5, 6 · 128×128")
        assert list(answer.buttons) == ["Vary 1", "Vary 2", "Upscale 1", "Upscale 2"]
        assert answer.states[-1]["allowed_mentions"] == {"parse": []}
        before = [state["content"] for state in answer.states[:-1]]
        assert any("%" in text for text in before), before

    tell(story)


def test_a_picture_is_varied_and_enlarged_by_its_buttons(tell: Callable[[Story], None]) -> None:
    async def story(fake: FakeDiscord) -> None:
        first = await (await fake.command("draw", prompt="a red apple", seed=5, **SMALL)).until(is_done)
        varied = await (await fake.press(first.buttons["Vary"])).until(is_done)
        assert drawn(varied)[0].size == (64, 64)
        assert list(varied.files.values()) != list(first.files.values())
        text = drawn(varied)[0].info["parameters"]
        assert "a red apple" in text
        assert "Variation seed strength: 0.35" in text
        larger = await (await fake.press(first.buttons["Upscale"])).until(is_done)
        assert drawn(larger)[0].size == (128, 128)
        assert larger.buttons == {}

    tell(story)


def test_a_picture_of_ones_own_is_varied_and_enlarged(tell: Callable[[Story], None], photo: Image.Image) -> None:
    async def story(fake: FakeDiscord) -> None:
        mine = fake.attachment(as_png(photo), "image/png", photo.size)
        varied = await (await fake.command("vary", picture=mine, prompt="an apple", change=40)).until(is_done)
        assert drawn(varied)[0].size == photo.size
        assert "Denoising strength: 0.4" in drawn(varied)[0].info["parameters"]
        again = await (await fake.press(varied.buttons["Vary"])).until(is_done)
        assert "Denoising strength: 0.5" in drawn(again)[0].info["parameters"]
        larger = await (await fake.command("upscale", picture=mine, factor=1.5)).until(is_done)
        assert drawn(larger)[0].size == (192, 192)

    tell(story)


def test_what_is_no_picture_or_too_large_a_one_is_refused_in_words(tell: Callable[[Story], None]) -> None:
    async def story(fake: FakeDiscord) -> None:
        text = fake.attachment(b"hello", "text/plain", None)
        await (await fake.command("upscale", picture=text)).until(says("That is not a picture."))
        lies = fake.attachment(b"hello", "image/png", (64, 64))
        await (await fake.command("upscale", picture=lies)).until(says("Not possible: "))
        huge = fake.attachment(b"", "image/png", (5000, 5000))
        await (await fake.command("vary", picture=huge, prompt="x")).until(says("That picture is too large"))
        large = fake.attachment(b"", "image/png", (2000, 2000))
        await (await fake.command("upscale", picture=large, factor=4.0)).until(says("would become too large"))

    tell(story)


def test_a_refusal_of_the_server_is_shown_in_its_words(tell: Callable[[Story], None]) -> None:
    async def story(fake: FakeDiscord) -> None:
        answer = await fake.command("draw", prompt="x", steps=1000)
        await answer.until(says("Not possible: steps"))
        gone = await fake.press("darkroom:vary:0123456789abcdef01234567:0")
        await gone.until(says("The server does not keep this picture any longer."))

    tell(story)


def test_who_asked_stops_a_picture_and_nobody_else_does(tell: Callable[[Story], None]) -> None:
    async def story(fake: FakeDiscord) -> None:
        answer = await fake.command("draw", person=7, prompt="a red apple", steps=150, width=256, height=256, count=4)
        await answer.until(lambda one: "Stop" in one.buttons)
        stop = answer.buttons["Stop"]
        other = await (await fake.press(stop, person=8)).until(says("Only who asked"))
        assert other.states[-1]["flags"] == EPHEMERAL
        await fake.press(stop, person=7)
        await answer.until(lambda one: "stopped early" in one.text or "Stopped" in one.text)

    tell(story)


def test_one_person_has_no_more_than_two_jobs_at_once(tell: Callable[[Story], None]) -> None:
    async def story(fake: FakeDiscord) -> None:
        long: dict[str, Any] = {"steps": 150, "width": 256, "height": 256}
        first, second = [await fake.command("draw", person=7, prompt="x", seed=n, **long) for n in (1, 2)]
        for answer in (first, second):
            await answer.until(lambda one: "Stop" in one.buttons)
        third = await fake.command("draw", person=7, prompt="x")
        await third.until(says("You have 2 pictures in the making"))
        assert third.states[-1]["flags"] == EPHEMERAL
        other = await fake.command("draw", person=8, prompt="x", **SMALL)
        await other.until(is_done)
        for answer in (first, second):
            await fake.press(answer.buttons["Stop"], person=7)
            await answer.until(lambda one: not one.buttons or "Stop" not in one.buttons)

    tell(story)


def test_a_job_that_takes_too_long_is_dropped(
    tell: Callable[[Story], None], bot: ModuleType, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot, "PATIENCE_S", 0.5)

    async def story(fake: FakeDiscord) -> None:
        answer = await fake.command("draw", prompt="x", steps=150, width=512, height=512, count=4)
        await answer.until(says("Given up"))

    tell(story)
    assert server.get("/jobs?limit=1")["jobs"][0]["state"] == "cancelled"


def test_a_server_that_is_not_there_is_told_in_words(bot: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with connected(bot, "http://127.0.0.1:9", monkeypatch) as fake:
            answer = await fake.command("draw", prompt="x")
            await answer.until(says("The picture server cannot be reached"))

    asyncio.run(story())
