"""The training pictures: emoji of the Noto colour font, placed, tinted and named.

Knows the font, the English names and aliases of its glyphs, and how a scene becomes a caption and a picture. Knows
nothing of networks: pictures leave as uint8 arrays. Everything random comes from the generator that the caller passes.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import emoji
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
# The only size of the bitmaps in the font, and the cell that a glyph fills at it.
BITMAP_SIZE = 109
CELL = 136
MISSING = "\U0010fffd"

Rgb = tuple[int, int, int]
Kind = Literal["single", "moved", "placed", "coloured", "tinted", "pair"]
# Of the training pictures. Plain single objects on white are what the first prompt asks for.
KIND_SHARES: dict[Kind, float] = {
    "single": 0.44, "moved": 0.06, "placed": 0.04, "coloured": 0.16, "tinted": 0.13, "pair": 0.17,
}  # fmt: skip
KINDS: tuple[Kind, ...] = tuple(KIND_SHARES)
Picture = NDArray[np.uint8]

# Of the frame: an object alone, and each of two.
FULL_SIZE = 0.94
PAIR_SIZE = 0.49
WHITE: Rgb = (255, 255, 255)
BACKGROUNDS: dict[str, Rgb] = {
    "red": (222, 70, 62),
    "orange": (245, 152, 54),
    "yellow": (250, 222, 92),
    "green": (92, 176, 92),
    "blue": (74, 128, 222),
    "purple": (144, 88, 190),
    "pink": (246, 158, 192),
    "brown": (134, 94, 66),
    "gray": (150, 150, 150),
    "black": (24, 24, 24),
}
# Hue in turns, saturation factor and floor, value factor.
TINTS: dict[str, tuple[float, float, float, float]] = {
    "red": (0.0, 1.0, 0.62, 1.0),
    "orange": (0.085, 1.0, 0.65, 1.0),
    "yellow": (0.145, 1.0, 0.6, 1.05),
    "green": (0.34, 1.0, 0.5, 0.92),
    "blue": (0.6, 1.0, 0.55, 1.0),
    "purple": (0.77, 1.0, 0.45, 0.95),
    "pink": (0.92, 0.6, 0.35, 1.1),
    "gray": (0.0, 0.0, 0.0, 0.9),
}
# What people type, where CLDR has another word; each must stay true of the glyph.
EXTRA_NAMES: dict[str, tuple[str, ...]] = {
    "🐶": ("puppy dog", "puppy", "dog", "cute puppy dog"),
    "🐱": ("cat", "kitten", "kitty cat"),
    "🐈": ("kitten",),
    "🍏": ("apple",),
    "🍎": ("apple",),
    "🐴": ("horse",),
    "🐭": ("mouse",),
    "🐰": ("rabbit", "bunny"),
    "🐷": ("pig",),
    "🐮": ("cow",),
    "🐯": ("tiger",),
    "🐻": ("bear", "teddy"),
    "🦊": ("fox face",),
    "🚗": ("car",),
    "🚘": ("car",),
    "🏠": ("home",),
    "🌸": ("flower", "blossom"),
    "🌳": ("tree",),
    "🌲": ("tree", "pine tree"),
    "☕": ("coffee", "cup of coffee"),
    "🍕": ("slice of pizza",),
    "❤️": ("heart", "love"),
    "😀": ("smiley", "happy face"),
    "🚢": ("boat",),
    "✈️": ("plane",),
    "🐦": ("blue bird",),
    "👩‍🚀": ("female astronaut",),
    "🧑‍🚀": ("spaceman",),
    "🏰": ("castle on a hill",),
}
COLOUR_WORD = re.compile("^(?:red|orange|yellow|green|blue|purple|pink|gray|black|white|brown) ")
SKIN_TONES = frozenset(chr(code) for code in range(0x1F3FB, 0x1F400))


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyph:
    """One object: its character sequence, its names (the CLDR name first) and its picture [136, 136, 4]."""

    text: str
    names: tuple[str, ...]
    sprite: Picture
    same_as: int  # the first index with exactly this picture: twins count as one object


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A glyph in a scene; centre and size are fractions of the frame."""

    glyph: int
    x: float
    y: float
    size: float
    tint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What one training picture shows, before it is drawn."""

    items: tuple[Item, ...]
    background: Rgb
    background_name: str | None


def clean_name(raw: str) -> str:
    """`:A_button_(blood_type):` -> `a button blood type`: only what a prompt reads as words."""
    plain = unicodedata.normalize("NFKD", raw.strip(":").replace("_", " ").replace("’", "'"))
    ascii_only = plain.encode("ascii", "ignore").decode().lower()
    return re.sub(r"\s+", " ", re.sub(r"[^a-z0-9&'.#* -]", " ", ascii_only)).strip()


def is_common(text: str) -> bool:
    """Whether the sequence is one character, as the objects of daily life are: no flag, key or joined group."""
    return len(text.rstrip("\ufe0f")) == 1


def is_flag(text: str) -> bool:
    """Whether the sequence is a country's or a region's flag, whose CLDR name is only that of the place."""
    regional = all(0x1F1E6 <= ord(char) <= 0x1F1FF for char in text)
    return regional or any(0xE0020 <= ord(char) <= 0xE007F for char in text)


def names_of(text: str) -> tuple[str, ...]:
    """The words for a glyph, the CLDR name first, then natural aliases."""
    data = emoji.EMOJI_DATA[text]
    name = clean_name(data["en"])
    if is_flag(text):
        return (f"flag of {name}", f"{name} flag", name)
    aliases = [clean_name(alias) for alias in data.get("alias", [])]
    # Aliases such as "dog2" or "de" are codes, no words.
    words = [alias for alias in aliases if re.fullmatch(r"[a-z][a-z' -]{2,}", alias)]
    return tuple(dict.fromkeys([name, *words, *EXTRA_NAMES.get(text, ())]))


def load_font() -> ImageFont.FreeTypeFont:
    """The emoji font with full shaping, which joined sequences need.

    Raises:
        RuntimeError: Pillow has no libraqm.
        OSError: the font is not installed.
    """
    if not features.check("raqm"):
        raise RuntimeError("Pillow without libraqm cannot shape joined emoji sequences; use the wheel from PyPI")
    return ImageFont.truetype(str(FONT), BITMAP_SIZE, layout_engine=ImageFont.Layout.RAQM)


def draw_sprite(font: ImageFont.FreeTypeFont, text: str) -> Picture:
    """One glyph at the font's own resolution, [136, 136, 4]."""
    cell = Image.new("RGBA", (CELL, CELL), (255, 255, 255, 0))
    ImageDraw.Draw(cell).text((0, 4), text, font=font, embedded_color=True, anchor="la")
    return np.asarray(cell)


def load_glyphs(limit: int | None = None) -> tuple[Glyph, ...]:
    """All fully qualified emoji without skin tones that the font draws as one glyph, sorted by their sequence."""
    font = load_font()
    fully = emoji.STATUS["fully_qualified"]
    texts = sorted(t for t, d in emoji.EMOJI_DATA.items() if d["status"] == fully and not set(t) & SKIN_TONES)
    missing = draw_sprite(font, MISSING).tobytes()
    glyphs: list[Glyph] = []
    first: dict[str, int] = {}
    for text in texts:
        sprite = draw_sprite(font, text)
        if font.getlength(text) > CELL or sprite.tobytes() == missing or not sprite[..., 3].any():
            continue
        digest = hashlib.sha256(sprite.tobytes()).hexdigest()
        same_as = first.setdefault(digest, len(glyphs))
        glyphs.append(Glyph(text=text, names=names_of(text), sprite=sprite, same_as=same_as))
        if limit is not None and len(glyphs) == limit:
            break
    return tuple(glyphs)


def name_counts(glyphs: Sequence[Glyph]) -> Counter[str]:
    """How many different pictures each name may mean."""
    pairs = {(name, glyph.same_as) for glyph in glyphs for name in glyph.names}
    return Counter(name for name, _ in pairs)


# -- colour --------------------------------------------------------------------------------------------------------


def tint_sprite(sprite: Picture, tint: str) -> Picture:
    """The sprite in another colour: hue replaced, saturation floored where there is light, black and white kept."""
    hue, factor, floor, value_factor = TINTS[tint]
    hsv = np.asarray(Image.fromarray(sprite[..., :3], "RGB").convert("HSV")).astype(np.float32) / 255
    saturation, value = hsv[..., 1], hsv[..., 2]
    # Outlines (dark) and highlights (nearly white) stay as they are, or faces lose their eyes.
    body = np.clip((value - 0.25) * 4, 0, 1) * np.clip((1.06 - value + saturation) * 6, 0, 1)
    hsv[..., 0] = hue
    hsv[..., 1] = np.clip(np.maximum(saturation * factor, floor * body), 0, 1)
    hsv[..., 2] = np.clip(value * value_factor, 0, 1)
    rgb = np.asarray(Image.fromarray((hsv * 255).astype(np.uint8), "HSV").convert("RGB"))
    return np.concatenate([rgb, sprite[..., 3:]], axis=-1)


# -- scenes --------------------------------------------------------------------------------------------------------


def article(words: str) -> str:
    """`an apple`, `a dog`, but no article before a plural or a name that has none."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def phrase(rng: np.random.Generator, glyph: Glyph) -> str:
    """One of the glyph's names: the CLDR name half of the time."""
    if len(glyph.names) == 1 or rng.random() < 0.5:
        return glyph.names[0]
    return str(glyph.names[int(rng.integers(1, len(glyph.names)))])


def decorate(rng: np.random.Generator, words: str) -> str:
    """The way a person may ask for it; the bare name is the commonest."""
    draw = rng.random()
    if draw < 0.5:
        return words
    if draw < 0.8:
        return article(words)
    frames = (
        "{} emoji",
        "a picture of {}",
        "a photo of {}",
        "a drawing of {}",
        "cute {}",
        "{}, high quality",
        "the {}",
    )
    frame = frames[int(rng.integers(len(frames)))]
    return frame.format(article(words) if " of " in frame else words)


def pick_background(rng: np.random.Generator) -> tuple[str, Rgb]:
    """A named colour, with the small spread that the name allows."""
    name = list(BACKGROUNDS)[int(rng.integers(len(BACKGROUNDS)))]
    spread = rng.integers(-8, 9, size=3)
    red, green, blue = (int(np.clip(c + d, 0, 255)) for c, d in zip(BACKGROUNDS[name], spread, strict=True))
    return name, (red, green, blue)


def draw_background(rng: np.random.Generator, share: float) -> tuple[str | None, Rgb]:
    """White, mostly, or a named colour."""
    return pick_background(rng) if rng.random() < share else (None, WHITE)


def single_scene(rng: np.random.Generator, index: int, share: float) -> Scene:
    """One object in the middle, as large as the frame allows; `share` of them on a named colour.

    Always the same place and size: a small network then learns one picture for a name, not the blur of many.
    """
    name, colour = draw_background(rng, share)
    item = Item(glyph=index, x=0.5, y=0.5, size=FULL_SIZE)
    return Scene(items=(item,), background=colour, background_name=name)


def moved_scene(rng: np.random.Generator, index: int, large: bool) -> Scene:
    """One object: near the middle and large, or anywhere and smaller."""
    size = float(rng.uniform(0.84, 1.0) if large else rng.uniform(0.45, 0.85))
    room = (1 - size) / 2
    x, y = (float(rng.uniform(0.5 - room, 0.5 + room)) for _ in range(2))
    name, colour = draw_background(rng, 0.12 if large else 0.3)
    return Scene(items=(Item(glyph=index, x=x, y=y, size=size),), background=colour, background_name=name)


def tinted_scene(rng: np.random.Generator, index: int) -> Scene:
    """One object in a colour that the caption names."""
    tint = list(TINTS)[int(rng.integers(len(TINTS)))]
    item = Item(glyph=index, x=0.5, y=0.5, size=FULL_SIZE, tint=tint)
    name, colour = draw_background(rng, 0.1)
    return Scene(items=(item,), background=colour, background_name=name)


def pair_scene(rng: np.random.Generator, index: int, other: int) -> Scene:
    """Two objects side by side."""
    items = tuple(Item(glyph=g, x=x, y=0.5, size=PAIR_SIZE) for g, x in ((index, 0.25), (other, 0.75)))
    name, colour = draw_background(rng, 0.2)
    return Scene(items=items, background=colour, background_name=name)


def words_for(rng: np.random.Generator, glyphs: Sequence[Glyph], items: Sequence[Item]) -> str:
    """The objects' names, from left to right, with the colour that a tinted one has."""
    names = [phrase(rng, glyphs[item.glyph]) for item in items]
    if len(names) == 2:
        left, right = names
        return f"{article(left)} and {article(right)}" if rng.random() < 0.7 else f"{left} and {right}"
    tint = items[0].tint
    if tint is None:
        return decorate(rng, names[0])
    said = f"{tint} {re.sub(COLOUR_WORD, '', names[0])}"
    return said if rng.random() < 0.5 else article(said)


def caption_of(rng: np.random.Generator, glyphs: Sequence[Glyph], scene: Scene) -> str:
    """One of the many captions of a scene; a white background mostly goes unsaid."""
    words = words_for(rng, glyphs, scene.items)
    if scene.background_name is not None:
        return f"{words} on {article(scene.background_name)} background"
    return words if rng.random() < 0.95 else f"{words} on a white background"


def draw_kind(rng: np.random.Generator) -> Kind:
    """A kind by its share."""
    return KINDS[int(rng.choice(len(KINDS), p=list(KIND_SHARES.values())))]


def make_scene(rng: np.random.Generator, glyphs: Sequence[Glyph], index: int, kind: Kind | None = None) -> Scene:
    """A scene around one glyph, of the given kind or of a kind drawn by its share."""
    match kind if kind is not None else draw_kind(rng):
        case "single":
            return single_scene(rng, index, 0.0)
        case "coloured":
            return single_scene(rng, index, 1.0)
        case "moved":
            return moved_scene(rng, index, large=True)
        case "placed":
            return moved_scene(rng, index, large=False)
        case "tinted":
            return tinted_scene(rng, index)
        case "pair":
            return pair_scene(rng, index, int(rng.integers(len(glyphs))))


# -- pictures ------------------------------------------------------------------------------------------------------


def render(scene: Scene, glyphs: Sequence[Glyph], pixels: int) -> Picture:
    """The scene as [pixels, pixels, 3]."""
    frame = Image.new("RGB", (pixels, pixels), scene.background)
    for item in scene.items:
        sprite = glyphs[item.glyph].sprite
        coloured = tint_sprite(sprite, item.tint) if item.tint is not None else sprite
        side = max(8, round(item.size * pixels))
        stamp = Image.fromarray(coloured, "RGBA").resize((side, side), Image.Resampling.BICUBIC)
        corner = (round(item.x * pixels - side / 2), round(item.y * pixels - side / 2))
        frame.paste(stamp, corner, stamp)
    return np.asarray(frame)


def random_crop(rng: np.random.Generator, picture: Picture, pixels: int) -> Picture:
    """A window of the picture, placed anywhere."""
    height, width = picture.shape[:2]
    top, left = int(rng.integers(height - pixels + 1)), int(rng.integers(width - pixels + 1))
    return picture[top : top + pixels, left : left + pixels]
