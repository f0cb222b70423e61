"""Damage to model directories: a corpus of faults by name, and random ones.

A fault is the files that it writes, by name: bytes, or None for one that is gone.
"""

import copy
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import damaged, damaged_tree, nested, odd_value

Files = dict[str, bytes | None]
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
SETTINGS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
OPTIONAL = ("special_tokens_map.json", "added_tokens.json", "chat_template.jinja")

TEXTS: dict[str, bytes] = {
    "empty": b"",
    "garbage": b"\x00\xff\xfe garbage",
    "not UTF-8": b'{"a": "\xff"}',
    "cut": b'{"a": ',
    "a list": b"[1, 2]",
    "a list of texts": b'["a"]',
    "a text": b'"text"',
    "a number": b"3",
    "null": b"null",
    "no fields": b"{}",
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
    "long number": b'{"eos_token_id": ' + b"9" * 5_000 + b"}",
}
FIELDS: dict[str, dict[str, list[Any]]] = {
    "config.json": {
        "num_attention_heads": [0, -1, 3, 2**40, "4", 1.5, None, [4]],
        "num_key_value_heads": [0, -1, 3, 2**40, "2", None],
        "num_hidden_layers": [0, -1, 10**6, 10**30, 1.5, True, None],
        "hidden_size": [0, -1, 7, 31, 10**12, 10**30, "32", 32.0, None],
        "intermediate_size": [0, -64, 10**12, "64", None],
        "head_dim": [0, -1, 7, 10**12, "8"],
        "vocab_size": [0, -1, 1, 10**6, 10**12, 10**30, "259", 259.5, None],
        "max_position_embeddings": [0, -1, 10**12, 10**30, None],
        "dtype": ["float99", "int8", "load", "__class__", 3, None, ["float32"]],
        "torch_dtype": ["float99", "nn", 3],
        "rms_norm_eps": [-1, "x", None, 1e400, 10**400],
        "hidden_act": ["gone", 3, None, ["silu"], "__import__"],
        "rope_theta": [0, -1, "x", 1e400],
        "rope_parameters": [
            "yarn", 3, [1], {"rope_type": 3}, {"rope_type": "gone"}, {"rope_type": []},
            {"rope_type": "yarn"}, {"rope_type": "yarn", "factor": "x"}, {"rope_type": "longrope"},
            {"rope_type": "longrope", "original_max_position_embeddings": "x"},
            {"rope_type": "dynamic", "factor": -1, "rope_theta": 0}, {"rope_theta": "x"},
            {"rope_type": "default", "rope_theta": 10**400}, {"rope_type": "linear", "factor": 0},
        ],
        "rope_scaling": ["x", 3, [1], {"type": 3}, {"type": "yarn"}, {"factor": 2}],
        "tie_word_embeddings": [False, "x", None, 3],
        "use_sliding_window": [True, "x"],
        "sliding_window": [0, -1, "x", 10**30],
        "layer_types": ["x", [], [3], ["gone", "gone"], ["full_attention"] * 3, {}],
        "model_type": ["gone", 3, None, [], "bert", "mamba", "gpt2", "llama", "t5", "whisper"],
        "architectures": [3, "x", ["gone"], [3], None],
        "auto_map": [{"AutoModelForCausalLM": "evil.Evil"}, 3, "x"],
        "quantization_config": [3, {}, {"quant_method": "gone"}, {"quant_method": 3}, {"quant_method": "awq"}],
        "eos_token_id": ["2", [[2]], -1, 10**30, 259, 1.5, [None]],
        "pad_token_id": ["x", -1, 10**30, 1_000, [1]],
        "bos_token_id": ["x", [], {}],
        "initializer_range": ["x", -1, None],
        "attention_dropout": ["x", -1, 2],
        "transformers_version": [3, "x", None],
        "_attn_implementation": ["gone", 3, "flash_attention_2"],
        "attn_implementation": ["gone", 3],
        "id2label": [3, "x", [1]],
        "num_labels": ["x", 10**9, -1],
        "problem_type": [3, "gone"],
        "tokenizer_class": [3, "gone"],
        "is_encoder_decoder": [True, "x"],
        "is_decoder": ["x", False],
        "chunk_size_feed_forward": ["x", 5],
        "output_hidden_states": ["x", True],
        "return_dict": [False, "x"],
        "use_cache": ["x"],
        "torchscript": [True],
        "pruned_heads": [{"x": 1}, 3],
        "_name_or_path": [3, [], "/etc"],
        "transformers_weights": ["x", 3, []],
        "base_model_tp_plan": [3],
    },
    "generation_config.json": {
        "eos_token_id": ["2", [[2]], -1, 10**30, 259, 1.5, [None], {}],
        "pad_token_id": ["x", -1, 10**30, []],
        "max_length": ["x", -1, 10**30, None],
        "max_new_tokens": ["x", -5, []],
        "temperature": ["x", -1, 0, None],
        "top_k": ["x", -1], "top_p": ["x", 7], "num_beams": ["x", 0, -1], "do_sample": ["x"],
        "cache_implementation": ["gone", 3], "transformers_version": [3], "watermarking_config": [3],
        "stop_strings": [3, [3]], "compile_config": [3], "cache_config": [3],
    },
    "tokenizer_config.json": {
        "eos_token": [3, [], {}, {"content": 3}, {"__type": "AddedToken"}, "gone", "x" * 10**6, True],
        "pad_token": [3, [], {"content": None}], "bos_token": [[1]], "unk_token": [3],
        "tokenizer_class": [3, "gone", None, [], "BertTokenizer", "Qwen2Tokenizer", "LlamaTokenizer", "T5Tokenizer"],
        "added_tokens_decoder": [[1], 3, {"x": 1}, {"-1": {"content": "x"}}, {"1": 3}, {"9" * 30: {"content": "x"}}],
        "additional_special_tokens": [3, [3], {"a": 1}, [[1]]],
        "extra_special_tokens": [3, [3], {"a": 1}],
        "chat_template": [3, [], [3], [{"name": "default"}], [{"name": 3, "template": 3}], {"a": 3}],
        "model_max_length": ["x", -1, 1e400, None, []],
        "padding_side": ["up", 3], "truncation_side": ["up"], "auto_map": [3, {"AutoTokenizer": "a.B"}, ["a.B", None]],
        "clean_up_tokenization_spaces": ["x"], "add_prefix_space": ["x", True], "add_bos_token": ["x", True],
        "fast_tokenizer_files": [3, ["x"]], "model_input_names": [3, "x", [3]], "split_special_tokens": ["x", True],
        "tokenizer_file": ["/etc/hostname", 3], "vocab_file": ["/etc/hostname", 3], "backend": ["gone", 3],
        "init_inputs": [3, [3]], "name_or_path": [3],
    },
    "tokenizer.json": {
        "version": [3, "9.0", None], "truncation": [3, {}, {"max_length": -1}], "padding": [3, {}],
        "added_tokens": [3, [3], [{}], {}, [{"id": "x", "content": "y"}], [{"id": -1, "content": "y"}], [{"id": 10**30, "content": "y"}], [{"id": 256, "content": 3}]],
        "normalizer": [3, {}, {"type": "gone"}, {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}, {"type": "Precompiled", "precompiled_charsmap": "AAAA"}],
        "pre_tokenizer": [3, {}, {"type": "gone"}, {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}],
        "post_processor": [3, {}, {"type": "TemplateProcessing"}, {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "gone", "type_id": 0}}], "pair": [], "special_tokens": {}}],
        "decoder": [3, [], "x", {}, {"type": "gone"}, {"type": "Sequence", "decoders": [3]}, {"type": "Sequence", "decoders": 3}],
        "model": [
            None, 3, [], {}, {"type": "gone"}, {"type": "BPE"}, {"type": "BPE", "vocab": 3, "merges": []},
            {"type": "BPE", "vocab": [], "merges": []}, {"type": "BPE", "vocab": {}, "merges": []},
            {"type": "BPE", "vocab": {"a": "x"}, "merges": []}, {"type": "BPE", "vocab": {"a": -1}, "merges": []},
            {"type": "BPE", "vocab": {"a": 10**9}, "merges": []}, {"type": "BPE", "vocab": {"a": 10**30}, "merges": []},
            {"type": "BPE", "vocab": {"a": 1, "b": 1}, "merges": []}, {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "gone"]]},
            {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}, {"type": "BPE", "vocab": {"a": 0}, "merges": [3]},
            {"type": "Unigram", "vocab": [["a", 0.0]]}, {"type": "Unigram", "vocab": [["a"]]}, {"type": "Unigram", "vocab": []},
            {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 7}, {"type": "WordLevel", "vocab": {"a": 0}},
            {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "gone"}, {"type": "WordPiece", "vocab": {"a": 0}},
        ],
    },
}  # fmt: skip


def files_of(model: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(model.iterdir())}


def corpus(good: dict[str, bytes]) -> Iterator[tuple[str, Files]]:
    """Every fault with its name."""
    for file in (*SETTINGS, *OPTIONAL, INDEX):
        for name, text in TEXTS.items():
            yield f"{file}: {name}", {file: text}
    for file, fields in FIELDS.items():
        tree = json.loads(good[file])
        for field, values in fields.items():
            for value in values:
                yield f"{file}: {field} {value!r:.60}", {file: _text({**tree, field: value})}
            yield f"{file}: {field} deep", {file: _deep(tree, field)}
    for name in [*SETTINGS, WEIGHTS]:
        yield f"{name}: gone", {name: None}
    for name, content in weights(good[WEIGHTS]):
        yield f"{WEIGHTS}: {name}", {WEIGHTS: content}


def _text(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _deep(tree: dict[str, Any], field: str) -> bytes:
    return _text({**tree, field: "here"}).replace(b'"here"', b"[" * 5_000 + b"]" * 5_000)


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header, and what follows."""
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:end]), content[end:]


def with_header(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def weights(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Damaged safetensors."""
    header, body = header_of(good)
    names = [name for name in header if name != "__metadata__"]
    first = names[0]

    def changed(**fields: Any) -> bytes:
        return with_header({**header, first: {**header[first], **fields}}, body)

    yield "empty", b""
    yield "short", b"\x01\x02"
    yield "cut header", good[:40]
    yield "cut body", good[:-7]
    yield "longer", good + bytes(9)
    for length in (0, 1, 2**31, 2**63, 2**64 - 1):
        yield f"header of {length}", struct.pack("<Q", length) + good[8:]
    yield "deep header", with_header(b"[" * 100_000, body)
    yield "header a list", with_header([], body)
    yield "header empty", with_header({}, body)
    yield "header null", with_header(b"null", body)
    for dtype in ("F64", "BF16", "I64", "F8_E4M3", "gone", 3, "BOOL"):
        yield f"dtype {dtype}", changed(dtype=dtype)
    for shape in ([], [0], [-1], [1], [10**12], [2**63], [2**64], "x", None, [2**32, 2**32]):
        yield f"shape {shape}", changed(shape=shape)
    for offsets in ([0, 0], [0, 10**12], [-1, 5], [5, 1], [0], "x", [0, 2**64], [4, 8]):
        yield f"offsets {offsets}", changed(data_offsets=offsets)
    yield "metadata", with_header({**header, "__metadata__": {"format": "gone"}}, body)
    yield "metadata 3", with_header({**header, "__metadata__": 3}, body)
    yield "no metadata", with_header({n: header[n] for n in names}, body)
    renamed = {("odd." + n if n == first else n): v for n, v in header.items()}
    yield "renamed", with_header(renamed, body)
    for name, pattern in (("NaN", b"\x00\x00\xc0\x7f"), ("inf", b"\x00\x00\x80\x7f"), ("ones", b"\xff" * 4)):
        yield name, with_header(header, pattern * (len(body) // 4))
    yield "huge", with_header(header, b"\xff\xff\x7f\x7f" * (len(body) // 4))


def random_files(rng: Random, good: dict[str, bytes]) -> Files:
    """One or two files damaged at random."""
    found: Files = {}
    for file in rng.sample([*SETTINGS, *SETTINGS, WEIGHTS], rng.randint(1, 2)):
        content = good[file]
        if rng.random() < 0.7:
            if file == WEIGHTS:
                header, body = header_of(content)
                found[file] = with_header(_odd(rng, header), body)
            else:
                found[file] = _odd(rng, json.loads(content))
        else:
            found[file] = damaged(rng, content)
    return found


def _odd(rng: Random, tree: Any) -> bytes:
    """A tree with odd members as JSON, what Python cannot write left out."""
    try:
        if rng.random() < 0.5:
            tree = copy.copy(tree)
            field = rng.choice(list(tree))
            tree[field] = odd_value(rng) if rng.random() < 0.6 else damaged_tree(rng, tree[field]) if isinstance(tree[field], (dict, list)) else odd_value(rng)
        else:
            tree = damaged_tree(rng, tree, 2)
        return json.dumps(tree).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return json.dumps(nested(50)).encode()
