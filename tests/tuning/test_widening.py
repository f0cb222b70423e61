"""A model kept in bfloat16 computes and folds as one that is float32 as a whole, to the byte."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_merge import load, merge, parity_of
from tiny_models import write_tokenizer
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from lightreasoner.errors import MergeError
from lightreasoner.inference import loading
from lightreasoner.pipeline import store
from lightreasoner.storage import artifacts
from lightreasoner.tuning import adapters
from lightreasoner.tuning import merge as merging
from lightreasoner.tuning.kept_dtype import kept_dtype
from lightreasoner.tuning.merge import parity_rows
from lightreasoner.tuning.parity import NONE, distance, logits
from lightreasoner.tuning.widening import Widening

TWO = ["q_proj", "v_proj"]
ALL = [*TWO, "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "two": {"target_modules": TWO},
    "all": {"target_modules": ALL},
    "dora": {"target_modules": TWO, "use_dora": True},
    "bias": {"target_modules": TWO, "bias": "all"},
    "lora_bias": {"target_modules": TWO, "lora_bias": True},
    "modules_to_save": {"target_modules": TWO, "modules_to_save": ["down_proj", "norm"]},
}
SHARDS = "20KB"


@dataclass(frozen=True)
class Kind:
    """A model's architecture, and how its files are."""

    config: type[PreTrainedConfig] = Qwen2Config
    tied: bool = True
    dtype: str = "bfloat16"
    shard: str = "5GB"


def write_expert(path: Path, kind: Kind, **sizes: int) -> Path:
    """A random model in the dtype, vectors included, as from_pretrained reads it."""
    torch.manual_seed(7)
    shape: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 259,
        "max_position_embeddings": 1024, "initializer_range": 0.2, "bos_token_id": None,
        "eos_token_id": 258, "tie_word_embeddings": kind.tied,
    }  # fmt: skip
    model = AutoModelForCausalLM.from_config(kind.config(**(shape | sizes)))
    for weight in model.parameters():
        if weight.dim() == 1:
            weight.data += 0.1 * torch.randn_like(weight)
    model.to(getattr(torch, kind.dtype)).save_pretrained(path, max_shard_size=kind.shard)
    write_tokenizer(path)
    return path


def write_adapter(path: Path, expert: Path, **settings: Any) -> Path:
    """An adapter of the expert, all of its tensors moved at random, in float32."""
    torch.manual_seed(8)
    lora = LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **settings)
    tuned = get_peft_model(load(expert), lora)
    for weight in tuned.parameters():
        if weight.requires_grad:
            weight.data += 0.05 * torch.randn_like(weight)
    tuned.save_pretrained(path, save_embedding_layers=False)
    file = path / "adapter_config.json"
    named = {"base_model_name_or_path": artifacts.digest(expert)}
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | named), encoding="utf-8")
    return path


def merge_as_a_whole(
    expert: Path, adapter: Path, rows: list[list[int]], out: Path, dtype: str
) -> dict[str, float]:
    """The merged model by peft's own fold of a float32 model, and its parity."""
    own = load(expert) if dtype == "float32" else loading.load_model(expert, "cpu", dtype)
    cast = distance(logits(load(expert), rows), logits(own, rows))
    tuned = adapters.put_on(load(expert), adapters.read_adapter(adapter))
    before = list(logits(tuned.get_base_model(), rows))
    folded = tuned.merge_and_unload().to(getattr(torch, dtype))
    folded.save_pretrained(out, max_shard_size=merging.SHARD_SIZE)
    found = distance(before, logits(loading.load_model(out, "cpu", dtype), rows))
    return {**found, **{f"cast_{name}": cast[name] for name in NONE}}


@pytest.mark.filterwarnings("ignore:Adapter 'default'.* invalid shape")  # peft, of lora_bias
@pytest.mark.parametrize(
    ("kind", "adapter", "dtype"),
    [
        (Kind(dtype="float32"), "all", "float32"),
        (Kind(dtype="float32"), "all", "bfloat16"),
        (Kind(dtype="float16"), "all", "bfloat16"),
        (Kind(), "two", "float32"),
        (Kind(shard=SHARDS), "all", "bfloat16"),
        (Kind(LlamaConfig, tied=False, shard=SHARDS), "all", "bfloat16"),
        (Kind(LlamaConfig), "all", "float32"),
        (Kind(GemmaConfig), "two", "float32"),
        *((Kind(tied=False), name, "bfloat16") for name in KINDS),
    ],
)
def test_the_bytes_are_those_of_a_model_that_is_float32_as_a_whole(
    kind: Kind,
    adapter: str,
    dtype: str,
    samples_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights, config.json and every figure of the parity."""
    monkeypatch.setattr(merging, "SHARD_SIZE", kind.shard)
    expert = write_expert(tmp_path / "expert", kind)
    lora = write_adapter(tmp_path / "adapter", expert, **KINDS[adapter])
    out = merge(expert, lora, samples_dir, tmp_path / "model", dtype=dtype, max_cast_ratio=100)
    rows, _ = parity_rows(samples_dir, lora, 3)
    parity = merge_as_a_whole(expert, lora, rows, tmp_path / "whole", dtype)
    assert parity_of(out).items() >= parity.items()
    names = {file.name for file in out.glob("*.safetensors*")}
    assert names == {file.name for file in (tmp_path / "whole").glob("*.safetensors*")}
    assert (len(names) > 2) == (kind.shard == SHARDS)
    for name in ("config.json", *names):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # peft
@pytest.mark.parametrize("end", ["embed_tokens", "lm_head"])
def test_weights_that_embeddings_and_head_share_are_folded_for_both(
    end: str, samples_dir: Path, tmp_path: Path
) -> None:
    """So an update of one of them is not the folded model's, and is refused."""
    for tied in (False, True):
        expert = write_expert(tmp_path / f"expert{tied}", Kind(tied=tied))
        lora = write_adapter(tmp_path / f"adapter{tied}", expert, target_modules=[end])
        if tied:
            with pytest.raises(MergeError, match="the folded weights differ"):
                merge(expert, lora, samples_dir, tmp_path / "refused")
        else:
            merge(expert, lora, samples_dir, tmp_path / "model")


def test_it_is_bfloat16_but_for_the_module_that_runs(tmp_path: Path) -> None:
    expert = write_expert(tmp_path / "expert", Kind())
    model = Widening().load_model(expert, "cpu")
    before = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    seen = []
    for module in model.modules():
        module.register_forward_pre_hook(
            lambda module, _: seen.append(
                {weight.dtype for weight in module.parameters(recurse=False)}
            )
        )
    rows = [[1, 2, 3], [4] * 40]
    for found, wanted in zip(logits(model, rows), logits(load(expert), rows), strict=True):
        assert torch.equal(found, wanted)
    assert {dtype for each in seen for dtype in each} == {torch.float32}
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == before


def test_files_of_one_dtype_are_kept_in_it(tiny_expert: Path, tmp_path: Path) -> None:
    assert kept_dtype(tiny_expert) == "float32"
    whole, shards = tmp_path / "whole", tmp_path / "shards"
    assert kept_dtype(write_expert(whole, Kind())) == "bfloat16"
    assert kept_dtype(write_expert(shards, Kind(shard=SHARDS))) == "bfloat16"
    assert kept_dtype(write_expert(tmp_path / "half", Kind(dtype="float16"))) == "float32"
    model = loading.load_model(whole, "cpu", "bfloat16")
    model.model.norm.float()
    model.save_pretrained(tmp_path / "mixed", max_shard_size=SHARDS)
    assert kept_dtype(tmp_path / "mixed") == "float32"


@pytest.mark.slow
def test_the_memory_is_that_of_the_files(samples_dir: Path, tmp_path: Path) -> None:
    """Less than the weights alone would take in float32; as a whole it takes three times the files.

    A model of 223 MiB, the largest matrices 36 MiB each in float32. The files' pages, which the
    system may take back, are counted.
    """
    sizes = {"hidden_size": 1024, "intermediate_size": 9216, "num_hidden_layers": 4, "head_dim": 64}
    expert = write_expert(tmp_path / "expert", Kind(), **sizes)
    lora = write_adapter(tmp_path / "adapter", expert, **KINDS["all"])
    files = sum(file.stat().st_size for file in expert.glob("*.safetensors")) / 2**20
    store.reset_peak_memory()
    before = store.peak_memory_mib()
    merge(expert, lora, samples_dir, tmp_path / "model", dtype="bfloat16", max_cast_ratio=100)
    assert store.peak_memory_mib() - before < 2 * files
