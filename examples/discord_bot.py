"""A Discord bot that draws with a Darkroom server: /draw, /vary, /upscale, and buttons under each picture.

    pip install darkroom discord.py
    DISCORD_TOKEN=... DARKROOM_URL=http://127.0.0.1:7860 python discord_bot.py

The token comes from https://discord.com/developers/applications (Bot); invite the bot with the scopes `bot` and
`applications.commands`. It needs no intents: it reads no messages, only its own commands. Where the server asks who you
are, DARKROOM_KEY is a key of `darkroom key add`. Pictures are the server's: the buttons work after a restart of the
bot, for as long as the server keeps them.
"""

import asyncio
import base64
import io
import os
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import discord
import httpx
from discord import app_commands
from discord.utils import escape_markdown

from darkroom.client import AsyncClient, Image, Job, Refused

AT_ONCE = 8
"""Jobs of all people together, and below it of one person."""
AT_ONCE_EACH = 2
PATIENCE_S = 13 * 60.0
"""A job that takes longer is dropped. Discord takes changes of an answer for 15 minutes."""
EDIT_S = 1.5
"""Discord takes five changes of a message in five seconds."""
TAKEN_IN_BYTES = 10_000_000
TAKEN_IN_PIXELS = 2048 * 2048
ENLARGED_PIXELS = 4096 * 4096
VARIATION = 0.35
"""How far a variation goes towards another seed's noise."""
UPSCALER = os.environ.get("DARKROOM_UPSCALER", "Darkroom 2x")

GONE = "The server does not keep this picture any longer."

Action = Literal["vary", "upscale", "stop"]
Fields = Mapping[str, Any]
Prompt = app_commands.Range[str, 1, 1000]


class SorryError(Exception):
    """Something that cannot be done; the text is for the person who asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the server is to do: the kind of job and its fields, and what the answer is called."""

    title: str
    kind: str
    fields: Fields


class Bot(discord.Client):
    """A Discord client with a Darkroom server behind it. Nobody is mentioned, whatever a prompt says."""

    def __init__(self, darkroom: AsyncClient) -> None:
        super().__init__(intents=discord.Intents.none(), allowed_mentions=discord.AllowedMentions.none())
        self.darkroom = darkroom
        self._busy: Counter[int] = Counter()
        self._tree = app_commands.CommandTree(self)

    async def setup_hook(self) -> None:
        """Tell Discord the commands; know the buttons of pictures that were drawn before this start."""
        self.add_dynamic_items(PictureButton)
        self._tree.add_command(draw)
        self._tree.add_command(vary)
        self._tree.add_command(upscale)
        await self._tree.sync()

    @asynccontextmanager
    async def place(self, person: int) -> AsyncIterator[None]:
        """One of a bounded number of jobs at once. Raises SorryError where there is none left."""
        if self._busy[person] >= AT_ONCE_EACH:
            raise SorryError(f"You have {AT_ONCE_EACH} pictures in the making. Ask again when one of them is done.")
        if self._busy.total() >= AT_ONCE:
            raise SorryError("Many people are drawing just now. Ask again in a minute.")
        self._busy[person] += 1
        try:
            yield
        finally:
            self._busy[person] -= 1


Ask = discord.Interaction[Bot]


@app_commands.command(description="Draw pictures.")
@app_commands.describe(
    prompt="What the pictures show",
    avoid="What they do not show",
    count="How many",
    steps="More take longer",
    seed="The same seed gives the same picture; -1 draws one",
    width="Pixels; what suits the model if left out",
    height="Pixels; what suits the model if left out",
)
async def draw(
    interaction: Ask,
    prompt: Prompt,
    avoid: app_commands.Range[str, 0, 1000] = "",
    count: app_commands.Range[int, 1, 4] = 1,
    steps: app_commands.Range[int, 1, 50] = 20,
    seed: app_commands.Range[int, -1, 4294967295] = -1,
    width: app_commands.Range[int, 64, 1024] | None = None,
    height: app_commands.Range[int, 64, 1024] | None = None,
) -> None:
    """Text to pictures."""
    fields = {"prompt": prompt, "negative_prompt": avoid, "batch_size": count, "steps": steps, "seed": seed}
    sizes = {name: side for name, side in (("width", width), ("height", height)) if side}

    async def wanted() -> Wanted:
        return Wanted(title=prompt, kind="txt2img", fields=fields | sizes)

    await answer(interaction, wanted)


@app_commands.command(description="Draw a picture of yours anew.")
@app_commands.describe(
    picture="The picture to begin with",
    prompt="What the new one shows",
    change="In percent: 0 keeps the picture, 100 replaces it",
)
async def vary(
    interaction: Ask, picture: discord.Attachment, prompt: Prompt, change: app_commands.Range[int, 0, 100] = 60
) -> None:
    """Picture to picture."""

    async def wanted() -> Wanted:
        size = {"width": picture.width, "height": picture.height}
        start = {"init_images": [await taken_in(picture)], "denoising_strength": change / 100}
        return Wanted(title=prompt, kind="img2img", fields={"prompt": prompt, "steps": 20} | size | start)

    await answer(interaction, wanted)


@app_commands.command(description="Enlarge a picture of yours.")
@app_commands.describe(picture="The picture to enlarge", factor="How many times as wide and high")
async def upscale(
    interaction: Ask, picture: discord.Attachment, factor: app_commands.Range[float, 1.0, 4.0] = 2.0
) -> None:
    """Picture to larger picture."""

    async def wanted() -> Wanted:
        return enlarged(await taken_in(picture), (picture.width or 0, picture.height or 0), factor)

    await answer(interaction, wanted)


class PictureButton(
    discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]],
    template=r"darkroom:(?P<action>vary|upscale|stop):(?P<job>[0-9a-zA-Z_-]{1,64}):(?P<place>[0-9]{1,19})",
):
    """A button whose id says what it is for, so that it needs no memory. Of "stop" the place is who may press it."""

    def __init__(self, action: Action, job: str, place: int, label: str = "", row: int = 0) -> None:
        style = discord.ButtonStyle.danger if action == "stop" else discord.ButtonStyle.secondary
        custom_id = f"darkroom:{action}:{job}:{place}"
        super().__init__(discord.ui.Button(label=label or action, style=style, custom_id=custom_id, row=row))
        self._action: Action = action
        self._job = job
        self._place = place

    @classmethod
    async def from_custom_id(cls, _interaction: Any, _item: Any, match: re.Match[str], /) -> Self:
        """The button that was pressed."""
        action: Any = match["action"]
        return cls(action, match["job"], int(match["place"]))

    async def callback(self, interaction: Any) -> None:
        """Do what the button says."""
        if self._action == "stop":
            await self._stop(interaction)
        else:
            await answer(interaction, lambda: self._wanted(interaction.client.darkroom))

    async def _stop(self, interaction: Ask) -> None:
        if interaction.user.id != self._place:
            await interaction.response.send_message("Only who asked for a picture stops it.", ephemeral=True)
            return
        await interaction.response.defer()
        try:
            await interaction.client.darkroom.interrupt(self._job)
        except (Refused, httpx.TransportError) as error:
            await interaction.followup.send(in_words(error), ephemeral=True)

    async def _wanted(self, darkroom: AsyncClient) -> Wanted:
        """The request behind the button. Raises Refused, TransportError, SorryError."""
        job = await darkroom.job(self._job)
        if self._place >= len(job.images):
            raise SorryError(GONE)
        image = job.images[self._place]
        if self._action == "upscale":
            return enlarged(as_text(await darkroom.file(image)), (image.width or 0, image.height or 0), 2.0)
        title = f"Variation of {image.seed}"
        fields: dict[str, Any] = {"infotext": image.infotext, "n_iter": 1, "batch_size": 1}
        if job.kind == "txt2img":
            strange = {"subseed": random.randrange(2**32), "subseed_strength": VARIATION}
            return Wanted(title=title, kind="txt2img", fields=fields | strange)
        again = {"init_images": [as_text(await darkroom.file(image))], "denoising_strength": 0.5, "seed": -1}
        return Wanted(title=title, kind="img2img", fields=fields | again)


async def answer(interaction: Ask, wanted: Callable[[], Awaitable[Wanted]]) -> None:
    """Have a job done and show it: first how far it is, at last its pictures or what went wrong."""
    try:
        async with interaction.client.place(interaction.user.id):
            await interaction.response.defer(thinking=True)
            try:
                work = await wanted()
                await show(interaction, work.title, await carry(interaction, work))
            except (Refused, httpx.TransportError, SorryError, TimeoutError) as error:
                await interaction.edit_original_response(content=in_words(error), view=None)
    except SorryError as sorry:
        await interaction.response.send_message(str(sorry), ephemeral=True)


async def carry(interaction: Ask, work: Wanted) -> Job:
    """Follow a job to its end and tell how far it is. Raises Refused, TransportError, TimeoutError."""
    darkroom = interaction.client.darkroom
    job = await darkroom.submit(work.kind, idempotency_key=f"discord-{interaction.id}", **work.fields)
    view = discord.ui.View(timeout=None).add_item(PictureButton("stop", job.id, interaction.user.id, "Stop"))
    told = float("-inf")
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for happening in darkroom.events(job.id):
                if time.monotonic() - told >= EDIT_S and happening.event in {"queued", "started", "progress"}:
                    told = time.monotonic()
                    await interaction.edit_original_response(content=how_far(happening.data), view=view)
    except TimeoutError:
        await darkroom.cancel(job.id)
        raise
    return await darkroom.job(job.id)


async def show(interaction: Ask, title: str, job: Job) -> None:
    """Put a job's pictures into the answer, with a button or two for each. Raises SorryError where there are none."""
    if not job.images:
        raise SorryError(job.error.detail if job.error else "Stopped; there is no picture yet.")
    files, notes, view = [], [], discord.ui.View(timeout=None)
    for place, image in enumerate(job.images[:4]):
        file, note = await as_file(interaction, image)
        files.append(file)
        notes += note
        number = f" {place + 1}" if len(job.images) > 1 else ""
        if job.kind != "extras":
            view.add_item(PictureButton("vary", job.id, place, f"Vary{number}", row=0))
            view.add_item(PictureButton("upscale", job.id, place, f"Upscale{number}", row=1))
    seeds = ", ".join(str(image.seed) for image in job.images if image.seed is not None)
    facts = [f"**{escape_markdown(title[:300])}**", *([f"seed {seeds}"] if seeds else [])]
    facts += [f"{image.width}×{image.height}" for image in job.images[:1]]
    facts += [*(["stopped early"] if job.state == "interrupted" else []), *notes]
    await interaction.edit_original_response(content=" · ".join(facts), attachments=files, view=view)


async def as_file(interaction: Ask, image: Image) -> tuple[discord.File, list[str]]:
    """A picture as Discord takes it, and a remark if only a small form of it fits."""
    darkroom, most = interaction.client.darkroom, interaction.filesize_limit
    too_large = image.bytes > most
    data = await darkroom.file(image, small=too_large)
    ending = "webp" if too_large else image.media_type.rpartition("/")[2]
    note = [f"a small form: the picture's {image.bytes >> 20} MB are more than Discord takes"] if too_large else []
    return discord.File(io.BytesIO(data), f"picture-{image.seed or image.place}.{ending}"), note


async def taken_in(picture: discord.Attachment) -> str:
    """An attachment as base64. Raises SorryError for what is no picture or too large a one."""
    if not (picture.content_type or "").startswith("image/") or not picture.width or not picture.height:
        raise SorryError("That is not a picture.")
    if picture.size > TAKEN_IN_BYTES or picture.width * picture.height > TAKEN_IN_PIXELS:
        raise SorryError("That picture is too large: up to 10 MB and 2048×2048 pixels are taken.")
    try:
        return as_text(await picture.read())
    except discord.DiscordException:
        raise SorryError("Discord does not hand out that picture.") from None


def enlarged(picture: str, size: tuple[int, int], factor: float) -> Wanted:
    """The request that enlarges a picture. Raises SorryError for one that would become too large."""
    if size[0] * size[1] * factor**2 > ENLARGED_PIXELS:
        raise SorryError("That picture would become too large.")
    fields = {"image": picture, "upscaler_1": UPSCALER, "upscaling_resize": factor}
    return Wanted(title=f"{factor:g} times as large", kind="extras", fields=fields)


def how_far(data: Mapping[str, Any]) -> str:
    """A job's progress in a line."""
    if data.get("state") == "queued":
        before = data.get("position") or 0
        return f"Waiting; {before} before it." if before else "Waiting."
    share, eta_s = float(data.get("progress") or 0), data.get("eta_s")
    left = f" · {eta_s:.0f} s left" if eta_s else ""
    return f"`{'█' * round(share * 20):░<20}` {share:.0%}{left}"


def in_words(error: Exception) -> str:
    """What went wrong, for the person who asked."""
    if isinstance(error, Refused):
        return GONE if error.status == 404 else f"Not possible: {error.detail[:500]}"
    if isinstance(error, TimeoutError):
        return f"Given up after {PATIENCE_S / 60:.0f} minutes."
    return str(error) if isinstance(error, SorryError) else "The picture server cannot be reached just now."


def as_text(data: bytes) -> str:
    """Bytes as a request carries them."""
    return base64.b64encode(data).decode()


async def main() -> None:
    """Run until Ctrl-C."""
    discord.utils.setup_logging()
    url, key = os.environ.get("DARKROOM_URL", "http://127.0.0.1:7860"), os.environ.get("DARKROOM_KEY")
    async with AsyncClient(url, key=key) as darkroom, Bot(darkroom) as bot:
        await bot.start(os.environ["DISCORD_TOKEN"])


if __name__ == "__main__":
    asyncio.run(main())
