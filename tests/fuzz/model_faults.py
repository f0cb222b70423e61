"""Damage to model directories: a corpus of faults by name, and random ones.

A fault is the files that it writes, by name: bytes, or None for one that is gone.
"""

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
FIELDS: dict[str, dict[str, list[Any]]] = json.loads(
    Path(__file__).with_name("model_fields.json").read_text(encoding="utf-8")
)
"""By file and field, values that it cannot have."""


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
    for name, pattern in (
        ("NaN", b"\x00\x00\xc0\x7f"),
        ("inf", b"\x00\x00\x80\x7f"),
        ("ones", b"\xff" * 4),
    ):
        yield name, with_header(header, pattern * (len(body) // 4))
    yield "huge", with_header(header, b"\xff\xff\x7f\x7f" * (len(body) // 4))


def random_files(rng: Random, good: dict[str, bytes]) -> Files:
    """One or two files damaged at random."""
    found: Files = {}
    for file in rng.sample([*SETTINGS, *SETTINGS, WEIGHTS], rng.randint(1, 2)):
        if file == WEIGHTS:
            found[file] = odd_weights(rng, good[file])
        elif rng.random() < 0.7:
            found[file] = odd(rng, json.loads(good[file]))
        else:
            found[file] = damaged(rng, good[file])
    return found


def odd_weights(rng: Random, content: bytes) -> bytes:
    """A safetensors file with an odd header, or with damaged bytes."""
    header, body = header_of(content)
    return with_header(odd(rng, header), body) if rng.random() < 0.7 else damaged(rng, content)


def odd(rng: Random, tree: Any) -> bytes:
    """A tree with odd members, or one of its fields so, as JSON."""
    if rng.random() < 0.5:
        field = rng.choice(list(tree))
        is_tree = isinstance(tree[field], list | dict) and rng.random() < 0.5
        changed = {**tree, field: damaged_tree(rng, tree[field]) if is_tree else odd_value(rng)}
    else:
        changed = damaged_tree(rng, tree, 2)
    try:
        return json.dumps(changed).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):  # Python cannot write it
        return json.dumps(nested(50)).encode()
