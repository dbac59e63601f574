"""BLIP: a sentence about a picture (Li et al. 2022, arXiv:2201.12086), from files on this disk alone.

Knows two layouts: a folder as transformers publishes it, and the single file of the original beside BERT's list of
word pieces. Knows nothing of CLIP.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from darkroom.errors import BadModelFile
from darkroom.nets.describers.configuration import read_object, sizes
from darkroom.nets.describers.missing import MissingNetwork
from darkroom.nets.describers.pictures import normalised
from darkroom.nets.libraries import BlipConfig, BlipForConditionalGeneration
from darkroom.nets.pickles import read_state_dict

FOLDER = "BLIP"
ORIGINAL = "model_base_caption_capfilt_large.pth"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
MAX_BYTES = 8 << 30

PROMPT = "a picture of"
"""How every sentence begins; it is cut off again."""

_HEAD_WIDTH = 64
_CONTEXT = 512
_DECODER_MARK = "[DEC]"
_UNKNOWN, _END, _PADDING = "[UNK]", "[SEP]", "[PAD]"

_RENAMED = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.", r"vision_model.encoder.layers.\1.self_attn."),
    (r"^visual_encoder\.blocks\.(\d+)\.", r"vision_model.encoder.layers.\1."),
)
"""From the original's names to those of transformers; the text decoder's are the same."""

_TIED = {
    "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
}


@dataclass(frozen=True, slots=True, eq=False)
class Captioner:
    """The network on its device, with its words."""

    model: BlipForConditionalGeneration
    words: Tokenizer

    def caption(self, picture: Image.Image, *, beams: int, shortest: int, longest: int) -> str:
        """A sentence of so many tokens, the four of the prompt and its mark among them, without any randomness."""
        config = self.model.config
        side = config.vision_config.image_size
        stretched = picture.resize((side, side), Image.Resampling.BICUBIC)
        weight = self.model.vision_model.embeddings.patch_embedding.weight
        prompt = [config.text_config.bos_token_id, *self.words.encode(PROMPT, add_special_tokens=False).ids]
        longest = min(max(longest, len(prompt) + 1), config.text_config.max_position_embeddings)
        found: Tensor = self.model.generate(
            normalised(stretched).to(weight)[None],
            # The last one stands for the end mark of a tokenised prompt, which the network cuts off.
            torch.tensor([[*prompt, config.text_config.sep_token_id]], device=weight.device),
            num_beams=beams,
            min_length=min(shortest, longest),
            max_length=longest,
            do_sample=False,
            repetition_penalty=1.0,
        )
        return self.words.decode(found[0, len(prompt) :].tolist(), skip_special_tokens=True).strip()


def load_captioner(folder: Path, device: torch.device, dtype: torch.dtype) -> Captioner:
    """Load the network from the folder of models, from whichever layout is there. Raises MissingNetwork, BadModelFile.

    A folder that transformers published may be that folder itself or one in it.
    """
    place = folder / FOLDER
    for candidate in (place, *sorted(path for path in place.glob("*") if path.is_dir())):
        for name in WEIGHTS if (candidate / "config.json").is_file() else ():
            if (candidate / name).is_file():
                return _from_folder(candidate, candidate / name, device, dtype)
    if (place / ORIGINAL).is_file():
        return _from_original(place / ORIGINAL, device, dtype)
    wanted = f"a BLIP captioning model: config.json, vocab.txt and {WEIGHTS[0]} of one in a folder, or {ORIGINAL}"
    raise MissingNetwork("clip", wanted, place / "<folder>" / WEIGHTS[0])


def _from_folder(folder: Path, path: Path, device: torch.device, dtype: torch.dtype) -> Captioner:
    content = read_object(folder / "config.json")
    try:
        made = BlipConfig(text_config=sizes(content, "text_config"), vision_config=sizes(content, "vision_config"))
    except ValueError as error:
        raise BadModelFile(f"{folder.name}/config.json: is not BLIP's: {str(error).splitlines()[0]}") from error
    return _build(path, made, read_state_dict(path, MAX_BYTES), _read_words(folder), device, dtype)


def _from_original(path: Path, device: torch.device, dtype: torch.dtype) -> Captioner:
    words = _read_words(path.parent)
    weights = {_renamed(name): value for name, value in read_state_dict(path, MAX_BYTES).items()}
    try:
        config = BlipConfig(text_config=_text_sizes(weights, words), vision_config=_vision_sizes(weights))
    except (KeyError, IndexError, ValueError) as error:
        raise BadModelFile(f"{path.name}: is not BLIP's captioning model: no {error}") from error
    return _build(path, config, weights, words, device, dtype)


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _vision_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the original's configuration says of the picture's network, as its weights tell it."""
    patch = weights["vision_model.embeddings.patch_embedding.weight"]
    places = weights["vision_model.embeddings.position_embedding"].shape[1] - 1
    return {
        "hidden_size": patch.shape[0],
        "intermediate_size": weights["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _layers(weights, "vision_model.encoder.layers"),
        "num_attention_heads": max(patch.shape[0] // _HEAD_WIDTH, 1),
        "patch_size": patch.shape[-1],
        "image_size": round(places**0.5) * patch.shape[-1],
        "layer_norm_eps": 1e-6,
    }


def _text_sizes(weights: Mapping[str, Tensor], words: Tokenizer) -> dict[str, Any]:
    table = weights["text_decoder.bert.embeddings.word_embeddings.weight"]
    return {
        "vocab_size": table.shape[0],
        "hidden_size": table.shape[1],
        "intermediate_size": weights["text_decoder.bert.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": _layers(weights, "text_decoder.bert.encoder.layer"),
        "num_attention_heads": max(table.shape[1] // _HEAD_WIDTH, 1),
        "max_position_embeddings": weights["text_decoder.bert.embeddings.position_embeddings.weight"].shape[0],
        # Two marks stand behind BERT's words: the decoder's and the encoder's.
        "bos_token_id": table.shape[0] - 2,
        "sep_token_id": words.token_to_id(_END),
        "pad_token_id": words.token_to_id(_PADDING),
        "eos_token_id": words.token_to_id(_END),
    }


def _layers(weights: Mapping[str, Tensor], prefix: str) -> int:
    found = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in weights)
    return 1 + max(int(match[1]) for match in found if match)


def _build(
    path: Path,
    config: BlipConfig,
    weights: Mapping[str, Tensor],
    words: Tokenizer,
    device: torch.device,
    dtype: torch.dtype,
) -> Captioner:
    with torch.device("meta"):
        model = BlipForConditionalGeneration(config)
    wanted = model.state_dict()
    completed = {**{name: weights[source] for name, source in _TIED.items() if source in weights}, **weights}
    found = {name: completed[name].to(device, dtype) for name in wanted if name in completed}
    try:
        model.load_state_dict(found, assign=True)
    except RuntimeError as error:
        raise BadModelFile(f"{path.name}: does not fit: {' '.join(str(error).split())[:300]}") from error
    table = model.text_decoder.bert.embeddings
    table.position_ids = torch.arange(config.text_config.max_position_embeddings, device=device)[None]
    return Captioner(model.requires_grad_(False).eval(), words)


def _read_words(folder: Path) -> Tokenizer:
    """BERT's word pieces, lower-cased, from `vocab.txt` or `tokenizer.json`. Raises MissingNetwork, BadModelFile."""
    listed, described = folder / "vocab.txt", folder / "tokenizer.json"
    try:
        if listed.is_file():
            lines = listed.read_text(encoding="utf-8").splitlines()
            vocabulary = {word: number for number, word in enumerate(lines)}
        elif described.is_file():
            vocabulary = dict(read_object(described)["model"]["vocab"])
        else:
            raise MissingNetwork("clip", "BERT's list of words (bert-base-uncased)", listed)
        return _word_pieces(vocabulary)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadModelFile(f"{folder.name}: its vocab.txt or tokenizer.json is not BERT's: {error!r:.200}") from error


def _word_pieces(vocabulary: dict[str, int]) -> Tokenizer:
    marks = [word for word in vocabulary if re.fullmatch(r"\[[A-Z]+\]", word)]
    if not {_UNKNOWN, _END, _PADDING} <= set(marks):
        raise ValueError(f"has not all of {_UNKNOWN}, {_END}, {_PADDING}")
    words = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=_UNKNOWN))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.decoder = decoders.WordPiece()
    words.add_special_tokens(marks)
    return words
