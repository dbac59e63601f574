from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from darkroom.prompt.attention import Weighted
from darkroom.prompt.chunks import Vocabulary, chunk, count_places
from tests.unit.api.conftest import Serve

TOKENS = "/prompt/tokens"
STYLES = "/sdapi/v1/prompt-styles"


def lengths(client: TestClient, **fields: object) -> list[int]:
    answer = client.post(TOKENS, json=fields)
    assert answer.status_code == 200
    return [answer.json()[field]["tokens"] for field in ("prompt", "negative_prompt")]


@given(st.integers(0, 400))
def test_as_many_places_are_counted_as_there_are_tokens(count: int) -> None:
    chunks = chunk([Weighted("x" * count, 1.0)], lambda text: [5] * len(text), Vocabulary())
    assert count_places(chunks, Vocabulary()) == count


def test_both_prompts_are_counted(client: TestClient) -> None:
    assert lengths(client, prompt="a red apple", negative_prompt="blurred") == [3, 1]


def test_the_limit_is_that_of_the_chunks_that_are_begun(client: TestClient) -> None:
    for words, limit in ((0, 75), (75, 75), (76, 150), (150, 150)):
        answer = client.post(TOKENS, json={"prompt": "word " * words}).json()
        assert answer["prompt"] == {"tokens": words, "limit": limit}


def test_of_edited_and_joined_prompts_the_longest_text_counts(client: TestClient) -> None:
    assert lengths(client, prompt="a [b:c d e:5] AND f") == [4, 0]


def test_tags_and_comments_are_not_counted(client: TestClient) -> None:
    assert lengths(client, prompt="a cat <lora:x:1> # of mine") == [2, 0]


def test_styles_count_if_the_option_says_so(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text("name,prompt,negative_prompt\noil,oil of {prompt},\n")
    client = serve()
    assert lengths(client, prompt="a cat", styles=["oil"]) == [4, 0]
    client.post("/sdapi/v1/options", json={"include_styles_into_token_counters": False})
    assert lengths(client, prompt="a cat", styles=["oil"]) == [2, 0]


def test_a_prompt_that_is_too_long_is_not_counted(serve: Serve) -> None:
    answer = serve(max_prompt_chars=10).post(TOKENS, json={"negative_prompt": "x" * 11})
    assert (answer.status_code, answer.json()["code"]) == (422, "limit_exceeded")


def test_a_kept_style_is_listed_and_one_taken_away_is_not(client: TestClient) -> None:
    style = {"prompt": "oil of {prompt}", "negative_prompt": "ugly"}
    assert client.put("/prompt/styles/oil%20paint", json=style).json() == {"name": "oil paint", **style}
    assert client.get(STYLES).json() == [{"name": "oil paint", **style}]
    assert client.delete("/prompt/styles/oil%20paint").status_code == 204
    assert client.get(STYLES).json() == []


def test_a_style_is_kept_in_the_file_that_has_it(serve: Serve, tmp_path: Path) -> None:
    for stem in ("a", "b"):
        (tmp_path / f"{stem}.csv").write_text(f"name,prompt,negative_prompt\n{stem},x,\n")
    client = serve(styles_file=f"{tmp_path}/a.csv,{tmp_path}/b.csv")
    client.put("/prompt/styles/b", json={"prompt": "changed"})
    client.put("/prompt/styles/c", json={"prompt": "new"})
    assert "changed" in (tmp_path / "b.csv").read_text(encoding="utf-8-sig")
    assert "new" in (tmp_path / "a.csv").read_text(encoding="utf-8-sig")


def test_a_style_that_is_not_there_cannot_be_taken_away(client: TestClient) -> None:
    answer = client.delete("/prompt/styles/none")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_name")


@pytest.mark.parametrize("name", ["%20", "%23comment", "a%20"])
def test_a_name_that_no_file_can_hold_is_refused(client: TestClient, name: str) -> None:
    assert client.put(f"/prompt/styles/{name}", json={"prompt": "x"}).status_code == 422
