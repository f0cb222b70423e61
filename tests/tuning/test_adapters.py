"""Adapters: whose they are, and every tensor of them in its place, or they are refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import SHARED
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from test_merge import load, make_adapter

from lightreasoner.errors import ArtifactError
from lightreasoner.inference import loading
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.tuning import adapters

WITNESSES = SHARED / "cases" / "files"
COMMIT = "4a83ca6e4526a4f2da3aa259ec36c259f66b2ab2"
HUB = "Qwen/Qwen2.5-Math-1.5B"

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def adapter_dir(tiny_expert: Path, tmp_path: Path) -> Path:
    make_adapter(tiny_expert, tmp_path / "adapter")
    return tmp_path / "adapter"


def set_fields(adapter: Path, **fields: Any) -> None:
    path = adapter / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | fields), encoding="utf-8")


def refused(adapter: Path, expert: Artifact) -> str:
    """The one line that refuses the adapter on this expert."""
    with pytest.raises(ArtifactError) as caught:
        adapters.check_tensors(adapters.read_adapter(adapter), expert.path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def renamed(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {
        name.replace("base_model.model.", f"base_model.model.{part}"): tensor
        for name, tensor in tensors.items()
    }


def halved(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if ".layers.1." not in name}


def one_lost(tensors: Tensors) -> Tensors:
    return dict(list(tensors.items())[1:])


def one_more(tensors: Tensors) -> Tensors:
    return tensors | {"base_model.model.lm_head.lora_A.weight": torch.zeros(8, 32)}


def transposed(tensors: Tensors) -> Tensors:
    return {name: tensor.T.contiguous() for name, tensor in tensors.items()}


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (renamed("_orig_mod."), f"lacks 8 of the 8 tensors .* the first is {FIRST};"),
        (renamed("language_model."), f"lacks 8 of the 8 tensors .* the first is {FIRST};"),
        (lambda tensors: {}, "lacks 8 of the 8 tensors"),
        (halved, "lacks 4 of the 8 tensors .* the first is .*layers.1.self_attn.q_proj.lora_A"),
        (one_lost, f"lacks 1 of the 8 tensors .* the first is {FIRST};"),
        (one_more, "1 tensors have no place in the model, the first is .*lm_head.lora_A.weight;"),
        (transposed, rf"{FIRST} has the shape \[32, 8\], but \[8, 32\] by the model and r 8"),
    ],
)
def test_tensors_are_compared_both_ways(
    tiny_expert: Path, adapter_dir: Path, change: Callable[[Tensors], Tensors], said: str
) -> None:
    path = adapter_dir / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    assert re.search(said, refused(adapter_dir, artifacts.of(tiny_expert)))


@pytest.mark.parametrize("r", [4, 16])
def test_a_rank_that_the_weights_have_not_is_named(
    tiny_expert: Path, adapter_dir: Path, r: int
) -> None:
    set_fields(adapter_dir, r=r)
    line = refused(adapter_dir, artifacts.of(tiny_expert))
    assert f"{FIRST} has the shape [8, 32], but [{r}, 32] by the model and r {r}" in line


def test_an_adapter_of_another_size_is_named(tiny_amateur: Path, adapter_dir: Path) -> None:
    assert "no place in the model" in refused(adapter_dir, artifacts.of(tiny_amateur))


@pytest.mark.skipif(not WITNESSES.is_dir(), reason="needs the shared cases")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("adapter_renamed_keys", "lacks 12 of the 12 tensors"),
        ("adapter_half_missing", "lacks 8 of the 12 tensors .* layers.1.self_attn.q_proj.lora_A"),
        ("adapter_wrong_rank", r"has the shape \[4, 128\], but \[8, 128\] by the model and r 8"),
    ],
)
def test_adapters_that_were_merged_though_they_are_not_whole(name: str, said: str) -> None:
    line = refused(WITNESSES / name, loading.resolve("microworld/expert"))
    assert re.search(said.replace(" layers", ".*layers"), line)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"target_modules": "all-linear"},
        {"layers_to_transform": [1], "bias": "lora_only"},
        {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 3}},
        {"init_lora_weights": "gaussian", "lora_dropout": 0.1},
    ],
)
def test_all_that_is_plain_lora_is_put_on_whole(
    tiny_expert: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """As peft itself saved it, with logits as they were."""
    torch.manual_seed(0)
    settings = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **changes}
    tuned = get_peft_model(load(tiny_expert), LoraConfig(**settings)).eval()
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    tuned.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    adapter = adapters.read_adapter(tmp_path / "adapter")
    adapters.check_tensors(adapter, tiny_expert)
    again = adapters.put_on(load(tiny_expert), adapter)
    batch = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(tuned(batch).logits, again(batch).logits)
    assert not torch.allclose(tuned(batch).logits, load(tiny_expert)(batch).logits, atol=0.01)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not plain LoRA"),
        ({"peft_type": None}, "peft_type None is not plain LoRA"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' is not plain LoRA"),
        ({"layer_replication": [[0, 2]]}, r"layer_replication \[\[0, 2\]\] is not plain"),
        ({"megatron_config": {"a": 1}}, "megatron_config {'a': 1} is not plain LoRA"),
        ({"r": "8"}, "r must be int, got '8'"),
        ({"r": True}, "r must be int, got True"),
        ({"r": None}, "r must be int, got None"),
        ({"r": 0}, "r must be at least 1"),
        ({"lora_alpha": "16"}, "lora_alpha must be int or float, got '16'"),
        ({"lora_alpha": [16]}, r"lora_alpha must be int or float, got \[16\]"),
        ({"target_modules": None}, "target_modules must be list or str, got None"),
        ({"target_modules": {"q_proj": 1}}, "target_modules must be list or str"),
        ({"target_modules": [1]}, r"target_modules names, got 8 and \[1\]"),
        ({"target_modules": ["nothing"]}, "peft cannot put it on this model"),
        ({"target_modules": "["}, "peft cannot put it on this model"),
        ({"rank_pattern": 3}, "peft cannot put it on this model"),
        ({"alpha_pattern": {"q_proj": "x"}}, "peft cannot put it on this model"),
        ({"r": 10**6}, "has the shape .*, but .* by the model and r 1000000"),
        ({"r": -3}, "r must be at least 1"),
        ({"target_modules": "(.*)*x"}, r"target_modules has '\(\.\*\)\*x', whose repeated parts"),
        ({"exclude_modules": ".*.*.*.*x"}, "exclude_modules has .*, whose repeated parts"),
        ({"rank_pattern": {"(a+)+$": 2}}, "rank_pattern has .*, whose repeated parts"),
        ({"bias": "some"}, "peft cannot put it on this model"),
        ({"layers_to_transform": "0"}, "peft cannot put it on this model"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path must be str, got None"),
        ({"base_model_name_or_path": ["x"]}, "base_model_name_or_path must be str"),
    ],
)
def test_settings_of_another_kind_are_one_line(
    tiny_expert: Path, adapter_dir: Path, fields: dict[str, Any], said: str
) -> None:
    set_fields(adapter_dir, **fields)
    assert re.search(said, refused(adapter_dir, artifacts.of(tiny_expert)))


def test_a_byte_order_mark_is_read(tiny_expert: Path, adapter_dir: Path) -> None:
    path = adapter_dir / "adapter_config.json"
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    adapters.check_tensors(adapters.read_adapter(adapter_dir), tiny_expert)


def test_weights_come_from_safetensors_in_the_directory(
    tiny_expert: Path, adapter_dir: Path, tmp_path: Path
) -> None:
    """A pickle beside them is not looked at; a link that leads out is refused."""
    expert, path = artifacts.of(tiny_expert), adapter_dir / "adapter_model.safetensors"
    (adapter_dir / "adapter_model.bin").write_bytes(b"no pickle")
    adapters.put_on(load(tiny_expert), adapters.read_adapter(adapter_dir))
    path.rename(tmp_path / "outside")
    with pytest.raises(ArtifactError, match=r"adapter_model.safetensors: no such file"):
        adapters.read_adapter(adapter_dir)
    path.symlink_to("../outside")
    assert "adapter_model.safetensors: is not a file in the directory" in refused(
        adapter_dir, expert
    )
    path.unlink()
    path.write_bytes(b"not safetensors")
    assert "adapter_model.safetensors: cannot be loaded" in refused(adapter_dir, expert)


def accepted(adapter: Path, expert: Artifact) -> None:
    adapters.check_base(adapters.read_adapter(adapter), expert)


def test_a_base_may_be_named_by_its_directory(
    tiny_expert: Path, adapter_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absolute, with a slash, relative to the current folder, through a link."""
    expert = artifacts.of(tiny_expert)
    (tmp_path / "link").symlink_to(tiny_expert)
    monkeypatch.chdir(tiny_expert.parent)
    for base in (expert.digest, str(tiny_expert), f"{tiny_expert}/", str(tmp_path / "link")):
        set_fields(adapter_dir, base_model_name_or_path=base)
        accepted(adapter_dir, expert)
    for base in (
        tiny_expert.name,
        f"./{tiny_expert.name}",
        f"../{Path.cwd().name}/{tiny_expert.name}",
    ):
        set_fields(adapter_dir, base_model_name_or_path=base)
        accepted(adapter_dir, expert)
    set_fields(adapter_dir, base_model_name_or_path="microworld/expert")
    accepted(adapter_dir, loading.resolve("microworld/expert"))


@pytest.mark.parametrize(
    ("base", "revision"),
    [(HUB, None), (HUB, COMMIT), (HUB, "main"), (f"{HUB}@{COMMIT}", None)],
)
def test_a_base_may_be_named_by_its_hub_id(
    adapter_dir: Path, tmp_path: Path, base: str, revision: str | None
) -> None:
    set_fields(adapter_dir, base_model_name_or_path=base, revision=revision)
    accepted(adapter_dir, Artifact(tmp_path, f"{HUB}@{COMMIT}"))


@pytest.mark.parametrize(
    ("base", "revision", "said"),
    [
        ("Qwen/Qwen2.5-0.5B", None, "its base is 'Qwen/Qwen2.5-0.5B', this expert is"),
        (HUB, "0" * 40, f"its base is '{HUB}' at '0000"),
        (f"{HUB}@{'0' * 40}", None, f"its base is '{HUB}@0000"),
        ("/nowhere/expert", None, "its base is '/nowhere/expert', this expert is"),
        ("0" * 32 + ".dir", None, "its base is '0000"),
        ("", None, "its base is '', this expert is"),
        ("a\0b", None, "its base is 'a"),
    ],
)
def test_another_base_is_refused_by_name(
    tiny_amateur: Path, adapter_dir: Path, base: str, revision: str | None, said: str
) -> None:
    set_fields(adapter_dir, base_model_name_or_path=base, revision=revision)
    for expert in (artifacts.of(tiny_amateur), Artifact(tiny_amateur, f"{HUB}@{COMMIT}")):
        with pytest.raises(ArtifactError, match=re.escape(said)) as caught:
            accepted(adapter_dir, expert)
        assert "\n" not in str(caught.value)
    set_fields(adapter_dir, base_model_name_or_path=str(tiny_amateur.parent))
    with pytest.raises(ArtifactError, match=f"its base is '{tiny_amateur.parent}'"):
        accepted(adapter_dir, artifacts.of(tiny_amateur))
