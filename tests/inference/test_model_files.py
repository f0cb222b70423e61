"""A model directory's files: what is read lies inside, in safetensors, and is in its digest."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkout import SHARED
from safetensors.torch import load_file, save_file

from lightreasoner.errors import ModelError
from lightreasoner.inference import loading, vocabulary
from lightreasoner.inference.decode import decode
from lightreasoner.storage import artifacts

WITNESS = SHARED / "cases" / "files" / "eos_as_text_generation_config.json"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def model(tiny_expert: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_expert, tmp_path / "m")
    return tmp_path / "m"


def write_index(model: Path, file: str) -> None:
    names = load_file(model / "model.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, file)}
    (model / INDEX).write_text(json.dumps(index), encoding="utf-8")


def to_pickle(model: Path) -> None:
    write_index(model, "weights.bin")
    torch.save(load_file(model / "model.safetensors"), model / "weights.bin")
    (model / "model.safetensors").rename(model / "decoy.safetensors")


def to_outside(model: Path) -> None:
    write_index(model, "../outside.safetensors")
    (model / "model.safetensors").rename(model.parent / "outside.safetensors")
    (model / "decoy.safetensors").write_bytes(b"")


def to_absolute(model: Path) -> None:
    to_outside(model)
    index = (model / INDEX).read_text(encoding="utf-8")
    (model / INDEX).write_text(index.replace("..", str(model.parent)), encoding="utf-8")


def to_folder(model: Path) -> None:
    write_index(model, "sub/part.safetensors")
    (model / "sub").mkdir()
    (model / "model.safetensors").rename(model / "sub" / "part.safetensors")
    (model / "decoy.safetensors").write_bytes(b"")


def to_nothing(model: Path) -> None:
    write_index(model, "part.safetensors")


def without_index(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")


def by_config(model: Path) -> None:
    settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
    settings["transformers_weights"] = "other.safetensors"
    (model / "config.json").write_text(json.dumps(settings), encoding="utf-8")


def with_adapter(model: Path) -> None:
    (model / "adapter_config.json").write_text("{}", encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (to_pickle, r"maps weights to 'weights.bin'; only \*.safetensors beside it are read"),
        (to_outside, r"maps weights to '../outside.safetensors'; only"),
        (to_absolute, r"maps weights to '/.*/outside.safetensors'; only"),
        (to_folder, r"maps weights to 'sub/part.safetensors'; only"),
        (to_nothing, r"maps weights to 'part.safetensors', which is not there"),
        (without_index, r"neither model.safetensors nor model.safetensors.index.json"),
        (by_config, r"transformers_weights names 'other.safetensors'"),
        (with_adapter, r"adapter_config.json: is beside a model, and .* would apply it unasked"),
    ],
)
def test_weights_are_those_of_the_directory_in_safetensors(
    model: Path, change: Callable[[Path], None], said: str
) -> None:
    """Refused where a model is named, and again where its weights are loaded."""
    change(model)
    with pytest.raises(ModelError, match=said) as caught:
        loading.resolve(str(model))
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=said):
        loading.load_model(model, "cpu", "float32")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "[" * 100_000]
)
def test_an_index_that_is_none_is_named(model: Path, text: str) -> None:
    (model / INDEX).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"model.safetensors.index.json: ") as caught:
        loading.resolve(str(model))
    assert "\n" not in str(caught.value)


def test_shards_of_an_index_are_read(model: Path) -> None:
    names = load_file(model / "model.safetensors")
    write_index(model, "part.safetensors")
    (model / "model.safetensors").rename(model / "part.safetensors")
    assert loading.resolve(str(model)).digest == artifacts.digest(model)
    loaded = loading.load_model(model, "cpu", "float32").state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in names.items())


def linked_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model.parent / "elsewhere")
    (model / "model.safetensors").symlink_to("../elsewhere")


def linked_text(model: Path) -> None:
    (model / "notes.txt").symlink_to("/etc/hostname")


def linked_folder(model: Path) -> None:
    (model.parent / "more").mkdir()
    (model / "more").symlink_to("../more", target_is_directory=True)


def linked_to_itself(model: Path) -> None:
    (model / "again").symlink_to(".", target_is_directory=True)


def linked_to_nothing(model: Path) -> None:
    (model / "notes.txt").symlink_to("gone")


def linked_in_a_circle(model: Path) -> None:
    (model / "notes.txt").symlink_to("notes.txt")


def a_pipe(model: Path) -> None:
    os.mkfifo(model / "notes.txt")


@pytest.mark.parametrize(
    "change",
    [
        linked_weights,
        linked_text,
        linked_folder,
        linked_to_itself,
        linked_to_nothing,
        linked_in_a_circle,
        a_pipe,
    ],
)
def test_links_that_lead_out_are_refused(model: Path, change: Callable[[Path], None]) -> None:
    change(model)
    with pytest.raises(
        ModelError, match=r"is not a file in the directory .*; copy it in"
    ) as caught:
        loading.resolve(str(model))
    assert "\n" not in str(caught.value)


def test_links_that_stay_inside_are_read(model: Path, tmp_path: Path) -> None:
    """The directory itself may be a link, too."""
    (model / "notes.txt").symlink_to("config.json")
    (tmp_path / "link").symlink_to(model, target_is_directory=True)
    assert loading.resolve(str(tmp_path / "link")).digest == artifacts.digest(model)


def test_the_hubs_own_cache_is_read(model: Path, tmp_path: Path) -> None:
    """snapshots/<commit>/<file> leads to blobs/<sum>, and nowhere else."""
    snapshot, blobs = tmp_path / "hub" / "snapshots" / ("0" * 40), tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(model.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert loading.resolve(str(snapshot)).path == snapshot
    loading.load_model(snapshot, "cpu", "float32")
    (tmp_path / "hub" / "other").write_bytes(b"")
    (snapshot / "more.safetensors").symlink_to("../../other")
    with pytest.raises(ModelError, match=r"more.safetensors: is not a file in the directory"):
        loading.resolve(str(snapshot))


def test_tokens_are_those_of_tokenizer_json(model: Path, tmp_path: Path) -> None:
    """transformers would take a file of another name, outside too, and ids would mean others."""
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["fast_tokenizer_files"] = ["../tokenizer.4.0.json"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    shutil.copyfile(model / "tokenizer.json", tmp_path / "tokenizer.4.0.json")
    for read in (lambda: loading.resolve(str(model)), lambda: loading.load_tokenizer(model)):
        with pytest.raises(ModelError, match=r"fast_tokenizer_files names .*; only tokenizer.json"):
            read()


def use(model: Path) -> set[int]:
    """All that is read of a model's settings, without its weights; the ids that end a response."""
    loading.resolve(str(model))
    vocabulary.check_pair(model, model)
    loading.context_length(model)
    loading.load_skeleton(model)
    tokenizer = loading.load_tokenizer(model)
    return loading.stop_ids(model, tokenizer)


@pytest.mark.parametrize(
    ("file", "fields", "said"),
    [
        ("generation_config.json", {"eos_token_id": "2"}, "eos_token_id must be an id or a list"),
        ("generation_config.json", {"eos_token_id": ["2"]}, "eos_token_id must be an id"),
        ("generation_config.json", {"eos_token_id": [[2]]}, "eos_token_id must be an id"),
        ("generation_config.json", {"eos_token_id": {"a": 2}}, "eos_token_id must be an id"),
        ("generation_config.json", {"eos_token_id": 2.5}, "eos_token_id must be an id"),
        ("generation_config.json", {"eos_token_id": True}, "eos_token_id must be an id"),
        ("generation_config.json", None, "not valid JSON"),
        ("generation_config.json", [1], r"must hold a JSON object, got \[1\]"),
        ("config.json", {"eos_token_id": "258"}, "eos_token_id must be an id or a list of ids"),
        ("config.json", {"vocab_size": "259"}, "vocab_size must be a number at its top level"),
        ("config.json", {"max_position_embeddings": True}, "max_position_embeddings must be a"),
        ("config.json", {"max_position_embeddings": 0}, "max_position_embeddings must be a"),
        ("config.json", {"rope_parameters": "yarn"}, "rope_parameters must be an object"),
        ("config.json", {"rope_parameters": [1]}, "rope_parameters must be an object"),
        ("config.json", {"eos_token_id": 259}, "ids below the vocabulary's 259, got 259"),
        ("config.json", {"eos_token_id": -1}, "ids below the vocabulary's 259, got -1"),
        (
            "generation_config.json",
            {"eos_token_id": 10**30},
            "below the vocabulary's 259, got 1000",
        ),
        ("config.json", {"num_labels": 10**9}, "num_labels is 1000000000, the limit 10,000"),
        (
            "config.json",
            {"text_config": {"n_layer": 10**6}},
            "n_layer is 1000000, the limit 10,000",
        ),
        ("config.json", {"head_dim": 10**12}, "head_dim is 1000000000000, the limit 16,777,216"),
        ("config.json", {"num_hidden_layers": "2"}, "cannot be loaded"),
        ("config.json", {"hidden_act": ["silu"]}, "cannot be loaded"),
        ("config.json", {"hidden_size": {}}, "cannot be loaded"),
        ("config.json", {"model_type": None}, "cannot be loaded"),
        ("config.json", None, "not valid JSON"),
        ("config.json", "text", "must hold a JSON object"),
        ("tokenizer.json", {"model": None}, "cannot be loaded"),
        ("tokenizer.json", {"model": {"vocab": 3}}, "cannot be loaded"),
        ("tokenizer.json", {"added_tokens": [3]}, "cannot be loaded"),
        ("tokenizer.json", {"added_tokens": [{"id": "x", "content": "y"}]}, "'y' has the id 'x'"),
        ("tokenizer.json", {"added_tokens": [{"id": -1, "content": "y"}]}, "'y' has the id -1"),
        (
            "tokenizer.json",
            {"model": {"type": "BPE", "vocab": {"a": 1e3}}},
            "'a' has the id 1000.0",
        ),
        ("tokenizer.json", {"model": {"type": "Unigram", "vocab": []}}, "cannot be loaded"),
        (
            "tokenizer.json",
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
            "PanicException: Precompiled",
        ),
        ("tokenizer_config.json", {"model_max_length": "x"}, "cannot be loaded .TypeError"),
        ("special_tokens_map.json", None, "special_tokens_map.json: not valid JSON"),
        ("special_tokens_map.json", [1], "special_tokens_map.json: must hold a JSON object"),
        ("added_tokens.json", "text", "added_tokens.json: must hold a JSON object"),
        ("tokenizer.json", None, "not valid JSON"),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, "cannot be loaded"),
        ("tokenizer_config.json", None, "not valid JSON"),
    ],
)
def test_settings_of_another_kind_are_one_line(
    model: Path, file: str, fields: object, said: str
) -> None:
    path = model / file
    if isinstance(fields, dict):
        fields = (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}) | fields
    path.write_text("{" if fields is None else json.dumps(fields), encoding="utf-8")
    with pytest.raises(ModelError, match=said) as caught:
        use(model)
    assert "\n" not in str(caught.value)
    assert str(model) in str(caught.value)


def load(model: Path) -> str:
    """The line that refuses a model's weights."""
    with pytest.raises(ModelError) as caught:
        loading.load_model(model, "cpu", "float32")
    assert "\n" not in str(caught.value)
    assert str(model) in str(caught.value)
    return str(caught.value)


def set_config(model: Path, **fields: object) -> None:
    path = model / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | fields), encoding="utf-8")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"vocab_size": 10**7},
            "embed_tokens.weight has the shape [259, 32], by config.json [1000",
        ),
        ({"hidden_size": 10**6}, "has the shape [259, 32], by config.json [259, 1000000]"),
        (
            {"num_hidden_layers": 9, "layer_types": None},
            "84 weights are missing, the first is model.",
        ),
        ({"num_hidden_layers": 1, "layer_types": None}, "12 weights have no place in a model of"),
        ({"num_attention_heads": 0}, "cannot be loaded (ZeroDivisionError"),
        ({"return_dict": False}, "cannot be loaded (AttributeError"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 0}},
            "config.json makes model.rotary_emb",
        ),
    ],
)
def test_weights_are_those_of_the_configuration(
    model: Path, capfd: pytest.CaptureFixture[str], fields: dict[str, object], said: str
) -> None:
    """Before any is read or made: wrong sizes would take all memory. No table is printed."""
    set_config(model, **fields)
    assert said in load(model)
    assert "|" not in capfd.readouterr().err


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(model: Path, value: float) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][3] = value
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert "the weight model.norm.weight is not finite" in load(model)


def test_finite_weights_whose_sum_is_not_are_read(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.layers.0.self_attn.k_proj.bias"][:] = 3e38
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert "is not finite" not in load(model)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_safetensors_that_are_damaged_are_one_line(model: Path, length: int) -> None:
    path = model / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(length.to_bytes(8, "little") + content[8:])
    assert "cannot be loaded" in load(model)
    path.write_bytes(content[:-7])
    assert "cannot be loaded" in load(model)


def test_a_token_without_a_row_is_named(model: Path) -> None:
    loaded = loading.load_model(model, "cpu", "float32")
    with pytest.raises(
        ModelError, match=rf"{model}: its tokenizer gives the token 259, but .* 259;"
    ):
        decode(loaded, [[1, 2], [3, 259]], {258}, 2)


@pytest.mark.skipif(not WITNESS.is_file(), reason="needs the shared cases")
def test_ends_that_are_text_are_refused_when_the_model_is_named(model: Path) -> None:
    shutil.copyfile(WITNESS, model / "generation_config.json")
    with pytest.raises(ModelError, match=r"eos_token_id must be an id .* got '2'"):
        loading.resolve(str(model))


@pytest.mark.parametrize("eos", [256, [256, 258], None])
def test_a_byte_order_mark_is_read(model: Path, eos: object) -> None:
    path = model / "generation_config.json"
    path.write_text("\ufeff" + json.dumps({"eos_token_id": eos}), encoding="utf-8")
    assert use(model) == {256, 258}
    loading.load_model(model, "cpu", "float32")
