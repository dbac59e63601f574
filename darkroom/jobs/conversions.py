"""What a generation text means that does not say everything: its defaults, its styles, and how old versions wrote.

Works on entries that were read already, in place. Knows nothing of how they are spelled in a text.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from darkroom.prompt.attention import BREAK, parse
from darkroom.prompt.styles import Style, extract

Entries = dict[str, object]

UseStyles = Literal["Ignore", "Apply", "Discard", "Apply if any"]

_MISSING: tuple[tuple[str, object], ...] = (
    ("Clip skip", "1"),
    ("Hires resize-1", 0),
    ("Hires resize-2", 0),
    ("Hires sampler", "Use same sampler"),
    ("Hires schedule type", "Use same scheduler"),
    ("Hires checkpoint", "Use same checkpoint"),
    ("Hires prompt", ""),
    ("Hires negative prompt", ""),
    ("Mask mode", "Inpaint masked"),
    ("Masked content", "original"),
    ("Inpaint area", "Whole picture"),
    ("Masked area padding", 32),
    ("RNG", "GPU"),
    ("Schedule type", "Automatic"),
    ("Schedule max sigma", 0),
    ("Schedule min sigma", 0),
    ("Schedule rho", 0),
    ("VAE Encoder", "Full"),
    ("VAE Decoder", "Full"),
    ("FP8 weight", "Disable"),
    ("Refiner switch by sampling steps", False),
)
"""What an entry that a text does not have stands for."""

_SIZES = ("Size-1", "Size-2")
_TARGETS = ("Hires resize-1", "Hires resize-2")
_FIRST_SIZES = ("First pass size-1", "First pass size-2")

_NATIVE_PIXELS = 512 * 512

_VERSION = re.compile(r"v?(\d{1,9}(?:\.\d{1,9})*)(-?rc\d{0,9})?(?:-(\d{1,9}))?", re.IGNORECASE)
_LORA_TAG = re.compile(r"<lora:([^:<>]+)(?=[:>])")
_ADDED_NETWORK = re.compile(r"(.*)\s*\([0-9a-fA-F]+\)")


class Version(NamedTuple):
    """A version as it is ordered: its numbers, whether it is more than a candidate, commits after it."""

    numbers: tuple[int, ...]
    released: bool
    commits: int


def parse_version(text: object) -> Version | None:
    """`v1.7.0`, `1.8.0-RC` or `v1.7.0-225-gabcdef`; None for everything else, so also for other programs' versions."""
    parts = str(text).split("-") if isinstance(text, str) else []
    match = _VERSION.fullmatch("-".join(parts[:2]))
    if match is None:
        return None
    numbers = [int(number) for number in match[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return Version(tuple(numbers), match[2] is None, int(match[3] or 0))


_V1_6 = Version((1, 6), True, 0)
_V1_7_TERMINAL_SNR = Version((1, 7), True, 225)
_V1_8 = Version((1, 8), True, 0)
_V1_8_HIRES_STYLES = Version((1, 8), True, 139)


def take_out_styles(
    entries: Entries, prompts: tuple[str, str], styles: Sequence[Style], use: UseStyles = "Apply if any"
) -> None:
    """Enter both prompts without the styles that are found in them, and the styles' names.

    A text whose second pass has prompts of its own keeps everything unless these bear the same styles.
    """
    if use != "Ignore":
        names, *plain = extract(styles, *prompts)
        if _same_in_second_pass(entries, prompts, styles, names, plain):
            prompts = (plain[0], plain[1])
            if use == "Apply" or (use == "Apply if any" and names):
                entries["Styles array"] = names
    entries["Prompt"], entries["Negative prompt"] = prompts


def _same_in_second_pass(
    entries: Entries, prompts: tuple[str, str], styles: Sequence[Style], names: list[str], plain: Sequence[str]
) -> bool:
    """Cut the styles off the second pass's prompts as well; False if they are not the first one's."""
    version = parse_version(entries.get("Version"))
    keys = ("Hires prompt", "Hires negative prompt")
    if not any(key in entries for key in keys) or (version and version <= _V1_8_HIRES_STYLES):
        return True
    second = [str(entries.get(key, prompt)) for key, prompt in zip(keys, prompts, strict=True)]
    second_names, *second_plain = extract(styles, second[0], second[1])
    if second_names != names:
        return False
    for key, first, own in zip(keys, plain, second_plain, strict=True):
        entries[key] = "" if own == first else own
    return True


def complete(entries: Entries, *, old_hires: bool = False) -> None:
    """Fill in what the text leaves out, and turn hypernetworks and first pass sizes into what they are called now.

    With `old_hires` the size is that of the larger picture.
    """
    if "Hypernet" in entries:
        strength = entries.get("Hypernet strength", "1.0")
        entries["Prompt"] = f"{entries['Prompt']}<hypernet:{entries['Hypernet']}:{strength}>"
    _restore_sizes(entries, old_hires)
    for key, value in _MISSING:
        entries.setdefault(key, value)
    if entries["FP8 weight"] != "Disable":
        entries.setdefault("Cache FP16 weight for LoRA", False)
    if any(_has_emphasis(str(entries[key])) for key in ("Prompt", "Negative prompt")):
        entries.setdefault("Emphasis", "Original")


def _has_emphasis(prompt: str) -> bool:
    if not any(bracket in prompt for bracket in "(["):
        return False
    return any(part.weight != 1 and part.text != BREAK.text for part in parse(prompt))


def _restore_sizes(entries: Entries, old_hires: bool) -> None:
    """A text with a first pass size calls the larger size "Size"."""
    target = _numbers(entries, _TARGETS)
    if old_hires and target and all(target):
        entries.update(zip(_SIZES, target, strict=True))
        return
    first, size = _numbers(entries, _FIRST_SIZES), _numbers(entries, _SIZES) or (512, 512)
    if first:
        entries.update(zip(_SIZES, first if all(first) else first_pass_size(*size), strict=True))
        entries.update(zip(_TARGETS, size, strict=True))


def _numbers(entries: Mapping[str, object], keys: tuple[str, str]) -> tuple[int, int] | None:
    values = [str(entries.get(key, "")) for key in keys]
    if not all(value.isdecimal() and len(value) < 10 for value in values):
        return None
    return int(values[0]), int(values[1])


def first_pass_size(width: int, height: int) -> tuple[int, int]:
    """The size that old versions drew first for a picture of this one: of about 512 x 512 pixels, in steps of 64."""
    scale = math.sqrt(_NATIVE_PIXELS / max(width * height, 1))
    return math.ceil(scale * width / 64) * 64, math.ceil(scale * height / 64) * 64


def ask_for_old_rules(entries: Entries) -> None:
    """Ask for the rules of the version that wrote the text, where they were others than today's."""
    version = parse_version(entries.get("Version"))
    if version is None:
        return
    if version < _V1_6 and "[" in str(entries["Prompt"]):
        entries["Old prompt editing timelines"] = True
    if version < _V1_6 and entries.get("Sampler") in {"DDIM", "PLMS"}:
        entries["Pad conds v0"] = True
    if version < _V1_7_TERMINAL_SNR:
        entries["Downcast alphas_cumprod"] = True
    if version < _V1_8 and entries.get("Refiner"):
        entries["Refiner switch by sampling steps"] = True


def network_hashes(entries: Mapping[str, object]) -> dict[str, str]:
    """The twelve-digit hashes of a text's networks, by the names that its prompt uses."""
    pairs = (entry.partition(":") for entry in str(entries.get("Lora hashes", "")).split(","))
    return {name.strip(): digits.strip() for name, _, digits in pairs if digits}


def rename_networks(entries: Entries, names: Mapping[str, str]) -> None:
    """Give the networks of the prompt other names. What the AddNet extension wrote becomes tags."""
    entries["Prompt"] = _LORA_TAG.sub(lambda tag: f"<lora:{names.get(tag[1], tag[1])}", str(entries["Prompt"]))
    added = "".join(_added_networks(entries))
    if added:
        entries["Prompt"] = f"{entries['Prompt']}\n{added}"


def _added_networks(entries: Mapping[str, object]) -> Iterator[str]:
    for key, value in entries.items():
        number = key.removeprefix("AddNet Model ")
        if number != key and entries.get(f"AddNet Module {number}") == "LoRA":
            named = _ADDED_NETWORK.match(str(value))
            yield f"<lora:{named[1] if named else value}:{entries.get(f'AddNet Weight A {number}', '1.0')}>"
