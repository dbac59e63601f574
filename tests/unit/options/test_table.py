"""The table against the contract: A1111's 329 options, in its order, each with its type, default and choices; then our
own.
"""

import csv
import json
from pathlib import Path

import pytest

from darkroom.options.table import SECTIONS, TABLE
from darkroom.options.values import OptionValues

CONTRACT = Path(__file__).with_name("contract.tsv")
DEPARTURES = {"api_enable_requests": False}
"""Defaults that are others on purpose."""
OWN = {"deepcache_interval": 1}
"""Options that the original has not, and their defaults."""


def contract() -> list[dict[str, str]]:
    with CONTRACT.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


JSON_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "int→float": (int, float),
    "float": (float,),
    "string": (str,),
    "string/null": (str, type(None)),
    "list": (list,),
    "html": (str,),
}


def test_all_options_are_there_in_order() -> None:
    assert list(TABLE) == [row["name"] for row in contract()] + list(OWN)
    assert len(TABLE) == sum(map(len, SECTIONS.values())) == 329 + len(OWN)


def test_every_option_has_its_type_and_its_default() -> None:
    shown = OptionValues().as_json()
    wrong = [row["name"] for row in contract() if type(shown[row["name"]]) not in JSON_TYPES[row["type"]]]
    assert wrong == []
    assert shown == {row["name"]: json.loads(row["default"]) for row in contract()} | DEPARTURES | OWN


def test_what_the_original_offers_is_taken_and_comes_back() -> None:
    offers = [(row, value) for row in contract() if row["allowed"] for value in json.loads(row["allowed"])]
    assert len(offers) > 200
    for row, value in offers:
        sent = [value] if row["type"] == "list" else value
        assert OptionValues().merged({row["name"]: sent}).as_json()[row["name"]] == sent


@pytest.mark.parametrize("section", SECTIONS)
def test_every_option_is_described_and_takes_its_own_default(section: str) -> None:
    for option in SECTIONS[section].values():
        assert option.about
        assert option.allowed
        read = option.read(option.default)
        assert (read, type(read)) == (option.default, type(option.default))
