"""Bench of fine-tuning: both batchings against what this machine can do and a plain trainer.

The plain one is what the loss says when written down at once: one prefix a row, whole logits, a
dense label a sample. FLOP are those of the forward pass and of the gradient for the activations,
over real tokens and trained positions only; LoRA's own and attention's extra ones are left out.
"""

import time
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.sampling import Machine, conditions, decoder_flop, head_flop, measure_machine
from lightreasoner.inference import loading
from lightreasoner.pipeline.store import peak_memory_mib, reset_peak_memory
from lightreasoner.progress import Silent
from lightreasoner.tuning.finetune import forward_tokens, objective, plan_updates, with_lora
from lightreasoner.tuning.rows import TrainingRow, check_samples, read_rows, split_row
from lightreasoner.tuning.trainer import Update, train

if TYPE_CHECKING:
    from peft import PeftModel

    from lightreasoner.config import Compute, Finetune
    from lightreasoner.progress import Watcher
    from lightreasoner.storage.artifacts import Artifact

BATCHINGS = ("trajectory", "sample")


def training(
    expert: "Artifact",
    samples_dir: Path,
    config: "Finetune",
    compute: "Compute",
    naive_updates: int,
    watcher: "Watcher",
) -> dict[str, Any]:
    """Tune for `config.updates` updates with each batching, then plainly for `naive_updates`.

    A first update of each warms up and does not count; loading does not count either. Raises what
    `finetune` raises.
    """
    check_samples(samples_dir, expert.path)
    machine = measure_machine(loading.load_model(expert.path, compute.device, compute.dtype))
    found: dict[str, Any] = {
        "expert": expert.digest,
        "machine": {**conditions(compute), **machine.__dict__},
        "finetune": config.model_dump(mode="json"),
    }
    for done, batching in enumerate((*BATCHINGS, "naive")):
        watcher.progress(done, len(BATCHINGS) + 1, "trainers")
        is_naive = batching == "naive"
        changes = {"batching": "sample", "updates": naive_updates} if is_naive else {}
        settings = config.model_copy(update={"batching": batching, **changes})
        if settings.updates == 0:
            continue
        settings = settings.model_copy(update={"updates": (settings.updates or 1) + 1})
        found[batching] = _measure(expert, samples_dir, settings, compute, machine, is_naive)
    return found


def _measure(
    expert: "Artifact",
    samples_dir: Path,
    config: "Finetune",
    compute: "Compute",
    machine: Machine,
    is_naive: bool,
) -> dict[str, Any]:
    model = loading.load_model(expert.path, compute.device, compute.dtype)
    tokens = None if is_naive else forward_tokens(model)
    updates = list(plan_updates(read_rows(samples_dir, config.batching), config, tokens))
    if is_naive:
        updates = [[list(chain.from_iterable(map(split_row, f))) for f in u] for u in updates]
    torch.manual_seed(config.seed)
    tuned = with_lora(model, config)
    clock = _Clock()
    reset_peak_memory()
    if is_naive:
        train_plainly(tuned, updates, config, clock)
    else:
        aim = objective(config, loading.load_tokenizer(expert.path))
        with TemporaryDirectory() as scratch:
            train(tuned, updates, None, None, aim, config, compute, Path(scratch), clock)
    peak = peak_memory_mib()
    seconds = clock.times[-1] - clock.times[0]
    rows = list(_rows(updates[1:]))
    lengths = [len(row.input_ids) for row in rows]
    samples = sum(len(row.positions) for row in rows)
    flop = 2 * (decoder_flop(model, lengths) + head_flop(model, samples))
    return {
        "updates": len(updates) - 1,
        "samples": samples,
        "tokens": sum(lengths),
        "seconds": seconds,
        "samples_per_second": samples / seconds,
        "tokens_per_second": sum(lengths) / seconds,
        "flop": flop,
        "share_of_matrix_rate": flop / seconds / machine.flop_rate,
        "peak_memory_mib": peak,
    }


def _rows(updates: Iterable[Update]) -> Iterable[TrainingRow]:
    return (row for update in updates for forward in update for row in forward)


class _Clock(Silent):
    """A watcher that notes when each update was done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def progress(self, done: int, total: int, unit: str) -> None:
        if done:
            self.times.append(time.perf_counter())


def train_plainly(
    model: "PeftModel", updates: list[Update], config: "Finetune", watcher: "Watcher"
) -> list[float]:
    """The same updates the slow way; returns their losses, the mean KL a sample, nats."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, config.learning_rate, weight_decay=0.0)
    losses = []
    model.train()
    for done, update in enumerate(updates, start=1):
        total = torch.zeros((), device=model.device)
        n = sum(len(forward) for forward in update)
        for forward in update:
            loss = _dense_loss(model, forward) / n
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total.item())
        watcher.progress(done, len(updates), "updates")
    return losses


def _dense_loss(model: "PeftModel", rows: list[TrainingRow]) -> torch.Tensor:
    """Sum of KL(v || pi) over one-sample rows, from whole logits (batch, seq, vocab)."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = [torch.tensor(row.input_ids) for row in rows]
    input_ids = pad(ids, batch_first=True).to(model.device)
    mask = pad([torch.ones_like(row) for row in ids], batch_first=True).to(model.device)
    logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
    last = logits[torch.arange(len(rows)), [len(row.input_ids) - 1 for row in rows]].float()
    labels = torch.zeros_like(last)
    for index, row in enumerate(rows):
        labels[index, row.labels[0][0]] = torch.tensor(row.labels[0][1], device=model.device)
    return torch.nn.functional.kl_div(last.log_softmax(dim=-1), labels, reduction="sum")


def summary(found: dict[str, Any]) -> list[str]:
    """The figures that matter, a line a trainer."""
    lines = []
    for name in (*BATCHINGS, "naive"):
        if name in found:
            figures = found[name]
            times = ""
            if "naive" in found and name != "naive":
                times = figures["samples_per_second"] / found["naive"]["samples_per_second"]
                times = f", {times:.1f} times the plain trainer"
            lines.append(
                f"{name}: {figures['samples_per_second']:.2f} samples/s{times}, "
                f"{figures['share_of_matrix_rate']:.0%} of the matrix-product rate, peak "
                f"{figures['peak_memory_mib']:.0f} MiB"
            )
    return lines
