"""Random models in the layout of the paper's: their ids, rows, special tokens and settings, and
their shapes, or tiny ones.

What is said of a repository (its shape, its tokenizer's added tokens and chat template, the ends of
its generation_config.json, rows, context) is what its files on the hub say at the commits of
lightreasoner/presets.py. The ordinary vocabulary has their size, not their tokens.
"""

import json
from dataclasses import dataclass
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, Qwen2Config

ORDINARY = 151_643
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END, START, TURN = ORDINARY, ORDINARY + 1, ORDINARY + 2

PLACES = ("object_ref_start", "object_ref_end", "box_start", "box_end")
SHARED = (
    "quad_start", "quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad",
)  # fmt: skip
TEXT = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
"""Added tokens that are text: they are decoded like any other."""

QWEN = (
    *((f"<|{name}|>", True) for name in ("endoftext", "im_start", "im_end", *PLACES, *SHARED)),
    *((token, False) for token in TEXT),
)
DEEPSEEK = (
    ("<｜end▁of▁sentence｜>", True),
    ("<｜User｜>", False),
    ("<｜Assistant｜>", False),
    ("<｜begin▁of▁sentence｜>", True),
    ("<|EOT|>", False),
    ("<think>", False),
    ("</think>", False),
    *((f"<|{name}|>", True) for name in SHARED),
    *((token, False) for token in TEXT),
)

CHATML = (
    "{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\\nCUE<|im_end|>\\n' }}"
    "{%- endif %}{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + "
    "message.content + '<|im_end|>' + '\\n' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
R1 = (
    "{% set ns = namespace(system='') %}{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{% set ns.system = message['content'] %}{%- endif %}"
    "{%- endfor %}{{bos_token}}{{ns.system}}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- endfor %}{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a Qwen2 model, and the base of its rotary embedding."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    rope_theta: float = 10_000.0


SMALL = Shape(1536, 8960, 28, 12, 2)
LARGE = Shape(3584, 18_944, 28, 28, 4)


@dataclass(frozen=True)
class Layout:
    """What a repository's files say; `ends` are generation_config.json's, the first its own."""

    shape: Shape = SMALL
    rows: int = 151_936
    context: int = 4096
    tied: bool = True
    ends: tuple[int, ...] = (END,)
    config_end: int = END
    end_token: str = "<|endoftext|>"
    added: tuple[tuple[str, bool], ...] = QWEN
    template: str = CHATML
    tokenizer: str = "Qwen2Tokenizer"
    begin: str | None = None


INSTRUCT: dict[str, Any] = {
    "ends": (TURN, END),
    "config_end": TURN,
    "end_token": "<|im_end|>",
}
LAYOUTS = {
    "amateur": Layout(Shape(896, 4864, 24, 14, 2, 1e6), context=32768),
    "qwen2.5-math-1.5b": Layout(),
    "qwen2.5-math-1.5b-instruct": Layout(**INSTRUCT),
    "deepseek-r1-distill-qwen-1.5b": Layout(
        context=131_072,
        tied=False,
        end_token=DEEPSEEK[0][0],
        added=DEEPSEEK,
        template=R1,
        tokenizer="LlamaTokenizerFast",
        begin=DEEPSEEK[3][0],
    ),
    "qwen2.5-math-7b": Layout(LARGE, rows=152_064, tied=False),
    "qwen2.5-math-7b-instruct": Layout(LARGE, rows=152_064, tied=False, **INSTRUCT),
}


def ordinary() -> Tokenizer:
    """A byte-level tokenizer with 151,643 ordinary tokens: bytes, all pairs, the first triples."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = list(product(bytes_, bytes_))
    triples = ((first + second, third) for first, second in pairs for third in bytes_)
    merges = list(islice(chain(pairs, triples), ORDINARY - len(bytes_)))
    tokens = [*bytes_, *("".join(merge) for merge in merges)]
    vocab = {token: index for index, token in enumerate(tokens)}
    assert len(vocab) == ORDINARY
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def tiny(hidden: int) -> Shape:
    """Two layers of this width."""
    return Shape(hidden, 2 * hidden, 2, 4, 2)


def settings(layout: Layout, shape: Shape) -> Qwen2Config:
    """The model's configuration."""
    return Qwen2Config(
        vocab_size=layout.rows,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=layout.context,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=layout.tied,
        bos_token_id=END,
        eos_token_id=layout.config_end,
    )


def write(
    path: Path, name: str, tokenizer_json: str, seed: int, shape: Shape | None = None
) -> Path:
    """A random model in a repository's layout, of its own width (weights in bfloat16, as there) or
    of another one (in float32); `tokenizer_json` is `ordinary`'s.
    """
    layout = LAYOUTS[name]
    own = shape or layout.shape
    torch.manual_seed(seed)
    config = settings(layout, own)
    dtype = torch.bfloat16 if own.hidden == layout.shape.hidden else torch.float32
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head.normal_(std=4 / own.hidden**0.5)  # logits so far apart that few tokens are plausible
        head[ORDINARY + len(layout.added) :] = 0  # rows without a token, which no model writes
    model.generation_config.eos_token_id = list(layout.ends)
    model.save_pretrained(path, max_shard_size="4GB")
    _write_tokenizer(path, layout, tokenizer_json)
    return path


def widen(path: Path) -> None:
    """Write a model's weights anew in float32, the same numbers: a stage that computes in float32
    maps these files, and needs little memory of its own.
    """
    for file in path.glob("*.safetensors"):
        weights = {name: weight.float() for name, weight in load_file(file).items()}
        save_file(weights, file.with_suffix(".wide"), {"format": "pt"})
        file.with_suffix(".wide").replace(file)
    config = Qwen2Config.from_pretrained(path)
    config.dtype = torch.float32
    config.save_pretrained(path)


def _write_tokenizer(path: Path, layout: Layout, tokenizer_json: str) -> None:
    added = [
        {
            "id": ORDINARY + index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": special,
        }
        for index, (token, special) in enumerate(layout.added)
    ]
    tree = json.loads(tokenizer_json) | {"added_tokens": added}
    (path / "tokenizer.json").write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")
    settings = {
        "tokenizer_class": layout.tokenizer,
        "bos_token": layout.begin,
        "eos_token": layout.end_token,
        "pad_token": layout.added[0][0],
        "unk_token": None,
        "add_bos_token": layout.begin is not None,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 16384,
        "chat_template": layout.template.replace("CUE", "You are a helpful assistant."),
    }
    (path / "tokenizer_config.json").write_text(
        json.dumps(settings, ensure_ascii=False), encoding="utf-8"
    )
