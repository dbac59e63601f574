"""What is taken out of a prompt before it is read: comments, and the tags of extra networks. Knows text only."""

import re
from dataclasses import dataclass

_COMMENT_LINE = re.compile(r"(^|\n)#[^\n]*(\n|$)")
_COMMENT = re.compile(r"#[^\n]*(\n|$)")
_TAG = re.compile(r"<(\w+):([^>]+)>")


def strip_comments(text: str) -> str:
    """Delete everything from a `#` to the end of its line, leaving one newline.

    A1111: there is no escape; a line that is nothing but a comment goes with both of its newlines.
    """
    return _COMMENT.sub("\n", _COMMENT_LINE.sub("\n", text))


@dataclass(frozen=True, slots=True)
class NetworkTag:
    """A tag `<word:item:item=...>`, for example `<lora:name:0.8>`."""

    word: str
    items: tuple[str, ...]

    @property
    def positional(self) -> tuple[str, ...]:
        """The items without a name."""
        return tuple(item for item in self.items if item.count("=") != 1)

    @property
    def named(self) -> dict[str, str]:
        """The items of the form name=value."""
        return dict(item.split("=") for item in self.items if item.count("=") == 1)


def cut_networks(text: str) -> tuple[str, tuple[NetworkTag, ...]]:
    """The text without its extra-network tags, and the tags in order; a tag of any word is cut."""
    tags = tuple(NetworkTag(word, tuple(args.split(":"))) for word, args in _TAG.findall(text))
    return _TAG.sub("", text), tags
