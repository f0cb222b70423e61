"""Fine-tuning: batchings that agree, updates as planned, seeds that count, faults on request."""

import json
import logging
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers.models.qwen2 import modeling_qwen2

from lightreasoner.config import Compute, Finetune
from lightreasoner.errors import ModelError
from lightreasoner.inference import loading
from lightreasoner.progress import Silent
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Workspace
from lightreasoner.tuning.finetune import objective, plan_updates, with_lora, write
from lightreasoner.tuning.loss import collate, summed_divergence
from lightreasoner.tuning.rows import TrainingRow, read_rows, split_row

CPU = Compute(device="cpu", dtype="float32")
SMALL = {"updates": 4, "samples_per_update": 6, "samples_per_forward": 4, "learning_rate": 1e-2}


def settings(**changes: object) -> Finetune:
    values = {**SMALL, "seed": 1, "validation_share": 0, **changes}
    return Finetune.model_validate(values)


def test_rows_end_at_the_trained_prefix(samples_dir: Path) -> None:
    """Step t is predicted at position len(prompt) + t - 1 from the tokens before it."""
    rows = read_rows(samples_dir, "trajectory")
    assert [row.positions for row in rows] == [[1], [3, 5], [0, 2, 4]]
    assert rows[0].input_ids == [1, 2]
    assert rows[1].input_ids == [3, 4, 5, 7, 7, 7]
    alone = read_rows(samples_dir, "sample")
    assert [row.input_ids for row in alone[3:]] == [[6], [6, 6, 6], [6, 6, 6, 6, 6]]
    assert all(row.positions == [len(row.input_ids) - 1] for row in alone)


def gradients(directory: Path, forwards: list[list[TrainingRow]], dtype: str) -> torch.Tensor:
    """Loss and all LoRA gradients of one update, with a fixed adapter and no dropout."""
    torch.manual_seed(0)
    config = settings(lora_dropout=0.0)
    model = with_lora(loading.load_model(directory, "cpu", dtype), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    total = torch.zeros((), dtype=getattr(torch, dtype))
    for forward in forwards:
        loss = summed_divergence(model.get_base_model(), collate(forward, torch.device("cpu")))
        loss.backward()
        total += loss.detach()
    grads = [w.grad.flatten() for w in model.parameters() if w.grad is not None]
    assert len(grads) == 2 * 2 * config_layers(directory)
    return torch.cat([total[None], *grads])


def config_layers(directory: Path) -> int:
    return int(json.loads((directory / "config.json").read_text())["num_hidden_layers"])


def norm_without_a_cast(self: modeling_qwen2.Qwen2RMSNorm, hidden: torch.Tensor) -> torch.Tensor:
    """RMSNorm in the states' own type; transformers' casts to float32 on the way."""
    scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * (hidden * scale)


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-4), ("float64", 1e-9)])
def test_packed_equals_one_prefix_at_a_time(
    tiny_expert: Path, samples_dir: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, limit: float
) -> None:
    """Measured: 1.8e-7 in float32, 4.5e-16 in float64."""
    if dtype == "float64":
        monkeypatch.setattr(modeling_qwen2.Qwen2RMSNorm, "forward", norm_without_a_cast)
    rows = read_rows(samples_dir, "trajectory")
    packed = gradients(tiny_expert, [rows], dtype)
    alone = gradients(tiny_expert, [[part] for row in rows for part in split_row(row)], dtype)
    halves = gradients(tiny_expert, [rows[:1], rows[:0:-1]], dtype)
    assert (packed - alone).norm() / alone.norm() <= limit
    assert (packed - halves).norm() / alone.norm() <= limit


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_equal_a_dense_oracle(
    tiny_expert: Path, samples_dir: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """The oracle pads on the left, one prefix a row, whole logits, dense labels, torch's kl_div,
    in float64. Measured: 2.7e-7 in float32, 2.7e-16 in float64."""
    rows = read_rows(samples_dir, "sample")
    found = gradients(tiny_expert, [rows], dtype).double()
    monkeypatch.setattr(modeling_qwen2.Qwen2RMSNorm, "forward", norm_without_a_cast)
    if dtype == "float64":
        found = gradients(tiny_expert, [rows], dtype)
    torch.manual_seed(0)
    model = with_lora(loading.load_model(tiny_expert, "cpu", dtype), settings(lora_dropout=0.0))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    model = model.double()
    width = max(len(row.input_ids) for row in rows)
    ids, mask = torch.zeros(len(rows), width).long(), torch.zeros(len(rows), width).long()
    labels = torch.zeros(len(rows), model.config.vocab_size).double()
    for index, row in enumerate(rows):
        ids[index, width - len(row.input_ids) :] = torch.tensor(row.input_ids)
        mask[index, width - len(row.input_ids) :] = 1
        labels[index, row.labels[0][0]] = torch.tensor(row.labels[0][1]).double()
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1]
    loss = torch.nn.functional.kl_div(logits.log_softmax(-1), labels, reduction="sum")
    loss.backward()
    grads = [w.grad.flatten() for w in model.parameters() if w.grad is not None]
    oracle = torch.cat([loss.detach()[None], *grads])
    assert (found - oracle).norm() / oracle.norm() <= (1e-4 if dtype == "float32" else 1e-9)


def test_a_pad_position_gives_another_loss(tiny_expert: Path, samples_dir: Path) -> None:
    """deviations.md: right padding and logits[:, -1] train on a pad for all but the longest; the
    oracle is the authors' own reading of a padded batch."""
    rows = read_rows(samples_dir, "sample")
    model = loading.load_model(tiny_expert, "cpu", "float32")
    tokenizer = loading.load_tokenizer(tiny_expert)
    tokenizer.pad_token = None  # not every tokenizer has one
    there = objective(settings(batching="sample", reference=["last_column"]), tokenizer)
    here = objective(settings(), tokenizer)
    cpu = torch.device("cpu")
    right, faulty = (summed_divergence(model, o.collate(rows, cpu)) for o in (here, there))
    assert (right - faulty).abs() > 0.1
    encoded = [torch.tensor(row.input_ids) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(encoded, batch_first=True, padding_value=tokenizer.eos_token_id)
    mask = pad([torch.ones_like(row) for row in encoded], batch_first=True)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits[:, -1]
    labels = torch.zeros_like(logits)
    for index, row in enumerate(rows):
        labels[index, row.labels[0][0]] = torch.tensor(row.labels[0][1])
    theirs = torch.nn.functional.kl_div(logits.log_softmax(-1), labels, reduction="sum")
    torch.testing.assert_close(faulty, theirs, rtol=1e-4, atol=1e-4)


def test_special_tokens_can_be_left_out_as_the_authors_do(
    tiny_expert: Path, samples_dir: Path
) -> None:
    """deviations.md: `tokenizer.vocab_size` is 256 here, so id 258 vanishes from the label, its
    weight with it, and pi is over the first 256 ids alone."""
    row = split_row(read_rows(samples_dir, "trajectory")[0])[0]
    row = TrainingRow(row.problem_id, row.input_ids, row.positions, [([40, 258], [0.6, 0.4])])
    model = loading.load_model(tiny_expert, "cpu", "float32")
    tokenizer = loading.load_tokenizer(tiny_expert)
    assert tokenizer.vocab_size == 256
    aim = objective(settings(reference=["ordinary_tokens"]), tokenizer)
    found = summed_divergence(model, aim.collate([row], torch.device("cpu")), aim.vocabulary)
    with torch.no_grad():
        logits = model(torch.tensor([row.input_ids])).logits[0, -1, :256]
    expected = 0.6 * (torch.tensor(0.6).log() - logits.log_softmax(-1)[40])
    torch.testing.assert_close(found, expected)
    gone = replace(row, labels=[([258], [1.0])])
    batch = aim.collate([gone], torch.device("cpu"))
    assert summed_divergence(model, batch, aim.vocabulary).item() == 0
    whole = summed_divergence(model, collate([row], torch.device("cpu")))
    assert (whole - found).abs() > 0.1


def test_an_update_takes_whole_rows_until_it_has_enough(samples_dir: Path) -> None:
    rows = read_rows(samples_dir, "trajectory")
    plan = list(plan_updates(rows, settings(samples_per_update=4, samples_per_forward=2)))
    assert len(plan) == 4
    for update in plan:
        sizes = [len(row.positions) for forward in update for row in forward]
        assert sum(sizes) >= 4 > sum(sizes) - max(sizes)
        lengths = [len(row.input_ids) for forward in update for row in forward]
        assert lengths == sorted(lengths)


def test_the_last_column_is_read_in_batches_as_padded_as_the_authors(samples_dir: Path) -> None:
    """Not by length and whatever a CPU's caches hold: else hardly a row would meet a pad."""
    rows = read_rows(samples_dir, "sample")
    fault = settings(batching="sample", updates=1, samples_per_forward=3, reference=["last_column"])
    (update,) = plan_updates(rows, fault, tokens=1)
    assert list(map(len, update)) == [3, 3]
    lengths = [len(row.input_ids) for forward in update for row in forward]
    assert sorted(lengths) == [1, 2, 3, 4, 5, 6] != lengths


def test_prefixes_of_one_trajectory_in_one_update_share_a_row(samples_dir: Path) -> None:
    rows = read_rows(samples_dir, "sample")
    (update,) = plan_updates(rows, settings(batching="sample", updates=1, samples_per_forward=9))
    whole = read_rows(samples_dir, "trajectory")
    assert sorted(map(_plain, update[0])) == sorted(map(_plain, whole))


def _plain(row: TrainingRow) -> tuple[str, list[int], list[object]]:
    """A row without its labels' order."""
    return row.problem_id, row.input_ids, sorted(zip(row.positions, row.labels, strict=True))


def test_a_forward_pass_is_bounded_in_tokens(samples_dir: Path) -> None:
    """Six rows of 1 to 6 tokens; one that is longer than the bound goes alone."""
    rows = [
        replace(row, problem_id=str(n)) for n, row in enumerate(read_rows(samples_dir, "sample"))
    ]
    config = settings(updates=1, samples_per_update=6, samples_per_forward=9)
    (update,) = plan_updates(rows, config, tokens=5)
    lengths = [[len(row.input_ids) for row in forward] for forward in update]
    assert lengths == [[1, 2], [3], [4], [5], [6]]


def test_without_a_number_of_updates_each_row_is_taken_once(samples_dir: Path) -> None:
    rows = read_rows(samples_dir, "sample")
    plan = list(plan_updates(rows, settings(updates=None, samples_per_update=4)))
    taken = [[part for f in update for row in f for part in split_row(row)] for update in plan]
    assert list(map(len, taken)) == [4, 2]
    assert sorted(map(str, chain(*taken))) == sorted(map(str, rows))


def test_solution_batching_counts_trajectories(samples_dir: Path) -> None:
    rows = read_rows(samples_dir, "solution")
    counts = settings(batching="solution", samples_per_update=2, samples_per_forward=1)
    assert {tuple(map(len, update)) for update in plan_updates(rows, counts)} == {(1, 1)}


def tune(expert: Path, samples: Path, out: Path, **changes: object) -> pd.DataFrame:
    out.mkdir()
    run_tuning(expert, samples, out, settings(**changes))
    return pd.read_csv(out / "curve.csv")


def run_tuning(
    expert: Path, samples: Path, out: Path, config: Finetune, compute: Compute = CPU
) -> None:
    paths = {"expert": expert, "samples": samples, "problems": samples.with_name("problems")}
    inputs = {name: artifacts.of(path) for name, path in paths.items()}
    write(inputs, config, Workspace(out, out.with_name(f"{out.name}-scratch"), compute), Silent())


def test_tuning_lowers_the_loss_and_decays_to_zero(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    curve = tune(tiny_expert, samples_dir, tmp_path / "out", updates=30, lora_dropout=0.0)
    assert curve["loss"].iloc[-3:].mean() < curve["loss"].iloc[:3].mean() / 2
    assert curve["update"].tolist() == list(range(1, 31))
    assert curve["learning_rate"].is_monotonic_decreasing


def test_equal_seeds_give_equal_bytes(tiny_expert: Path, samples_dir: Path, tmp_path: Path) -> None:
    """LoRA's A is drawn after the seed is set (the authors draw it before)."""
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        torch.manual_seed(hash(name) % 1000)
        tune(tiny_expert, samples_dir, tmp_path / name, seed=seed)
    one, same, other = (artifacts.digest(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same
    assert one != other


def test_the_adapter_names_its_base_and_no_path(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    tune(tiny_expert, samples_dir, tmp_path / "out")
    text = (tmp_path / "out" / "adapter_config.json").read_text()
    assert artifacts.digest(tiny_expert) in text
    assert str(tmp_path) not in text
    names = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {name.split(".")[-2] for name in names} == {"lora_A", "lora_B"}
    assert {name.split(".")[-3] for name in names} == {"q_proj", "v_proj"}


def test_a_diverging_loss_stops_the_tuning(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """At a rate beyond the parameters' limit, which makes sure of it."""
    steep = settings(updates=8).model_copy(update={"learning_rate": 1e39})
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"the loss is nan; lower finetune.learning_rate"):
        run_tuning(tiny_expert, samples_dir, tmp_path / "out", steep)


def test_unknown_target_modules_are_refused(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """Also beside one that is there, which alone would get an adapter."""
    targets = ("q_proj", "no_such_layer")
    with pytest.raises(ModelError, match="target_modules no_such_layer: names nothing"):
        tune(tiny_expert, samples_dir, tmp_path / "out", target_modules=targets)


@pytest.mark.parametrize(
    ("target", "found"), [("embed_tokens", "Embedding"), ("mlp", "Qwen2MLP"), ("norm", "Qwen2RMS")]
)
def test_what_is_no_linear_layer_takes_no_adapter(
    tiny_expert: Path, target: str, found: str
) -> None:
    """An embedding's adapter would be refused at merge, its tuning lost: the head is tied to it."""
    model = loading.load_model(tiny_expert, "cpu", "float32")
    with pytest.raises(ModelError, match=f"target_modules {target}: names {found}.* not a linear"):
        with_lora(model, Finetune(target_modules=("q_proj", target)))


def test_a_layer_may_be_named_in_full(tiny_expert: Path) -> None:
    model = loading.load_model(tiny_expert, "cpu", "float32")
    tuned = with_lora(model, Finetune(target_modules=("model.layers.0.self_attn.q_proj",)))
    assert sum("lora_A" in name for name, _ in tuned.named_parameters()) == 1


def test_the_end_token_is_trained(tiny_expert: Path, samples_dir: Path) -> None:
    """deviations.md: ids past `tokenizer.vocab_size`, such as <|im_end|>, stay in the labels."""
    row = read_rows(samples_dir, "sample")[0]
    end = TrainingRow(row.problem_id, row.input_ids, row.positions, [([258], [1.0])])
    model = loading.load_model(tiny_expert, "cpu", "float32")
    with torch.no_grad():
        found = summed_divergence(model, collate([end], torch.device("cpu")))
        logits = model(torch.tensor([row.input_ids])).logits[0, -1]
    torch.testing.assert_close(found, -logits.log_softmax(-1)[258])


def test_the_head_takes_no_adapter(tiny_expert: Path) -> None:
    model = loading.load_model(tiny_expert, "cpu", "float32")
    with pytest.raises(ModelError, match=r"the loss holds lm_head fixed"):
        with_lora(model, Finetune(target_modules=("q_proj", "lm_head")))


def test_held_out_problems_are_measured_and_named(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """One of three problems is held out; its loss and entropy stand at 0, 4 and 6."""
    tune(tiny_expert, samples_dir, tmp_path / "out", updates=6, validation_share=0.3, **EVERY_4)
    written = json.loads((tmp_path / "out" / "validation.json").read_text())
    held_out = written["problem_ids"]
    curve = pd.read_csv(tmp_path / "out" / "validation.csv")
    assert len(held_out) == 1
    assert written["kept_update"] == 6
    assert curve["update"].tolist() == [0, 4, 6]
    row = next(r for r in read_rows(samples_dir, "trajectory") if [r.problem_id] == held_out)
    model = loading.load_model(tiny_expert, "cpu", "float32")
    with torch.no_grad():
        logits = model(torch.tensor([row.input_ids])).logits[0, row.positions]
        loss = summed_divergence(model, collate([row], torch.device("cpu"))) / len(row.positions)
    log_probs = logits.double().log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
    assert curve["loss"][0] == pytest.approx(loss.item(), rel=1e-5)
    assert curve["entropy"][0] == pytest.approx(entropy.item(), rel=1e-5)
    text = " so it is 7\nThe answer is \\boxed{7}."
    solution = loading.load_tokenizer(tiny_expert)(text)["input_ids"]
    prompt = row.input_ids[: row.positions[0] + 1 - {"a": 0, "b": 1, "c": 0}[held_out[0]]]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + solution])).logits[0].double().log_softmax(-1)
    at = range(len(prompt) - 1, len(prompt) + len(solution) - 1)
    nll = -sum(logits[i, token] for i, token in zip(at, solution, strict=True)) / len(solution)
    assert curve["gold_perplexity"][0] == pytest.approx(nll.exp().item(), rel=1e-5)


EVERY_4 = {"validate_every": 4}


def test_a_problem_with_several_trajectories_is_named_once(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """b and c are two trajectories of one problem; either it is held out or a."""
    for name, schema in (("samples", tables.SAMPLES), ("trajectories", tables.TRAJECTORIES)):
        path = samples_dir / f"{name}.parquet"
        rows = tables.read_table(path, schema).to_pylist()
        for row in rows:
            row["problem_id"] = {"a": "a", "b": "b", "c": "b#1"}[row["problem_id"]]
        tables.write_table(pa.Table.from_pylist(rows, schema), schema, path)
    found = []
    for seed in range(3):
        tune(tiny_expert, samples_dir, out := tmp_path / str(seed), seed=seed, validation_share=0.3)
        found += json.loads((out / "validation.json").read_text())["problem_ids"]
    assert len(found) == 3
    assert set(found) == {"a", "b"}


def test_patience_stops_and_keeps_the_best_adapter(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """A rate far too high makes the held-out loss rise in the end."""
    changes = {"updates": 40, "validation_share": 0.3, "validate_every": 2, "lora_dropout": 0.0}
    tune(
        tiny_expert,
        samples_dir,
        tmp_path / "out",
        learning_rate=0.5,
        stop="loss",
        patience=2,
        **changes,
    )
    curve = pd.read_csv(tmp_path / "out" / "validation.csv")
    best = curve[1:]["loss"].idxmin()
    assert len(curve) - 1 - best == 2
    assert curve["update"].iloc[-1] < 40
    written = json.loads((tmp_path / "out" / "validation.json").read_text())
    assert written["kept_update"] == curve["update"][best] < curve["update"].iloc[-1]
    model = PeftModel.from_pretrained(
        loading.load_model(tiny_expert, "cpu", "float32"), str(tmp_path / "out")
    )
    held_out = json.loads((tmp_path / "out" / "validation.json").read_text())["problem_ids"]
    rows = [r for r in read_rows(samples_dir, "trajectory") if r.problem_id in held_out]
    with torch.no_grad():
        batch = collate(rows, torch.device("cpu"))
        loss = summed_divergence(model.eval().get_base_model(), batch) / len(batch.positions)
    assert loss.item() == pytest.approx(curve["loss"][best], rel=1e-4)


def test_patience_counts_the_reading_before_the_first_update(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At this rate the loss only rises: of the adapters the first is the best, and it is worse than
    none."""
    changes = {"updates": 9, "validation_share": 0.3, "validate_every": 1, "lora_dropout": 0.0}
    with caplog.at_level(logging.WARNING, "lightreasoner"):
        tune(
            tiny_expert,
            samples_dir,
            tmp_path / "out",
            learning_rate=0.03,
            stop="loss",
            patience=2,
            **changes,
        )
    losses = pd.read_csv(tmp_path / "out" / "validation.csv")["loss"]
    assert len(losses) == 3
    assert losses[0] < losses[1] < losses[2]
    kept = json.loads((tmp_path / "out" / "validation.json").read_text())["kept_update"]
    assert kept == 1
    said = f"below the untouched expert's, {losses[0]:.4g} nats; the lowest, {losses[1]:.4g} nats"
    assert said in caplog.text
    assert "is that of update 1, whose adapter is kept" in caplog.text


def test_checkpointed_activations_change_nothing(
    tiny_expert: Path, samples_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But that each layer computes them once more."""
    forward, calls = modeling_qwen2.Qwen2MLP.forward, list[int]()

    def counted(self: modeling_qwen2.Qwen2MLP, states: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return forward(self, states)

    monkeypatch.setattr(modeling_qwen2.Qwen2MLP, "forward", counted)
    tune(tiny_expert, samples_dir, tmp_path / "plain")
    plain = len(calls)
    (tmp_path / "lean").mkdir()
    lean = CPU.model_copy(update={"gradient_checkpointing": True})
    run_tuning(tiny_expert, samples_dir, tmp_path / "lean", settings(), lean)
    assert len(calls) - plain > 1.4 * plain
    one, other = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "lean")
    )
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], rtol=1e-4, atol=1e-6)
