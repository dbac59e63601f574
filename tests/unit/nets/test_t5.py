"""T5's pieces, and how a text becomes so many tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.nets.t5 import EOS, PAD, T5Tokenizer, framed, t5_sizes

TOKENIZER = T5Tokenizer()


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("a cat", [3, 9, 1712]),
        (" a  cat ", [3, 9, 1712]),
        ("A CINEMATIC shot, 35mm", [71, 205, 9730, 4148, 18679, 2538, 6, 3097, 635]),
        ("naïve café — “quoted”", [3, 29, 9, 2, 162, 11949, 3, 318, 105, 14460, 1054, 153]),
        ("日本語", [3, 2]),
        ("🐕 dog", [3, 2, 1782]),
        ("ﬁne ＡＢＣ ½ ①", [1399, 14213, 209, 2, 357, 209]),
        ("<b>bold</b>\n{x|y}", [3, 2, 115, 3155, 4243, 26, 2, 87, 115, 3155, 3, 2, 226, 9175, 63, 2]),
    ],
)
def test_texts_have_the_ids_that_sentencepiece_gives_them(text: str, ids: list[int]) -> None:
    assert TOKENIZER.tokenize(text) == ids


@given(st.text(max_size=60))
def test_any_text_has_tokens_within_the_vocabulary(text: str) -> None:
    assert all(0 <= token < 32000 for token in TOKENIZER.tokenize(text))


@given(st.lists(st.integers(3, 31999), max_size=40), st.integers(1, 30))
def test_a_framed_text_has_its_length_and_one_end(ids: list[int], length: int) -> None:
    found = framed(ids, length)
    kept = min(len(ids), length - 1)
    assert found == [*ids[:kept], EOS] + [PAD] * (length - kept - 1)


def test_pieces_are_read_one_by_one_and_breaks_not_at_all() -> None:
    pieces = [("a", 1.0), ("cat", 1.5), ("BREAK", -1.0), ("BREAK", 1.1)]
    assert list(TOKENIZER.weigh(pieces)) == [
        (token, weight)
        for text, weight in (("a", 1.0), ("cat", 1.5), ("BREAK", 1.1))
        for token in TOKENIZER.tokenize(text)
    ]


def test_the_published_encoder_is_known_by_its_tensors() -> None:
    block = "encoder.block.{}.layer."
    shapes: dict[str, tuple[int, ...]] = {
        "shared.weight": (32128, 4096),
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (32, 64),
        "encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096),
        "encoder.block.0.layer.1.DenseReluDense.wi_0.weight": (10240, 4096),
        **{block.format(i) + "0.layer_norm.weight": (4096,) for i in range(24)},
    }
    assert t5_sizes(shapes) == {
        "vocab_size": 32128,
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "relative_attention_num_buckets": 32,
        "feed_forward_proj": "gated-gelu",
    }
