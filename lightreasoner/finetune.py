"""Fine-tune: LoRA on KL(v_C || pi_E) at the selected steps alone (paper, eq. 37, appendix F.3.4).

The label is sparse, so the loss is log-sum-exp over the vocabulary minus a gather on the support,
plus the label's own (constant) negative entropy, so that what is logged is the KL. All selected
steps of a trajectory share one forward pass, which is exact under causal attention; `sample`
batching reads one prefix a row, as the paper does. The LM head runs at trained positions only.
"""

import csv
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightreasoner import models, tables
from lightreasoner.artifacts import Artifact
from lightreasoner.errors import ArtifactError, ModelError
from lightreasoner.forward import check_head, hidden_states, logits_of, pad_right

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, Trainer

    from lightreasoner.config import Compute, Finetune
    from lightreasoner.progress import Watcher
    from lightreasoner.stages import Workspace

CURVE = ("update", "loss", "learning_rate", "grad_norm")


@dataclass(frozen=True)
class Row:
    """A sequence and the samples trained on it: a label at each of `positions`."""

    input_ids: list[int]
    positions: list[int]
    labels: list[tuple[list[int], list[float]]]


def write_adapter(
    expert: Artifact,
    samples_dir: Path,
    problems_dir: Path,
    config: "Finetune",
    compute: "Compute",
    work: "Workspace",
    watcher: "Watcher",
) -> None:
    """Write the adapter (peft's format, safetensors) and `curve.csv` with the loss an update."""
    out = work.out
    rows = read_rows(samples_dir, config.batching)
    plan = list(plan_updates(rows, config))
    model = models.load_model(expert.path, compute.device, compute.dtype)
    check_head(model)
    torch.manual_seed(config.seed)
    model = with_lora(model, config)
    curve = train(model, rows, plan, config, compute, out, watcher)
    save_adapter(model, expert.digest, out)
    with (out / "curve.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CURVE)
        writer.writeheader()
        writer.writerows(curve)


def read_rows(samples_dir: Path, batching: str) -> list[Row]:
    """The sample set as rows to train on: one a trajectory, or one a sample."""
    samples = tables.read(samples_dir / "samples.parquet", tables.SAMPLES).to_pandas()
    trajectories = tables.read(samples_dir / "trajectories.parquet", tables.TRAJECTORIES)
    by_id = {row["problem_id"]: row for row in trajectories.to_pylist()}
    rows = []
    for problem_id, group in samples.groupby("problem_id", sort=False):
        if problem_id not in by_id:
            raise ArtifactError(f"{samples_dir}: sample of {problem_id} without its trajectory")
        ids = by_id[problem_id]["prompt_ids"] + by_id[problem_id]["completion_ids"]
        first = len(by_id[problem_id]["prompt_ids"]) - 1
        positions = [first + step for step in group["step"]]
        labels = [
            (tokens.tolist(), weights.tolist())
            for tokens, weights in zip(group["token_ids"], group["weights"], strict=True)
        ]
        row = Row(ids[: max(positions) + 1], positions, labels)
        rows += [row] if batching == "trajectory" else split_row(row)
    return rows


def split_row(row: Row) -> list[Row]:
    """One row a sample: the prefix alone, its label at the last position."""
    return [
        Row(row.input_ids[: position + 1], [position], [label])
        for position, label in zip(row.positions, row.labels, strict=True)
    ]


def plan_updates(rows: list[Row], config: "Finetune") -> Iterator[list[list[int]]]:
    """Which rows each update trains on, as forward passes of row indices.

    Rows are shuffled anew each epoch. An update takes whole rows until it has at least
    `samples_per_update` samples, a forward pass until it has at least `samples_per_forward`.
    """
    order = _endless(len(rows), random.Random(config.seed))
    for _ in range(config.updates or 1):
        forwards: list[list[int]] = [[]]
        in_update = in_forward = 0
        while in_update < config.samples_per_update:
            if in_forward >= config.samples_per_forward:
                forwards.append([])
                in_forward = 0
            index = next(order)
            forwards[-1].append(index)
            in_update += len(rows[index].positions)
            in_forward += len(rows[index].positions)
        yield forwards


def _endless(n: int, shuffler: random.Random) -> Iterator[int]:
    while True:
        order = list(range(n))
        shuffler.shuffle(order)
        yield from order


def with_lora(model: "PreTrainedModel", config: "Finetune") -> "PeftModel":
    """The expert with a fresh adapter; draws LoRA's A from torch's current seed.

    Raises ModelError for layers that are not there, and for a tied LM head: merging into it would
    change the embeddings too.
    """
    from peft import LoraConfig, get_peft_model

    if model.config.tie_word_embeddings and "lm_head" in config.target_modules:
        raise ModelError(
            "finetune.target_modules: the expert's lm_head is its embedding, so an adapter there "
            "cannot be merged; leave lm_head out"
        )

    lora = LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        raise ModelError(
            f"finetune.target_modules {list(config.target_modules)}: the expert has no such "
            "linear layers; for Qwen2 they are q_proj, k_proj, v_proj, o_proj, gate_proj, "
            "up_proj, down_proj"
        ) from error


def label_divergence(logits: Tensor, row_of: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """KL(v_C || pi_E) a sample (samples,), nats, over the full vocabulary.

    `logits` is (samples, vocab). The labels are flat: entry i gives `weights[i]` to token `ids[i]`
    of sample `row_of[i]`; a sample's weights sum to 1.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    log_probs = logits[row_of, ids] - logits.logsumexp(dim=-1)[row_of]
    terms = torch.special.xlogy(weights, weights) - weights * log_probs
    return torch.zeros_like(logits[:, 0]).index_add(0, row_of, terms)


def collate(rows: list[Row], device: torch.device) -> dict[str, Tensor]:
    """Rows as tensors: padded ids, (row, position) of each sample, and the flat labels."""
    labels = [label for row in rows for label in row.labels]
    sizes = torch.tensor([len(ids) for ids, _ in labels])
    tensors = {
        "rows": torch.tensor([index for index, row in enumerate(rows) for _ in row.positions]),
        "positions": torch.tensor([position for row in rows for position in row.positions]),
        "label_rows": torch.arange(len(labels)).repeat_interleave(sizes),
        "label_ids": torch.tensor([id_ for ids, _ in labels for id_ in ids]),
        "label_weights": torch.tensor([weight for _, weights in labels for weight in weights]),
    }
    tensors["input_ids"] = pad_right([row.input_ids for row in rows], device)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def summed_loss(model: "PreTrainedModel", batch: dict[str, Tensor]) -> Tensor:
    """Sum of `label_divergence` over a batch's samples, one forward pass."""
    hidden = hidden_states(model, batch["input_ids"])
    logits = logits_of(model, hidden[batch["rows"], batch["positions"]])
    return label_divergence(
        logits, batch["label_rows"], batch["label_ids"], batch["label_weights"]
    ).sum()


def train(
    model: "PeftModel",
    rows: list[Row],
    plan: list[list[list[int]]],
    config: "Finetune",
    compute: "Compute",
    out: Path,
    watcher: "Watcher",
) -> list[dict[str, float]]:
    """Run the planned updates with AdamW and a linear decay to 0; returns the curve."""
    recorder = _recorder(config.updates or 1, watcher)
    trainer = _trainer(model, config, compute, recorder, out)
    trainer.train_dataset = [[[rows[i] for i in forward] for forward in update] for update in plan]
    trainer.train()
    return recorder.curve


def _trainer(
    model: "PeftModel", config: "Finetune", compute: "Compute", recorder: Any, out: Path
) -> "Trainer":
    """transformers' Trainer whose one item is a whole update: its forward passes in turn."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    class UpdateTrainer(Trainer):
        """The loss is the mean over an update's samples, however they are split."""

        def get_train_dataloader(self) -> DataLoader:
            return DataLoader(self.train_dataset, batch_size=None, collate_fn=lambda update: update)

        def training_step(
            self, model: Any, inputs: list[list[Row]], num_items_in_batch: Any = None
        ) -> Tensor:
            model.train()
            samples = sum(len(row.positions) for forward in inputs for row in forward)
            total = torch.zeros((), device=model.device)
            for forward in inputs:
                batch = collate(forward, model.device)
                loss = summed_loss(model.get_base_model(), batch) / samples
                self.accelerator.backward(loss)
                total += loss.detach()
            return total

    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=config.updates,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0,
        weight_decay=0.0,
        seed=config.seed,
        data_seed=config.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=compute.device == "cpu",
        remove_unused_columns=False,
    )
    trainer = UpdateTrainer(model=model, args=arguments, callbacks=[recorder])
    trainer.remove_callback(PrinterCallback)
    return trainer


def _recorder(updates: int, watcher: "Watcher") -> Any:
    """A callback that keeps the curve and passes it on. Stops at a loss that is not finite."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):
        """Called by Trainer after each update."""

        def __init__(self) -> None:
            self.curve: list[dict[str, float]] = []

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any
        ) -> None:
            if "loss" not in logs:
                return
            step = state.global_step
            if not np.isfinite(logs["loss"]):
                raise ModelError(
                    f"update {step}: the loss is {logs['loss']}; lower finetune.learning_rate "
                    f"({args.learning_rate})"
                )
            values = {name: logs[name] for name in CURVE[1:]}
            self.curve.append({"update": step, **values})
            for name, value in values.items():
                watcher.metric(name, value, step)
            watcher.progress(step, updates, "updates")

    return Recorder()


def save_adapter(model: "PeftModel", expert_digest: str, out: Path) -> None:
    """Save the adapter with its base model's digest; the same weights give the same bytes."""
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    path = out / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = expert_digest
    settings["target_modules"] = sorted(settings["target_modules"])
    path.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")
