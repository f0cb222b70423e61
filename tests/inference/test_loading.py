"""Models: what is refused before anything is loaded, and what two vocabularies share."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import SPECIAL, write_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from lightreasoner.errors import ModelError
from lightreasoner.inference import loading, vocabulary
from lightreasoner.presets import PRESETS
from lightreasoner.storage import artifacts


def edit_tokenizer(directory: Path, swap: tuple[str, str]) -> None:
    """Swap two tokens' texts in tokenizer.json."""
    path = directory / "tokenizer.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    vocab = tree["model"]["vocab"]
    vocab[swap[0]], vocab[swap[1]] = vocab[swap[1]], vocab[swap[0]]
    path.write_text(json.dumps(tree), encoding="utf-8")


def test_a_directory_is_identified_by_its_files(tiny_expert: Path) -> None:
    assert loading.resolve(str(tiny_expert)).digest == artifacts.digest(tiny_expert)


@pytest.mark.parametrize(
    "name",
    ["no/such/dir", "Qwen/Qwen2.5-0.5B", "microworld/nobody", "x", "x" * 5_000, "a\0b", "a\nb", ""],
)
def test_an_unknown_model_says_what_to_give(name: str) -> None:
    with pytest.raises(ModelError, match=r"neither a directory nor owner/name@commit") as caught:
        loading.resolve(name)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


@pytest.mark.slow  # the hub's client tries for 25 s
def test_a_hub_out_of_reach_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"fetched from the hub \(.*refused.*\); check") as error:
        loading.resolve(PRESETS["qwen2.5-math-1.5b"].models.expert)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_a_model_is_the_same_whenever_it_was_fetched(tiny_expert: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_expert, tmp_path / "m")
    before = loading.resolve_amateur("self:bits:4", str(tmp_path / "m"))
    kept = tmp_path / "m" / ".cache" / "huggingface" / "download" / "config.json.metadata"
    kept.parent.mkdir(parents=True)
    kept.write_text("1760000000.1\n")
    assert loading.resolve(str(tmp_path / "m")).digest == artifacts.digest(tiny_expert)
    assert not before.has_changed()


def test_a_folder_of_a_pinned_models_name_is_not_taken_for_it(
    tiny_expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    """One named with the commit, too, is a folder, known by its files' digest."""
    monkeypatch.chdir(tmp_path)
    name = PRESETS["qwen2.5-math-1.5b"].models.expert
    shutil.copytree(tiny_expert, name.partition("@")[0])
    with pytest.raises(ModelError, match="cannot be fetched from the hub"):
        loading.resolve(name)
    shutil.copytree(tiny_expert, name)
    assert loading.resolve(name).digest == artifacts.digest(tiny_expert)


def test_pickled_weights_only_are_refused(tiny_expert: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_expert, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled weights only \(pytorch_model.bin\)"):
        loading.resolve(str(tmp_path / "m"))


def test_a_directory_without_config_or_tokenizer_is_refused(
    tiny_expert: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"no config.json"):
        loading.resolve(str(tmp_path))
    shutil.copytree(tiny_expert, tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer.json"):
        loading.resolve(str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("settings", "field"),
    [({"n_positions": 1024}, "max_position_embeddings"), ({"text_config": {}}, "vocab_size")],
)
def test_sizes_under_other_names_are_named(
    tmp_path: Path, settings: dict[str, object], field: str
) -> None:
    """As GPT-2 and multimodal models have them."""
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    read = {
        "max_position_embeddings": loading.context_length,
        "vocab_size": vocabulary.vocabulary_size,
    }
    with pytest.raises(ModelError, match=rf"config.json: {field} must be a number at its top"):
        read[field](tmp_path)


def test_damaged_weights_are_one_line(tiny_expert: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_expert, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match=r"cannot be loaded"):
        loading.load_model(tmp_path / "m", "cpu", "float32")


def test_missing_weights_are_refused(tiny_expert: Path, tmp_path: Path) -> None:
    """transformers would draw them at random, anew at each load."""
    shutil.copytree(tiny_expert, tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are missing, the first is .*1.mlp.up_proj"):
        loading.load_model(tmp_path / "m", "cpu", "float32")


@pytest.mark.parametrize(
    ("family", "sizes", "said"),
    [
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, r"lfm2 .* \(conv\)"),
        ("mamba", {"state_size": 4}, r"mamba keeps more than keys and values"),
    ],
)
def test_states_other_than_keys_and_values_are_refused(
    tmp_path: Path, family: str, sizes: dict[str, object], said: str
) -> None:
    config = AutoConfig.for_model(
        family, vocab_size=259, hidden_size=64, num_hidden_layers=2, intermediate_size=32, **sizes
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=said):
        loading.load_model(tmp_path, "cpu", "float32")


def test_an_id_beyond_a_models_rows_is_not_shared(tiny_expert: Path, tmp_path: Path) -> None:
    """gemma-3-1b's tokenizer names one token more than the model has rows."""
    for name in ("one", "other"):
        shutil.copytree(tiny_expert, tmp_path / name)
        path = tmp_path / name / "tokenizer.json"
        tree = json.loads(path.read_text(encoding="utf-8"))
        tree["added_tokens"].append(tree["added_tokens"][0] | {"id": 259, "content": "<|more|>"})
        path.write_text(json.dumps(tree), encoding="utf-8")
    assert vocabulary.check_pair(tmp_path / "one", tmp_path / "other") == list(range(259))


@pytest.mark.parametrize("name", ["rope_type", "type"])
def test_long_rope_ends_where_its_frequencies_change(tmp_path: Path, name: str) -> None:
    """Beyond, transformers takes other ones for all rows of a batch, by its longest."""
    config = {
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "rope_scaling": {name: "longrope"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert loading.context_length(tmp_path) == 4096


def test_a_unigram_vocabulary_is_read(tmp_path: Path) -> None:
    tree = {"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree), encoding="utf-8")
    assert vocabulary.Vocabulary(tmp_path).tokens == {0: "a", 1: "b"}


def test_equal_vocabularies_share_every_id(tiny_expert: Path, tiny_amateur: Path) -> None:
    assert vocabulary.check_pair(tiny_expert, tiny_amateur) == list(range(259))
    assert vocabulary.differing_tokens(tiny_expert, tiny_amateur) == {}


def test_the_first_differing_ordinary_token_is_named(tiny_expert: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_expert, tmp_path / "m")
    tokens = vocabulary.Vocabulary(tiny_expert).tokens
    edit_tokenizer(tmp_path / "m", (tokens[41], tokens[200]))
    with pytest.raises(ModelError, match=r"differ in ordinary token 41: "):
        vocabulary.check_pair(tiny_expert, tmp_path / "m")


def test_a_token_that_only_one_has_is_named(tiny_expert: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, extra=["ab"])
    with pytest.raises(ModelError, match=r"token 256: '<.endoftext.>' against 'ab'"):
        vocabulary.check_pair(tiny_expert, tmp_path)


def test_renamed_special_tokens_are_left_out(tiny_expert: Path, tmp_path: Path) -> None:
    """DeepSeek-R1-Distill-Qwen renames several of Qwen2.5's special tokens."""
    shutil.copytree(tiny_expert, tmp_path / "m")
    path = tmp_path / "m" / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace(SPECIAL[1], "<|User|>"))
    assert vocabulary.check_pair(tiny_expert, tmp_path / "m") == [*range(257), 258]
    assert vocabulary.differing_tokens(tiny_expert, tmp_path / "m") == {
        257: (SPECIAL[1], "<|User|>")
    }


def test_stop_ids_hold_end_of_turn_and_end_of_text(tiny_expert: Path) -> None:
    assert loading.stop_ids(tiny_expert, loading.load_tokenizer(tiny_expert)) == {256, 258}
