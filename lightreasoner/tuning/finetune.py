"""Fine-tune: LoRA on KL(v_C || pi_E) at the selected steps alone (paper, eq. 37, appendix F.3.4).

All selected steps of a trajectory share one forward pass, which is exact under causal attention;
`sample` batching shuffles samples, as the paper does; `solution` batching is for SFT, whose
labels are one-hot and whose updates count solutions. The settings under `finetune.reference`
reproduce bugs in the authors' code, to measure what they do (docs/deviations.md).
"""

import csv
import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lightreasoner.data import problems
from lightreasoner.errors import ModelError
from lightreasoner.grading.grade import shared_process
from lightreasoner.inference import loading
from lightreasoner.inference.forward import check_head
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Inputs, Workspace
from lightreasoner.tuning import accuracy, launch, ranks
from lightreasoner.tuning.loss import Batch, collate
from lightreasoner.tuning.rows import (
    TrainingRow,
    check_samples,
    gold_rows,
    hold_out,
    join_rows,
    read_rows,
    step_rows,
)
from lightreasoner.tuning.trainer import ACCURACY, CURVE, Objective, Update, train
from lightreasoner.tuning.validation import MEASURES, Validation

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lightreasoner.config import Finetune
    from lightreasoner.progress import Watcher

# Of one layer's states; a core's second cache holds a few times that.
VALUES_IN_CACHE = {"cpu": 1 << 18}


def write(inputs: Inputs, config: "Finetune", work: Workspace, watcher: "Watcher") -> None:
    """Write the adapter (peft's format, safetensors), `curve.csv` with the loss per update,
    `validation.csv` with the held-out problems' measures, and `validation.json`, which names them
    and the update whose adapter was kept; with `evaluate_every`, `accuracy.csv`, which uses their
    answers.

    Before the model is loaded raises ArtifactError or SelectionError for a sample set that is not
    this expert's, and ProblemsError as `accuracy.of`; later ModelError for the model, a loss that
    is not finite, or more processes than there are devices.
    """
    launch.check(config.processes, work.compute.device)
    (launch.run if config.processes > 1 else tune)(inputs, config, work, watcher)


def tune(inputs: Inputs, config: "Finetune", work: Workspace, watcher: "Watcher") -> None:
    """`write` in this process, as the only rank or as one of several; the first one writes."""
    expert, samples_dir, compute = inputs["expert"], inputs["samples"].path, work.compute
    check_samples(samples_dir, expert.path)
    tokenizer = loading.load_tokenizer(expert.path)
    rows, held_out = hold_out(
        read_rows(samples_dir, config.batching), config.validation_share, config.seed
    )
    gold = gold_rows(
        problems.read_problems(inputs["problems"].path / "problems.jsonl"),
        held_out,
        samples_dir,
        tokenizer,
    )
    every = config.evaluate_every
    asked = accuracy.of(inputs, held_out, tokenizer, config, compute.batch_size) if every else None
    model = loading.load_model(expert.path, compute.device, compute.dtype)
    check_head(model)
    updates = list(plan_updates(rows, config, forward_tokens(model)))
    torch.manual_seed(config.seed)
    with shared_process():
        curves = train(
            tuned := with_lora(model, config),
            updates,
            Validation(held_out, gold, step_rows(samples_dir, held_out)) if held_out else None,
            asked,
            objective(config, tokenizer),
            config,
            compute,
            work.scratch,
            watcher,
        )
    if not ranks.is_first():
        return
    save_adapter(tuned, expert.digest, work.out)
    _write_csv(work.out / "curve.csv", ("update", *CURVE), curves.training)
    _write_csv(work.out / "validation.csv", ("update", *MEASURES), curves.validation)
    if asked:
        readings = [{**reading, "problems": len(asked.asked)} for reading in curves.accuracy]
        _write_csv(work.out / "accuracy.csv", ("update", ACCURACY, "problems"), readings)
    names = list(dict.fromkeys(problems.problem_of(row.problem_id) for row in held_out))
    text = json.dumps({"problem_ids": names, "kept_update": curves.kept}, indent=1)
    artifacts.write_text(work.out / "validation.json", text + "\n")


def forward_tokens(model: "PreTrainedModel") -> int | None:
    """How many tokens a forward pass takes at most: on a CPU what its caches hold, else any."""
    values = VALUES_IN_CACHE.get(model.device.type)
    return None if values is None else max(1, values // model.config.hidden_size)


def plan_updates(
    rows: list[TrainingRow], config: "Finetune", tokens: int | None = None
) -> Iterator[Update]:
    """The rows of each update, shuffled anew each epoch, as forward passes of similar length.

    An update takes whole rows until it counts `samples_per_update`, a forward pass until it counts
    `samples_per_forward`: samples, or rows in `solution` batching. A forward pass of several rows
    has at most this many padded `tokens`. Without a number of updates each row is used once.
    """
    stream = _shuffled(rows, random.Random(config.seed), once=config.updates is None)
    taken = itertools.islice(_updates(stream, config), config.updates)
    return (_forwards(rows, config, tokens) for rows in taken)


def _shuffled(
    rows: list[TrainingRow], shuffler: random.Random, once: bool
) -> Iterator[TrainingRow]:
    for _ in range(1) if once else itertools.count():
        order = list(rows)
        shuffler.shuffle(order)
        yield from order


def _updates(stream: Iterator[TrainingRow], config: "Finetune") -> Iterator[list[TrainingRow]]:
    taken: list[TrainingRow] = []
    for row in stream:
        taken.append(row)
        if _count(taken, config) >= config.samples_per_update:
            yield taken
            taken = []
    if taken:
        yield taken


def _forwards(rows: list[TrainingRow], config: "Finetune", tokens: int | None) -> Update:
    """Rows by length, so that little work goes into padding.

    Prefixes of one trajectory that met in an update are read once.
    """
    size = config.samples_per_forward
    if config.processes > 1:  # none should wait
        size = min(size, math.ceil(config.samples_per_update / config.processes))
    if "last_column" in config.reference:  # padded as theirs: one sample per row, not by length
        return [rows[start : start + size] for start in range(0, len(rows), size)]
    if config.batching == "sample":
        rows = join_rows(rows)
    forwards: Update = [[]]
    for row in sorted(rows, key=lambda row: len(row.input_ids)):
        is_full = _count(forwards[-1], config) >= size
        padded = (len(forwards[-1]) + 1) * len(row.input_ids)
        if forwards[-1] and (is_full or (tokens is not None and padded > tokens)):
            forwards.append([])
        forwards[-1].append(row)
    return forwards


def _count(rows: list[TrainingRow], config: "Finetune") -> int:
    return sum(1 if config.batching == "solution" else len(row.positions) for row in rows)


def objective(config: "Finetune", tokenizer: "PreTrainedTokenizerBase") -> Objective:
    """What is trained: each label at its own position over all ids, or with the authors' bugs.

    `last_column` reads every row at the last column of the padded batch, a pad for all but the
    longest; `ordinary_tokens` knows no id from `tokenizer.vocab_size` on, where special ones lie.
    """
    vocabulary = tokenizer.vocab_size if "ordinary_tokens" in config.reference else None
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def prepared(rows: list[TrainingRow], device: torch.device) -> Batch:
        if vocabulary is not None:
            rows = [_ordinary(row, vocabulary) for row in rows]
        batch = collate(rows, device)
        return _at_last_column(batch, rows, pad) if "last_column" in config.reference else batch

    return Objective(prepared, vocabulary)


def _ordinary(row: TrainingRow, vocabulary: int) -> TrainingRow:
    """The row with labels cut at `vocabulary`, weights as they are."""
    labels = []
    for ids, weights in row.labels:
        kept = [entry for entry in zip(ids, weights, strict=True) if entry[0] < vocabulary]
        labels.append(([id_ for id_, _ in kept], [weight for _, weight in kept]))
    return replace(row, labels=labels)


def _at_last_column(batch: Batch, rows: list[TrainingRow], pad: int) -> Batch:
    """Every sample read at the batch's last column, past the end of its row."""
    lengths = torch.tensor([len(row.input_ids) for row in rows], device=batch.rows.device)
    columns = torch.arange(batch.input_ids.shape[1], device=batch.rows.device)
    mask = columns < lengths[:, None]
    return replace(
        batch,
        input_ids=batch.input_ids.masked_fill(~mask, pad),
        positions=torch.full_like(batch.positions, len(columns) - 1),
        attention_mask=mask.long(),
    )


def with_lora(model: "PreTrainedModel", config: "Finetune") -> "PeftModel":
    """The expert with a fresh adapter; draws LoRA's A from torch's current seed.

    Raises ModelError for targets that are not linear layers of the model, and for the LM head: the
    loss holds it fixed.
    """
    from peft import LoraConfig, get_peft_model

    if "lm_head" in config.target_modules:
        raise ModelError(
            "finetune.target_modules: the loss holds lm_head fixed, so it takes no adapter; leave "
            "it out"
        )
    _refuse_unless_linear(model, config.target_modules)
    lora = LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def _refuse_unless_linear(model: "PreTrainedModel", targets: Sequence[str]) -> None:
    """Each target has to name linear layers alone, as the end of their names, which peft goes by.

    peft itself takes embeddings, too, whose adapter cannot be merged where the head is tied to
    them, and lets a target pass that names nothing beside one that names something.
    """
    for target in targets:
        named = [
            module for name, module in model.named_modules() if f".{name}".endswith(f".{target}")
        ]
        if not named or not all(isinstance(module, torch.nn.Linear) for module in named):
            found = type(named[0]).__name__ if named else "nothing"
            raise ModelError(
                f"finetune.target_modules {target}: names {found} in the expert, not a linear "
                "layer; for Qwen2 they are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
                "down_proj"
            )


def save_adapter(model: "PeftModel", expert_digest: str, out: Path) -> None:
    """Save the adapter with its base model's digest; the same weights give the same bytes."""
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    path = out / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = expert_digest
    settings["target_modules"] = sorted(settings["target_modules"])
    path.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _write_csv(path: Path, names: tuple[str, ...], entries: list[dict[str, float]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(entries)
