"""Training: the planned updates on transformers' Trainer, with checkpoints that a restart finds.

One item of Trainer's data is a whole update: its forward passes in turn, whose losses are divided
by the update's number of samples, so that the loss is the mean over samples however they are split.
Checkpoints are private work files. Each is sealed with the checksums of its files; one that is
damaged or not finished is left out by name, and training goes on from the one before.
"""

import json
import logging
import math
import random
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightreasoner.errors import ArtifactError, ModelError
from lightreasoner.repeatable import deterministic
from lightreasoner.storage import artifacts, payload
from lightreasoner.tuning import ranks
from lightreasoner.tuning.loss import Batch, summed_divergence
from lightreasoner.tuning.stopping import Reading, Stopping
from lightreasoner.tuning.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Callable

    from peft import PeftModel
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from lightreasoner.config import Compute, Finetune
    from lightreasoner.progress import Watcher
    from lightreasoner.tuning.accuracy import Accuracy
    from lightreasoner.tuning.rows import TrainingRow

log = logging.getLogger(__name__)

CURVE = ("loss", "learning_rate", "grad_norm")
ACCURACY = "accuracy_uses_answers"
SEAL = "sealed.json"
RANK = "eval_rank"
CHECKPOINT_SECONDS = 60.0
Update = list[list["TrainingRow"]]
"""An optimizer step's rows, a list per forward pass."""


@dataclass(frozen=True)
class Objective:
    """How a forward pass's rows become a batch, and the ids that pi is over (None: all)."""

    collate: "Callable[[list[TrainingRow], torch.device], Batch]"
    vocabulary: int | None = None


@dataclass(frozen=True)
class Curves:
    """What was measured: one entry per update, and one per evaluation on the held-out samples, or
    of the accuracy on held-out problems.

    `kept` is the update whose adapter was kept.
    """

    training: list[dict[str, float]]
    validation: list[dict[str, float]]
    accuracy: list[dict[str, float]]
    kept: int


def train(
    model: "PeftModel",
    updates: Sequence[Update],
    validation: Validation | None,
    accuracy: "Accuracy | None",
    objective: Objective,
    config: "Finetune",
    compute: "Compute",
    scratch: Path,
    watcher: "Watcher",
) -> Curves:
    """Run the updates with AdamW and a linear decay to 0, going on from the last good checkpoint
    in `scratch`. With `config.stop` the adapter that is left is the one that stopping.py ranks
    highest, else the last; a warning says if it has no lower held-out loss than the expert had
    before, or moved too far where nothing was taught. `accuracy` is read before the first update,
    every `config.evaluate_every` and after the last, and decides nothing.

    Raises ModelError if the loss is not finite, or as `Stopping.ends`.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    checkpoint = ranks.agreed(lambda: last_good_checkpoint(scratch))
    if checkpoint is not None and _has_stopped(checkpoint):
        updates = updates[: _number(checkpoint)]
    trainer = _trainer(
        model, updates, validation, accuracy, objective, config, compute, scratch, watcher
    )
    with deterministic():
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    history = trainer.state.log_history
    curves = Curves(
        [_entry(line, "", CURVE) for line in history if "loss" in line],
        _readings(history),
        [_entry(line, "eval_", [ACCURACY]) for line in history if f"eval_{ACCURACY}" in line],
        trainer.state.best_global_step or trainer.state.global_step,
    )
    _warn(curves, config)
    return curves


def _warn(curves: Curves, config: "Finetune") -> None:
    """Say what speaks against the kept adapter."""
    readings = {reading["update"]: reading for reading in curves.validation}
    if curves.kept not in readings:
        return
    kept = readings[curves.kept]
    if Stopping(config).is_over(kept):
        log.warning(
            "finetune: on held-out steps that were not taught the model drifted by %.3g nats, over "
            "finetune.drift_limit %g; it may have lost more than it learnt: look at the accuracy, "
            "or set finetune.stop=drift",
            kept["drift"],
            config.drift_limit,
        )
    losses = {update: reading["loss"] for update, reading in readings.items()}
    if config.stop == "loss" and not losses[curves.kept] < losses[0]:
        log.warning(
            "finetune: no held-out loss was below the untouched expert's, %.4g nats; the lowest, "
            "%.4g nats, is that of update %d, whose adapter is kept; lower finetune.learning_rate",
            losses[0],
            losses[curves.kept],
            curves.kept,
        )


def _readings(history: Sequence[dict[str, float]]) -> list[Reading]:
    return [
        _entry(line, "eval_", [name[5:] for name in line if name.startswith("eval_")])
        for line in history
        if "eval_loss" in line
    ]


def _entry(line: dict[str, float], prefix: str, names: Sequence[str]) -> dict[str, float]:
    return {"update": int(line["step"]), **{name: line[prefix + name] for name in names}}


_NUMBERED = re.compile(r"checkpoint-[0-9]{1,9}")


def last_good_checkpoint(scratch: Path) -> Path | None:
    """The newest whole checkpoint; newer ones that are not are named in a warning and removed."""
    found = [path for path in scratch.glob("checkpoint-*") if _NUMBERED.fullmatch(path.name)]
    for path in sorted(found, key=_number, reverse=True):
        if _is_whole(path) and _is_whole(_best(path)):
            return path
        log.warning("finetune: checkpoint %s is damaged or unfinished; skipping it", path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return None


def _remove_others(newest: Path) -> None:
    """Keep the two newest checkpoints and the best: by number, as clocks may be set back."""
    found = [path for path in newest.parent.glob("checkpoint-*") if _NUMBERED.fullmatch(path.name)]
    kept = {*sorted(found, key=_number)[-2:], newest, _best(newest)}
    for path in {*found} - kept:
        shutil.rmtree(path)


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = payload.read_json(checkpoint / "trainer_state.json")
    return state


def _best(checkpoint: Path) -> Path:
    """The checkpoint whose adapter was the best so far, itself where none is told apart."""
    step = _state(checkpoint)["best_global_step"] or _number(checkpoint)
    return checkpoint.with_name(f"checkpoint-{step}")


def _has_stopped(checkpoint: Path) -> bool:
    """Whether training had been stopped early there; Trainer itself forgets that at a restart."""
    control = _state(checkpoint)["stateful_callbacks"]["TrainerControl"]
    return bool(control["args"]["should_training_stop"])


def _is_whole(checkpoint: Path) -> bool:
    try:
        seal = payload.read_json(checkpoint / SEAL)
        return seal == _checksums(checkpoint)
    except (OSError, ArtifactError):
        return False


def _checksums(checkpoint: Path) -> dict[str, str]:
    files = (path for path in sorted(checkpoint.iterdir()) if path.name != SEAL)
    return {path.name: artifacts.file_sha256(path) for path in files}


def _trainer(
    model: "PeftModel",
    updates: Sequence[Update],
    validation: Validation | None,
    accuracy: "Accuracy | None",
    objective: Objective,
    config: "Finetune",
    compute: "Compute",
    scratch: Path,
    watcher: "Watcher",
) -> "Trainer":
    from transformers import PrinterCallback, Trainer

    class UpdateTrainer(Trainer):
        """A Trainer whose batch is an update and whose evaluation is `Validation`."""

        def get_train_dataloader(self) -> DataLoader:
            return DataLoader(self.train_dataset, batch_size=1, collate_fn=itemgetter(0))

        def training_step(
            self, model: Any, inputs: Update, num_items_in_batch: Any = None
        ) -> Tensor:
            model.train()
            samples = sum(len(row.positions) for forward in inputs for row in forward)
            total = torch.zeros((), device=model.device)
            for number, forward in ranks.share(list(enumerate(inputs))):
                if ranks.are_several():
                    torch.manual_seed(_dropout_seed(config.seed, self.state.global_step, number))
                batch = objective.collate(forward, model.device)
                loss = summed_divergence(model.get_base_model(), batch, objective.vocabulary)
                self.accelerator.backward(loss / samples)
                total += loss.detach() / samples
            ranks.add_up_gradients(trained(model))
            return ranks.total(total)

        def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            metrics = measured(self.model)
            self.log(metrics)
            self.control = self.callback_handler.on_evaluate(
                self.args,
                self.state,
                self.control,  # type: ignore[has-type]
                metrics,
            )
            (reading,) = _readings([{**metrics, "step": self.state.global_step}])
            return {**metrics, RANK: stopping.rank(reading)}

    def measured(model: Any) -> dict[str, float]:
        assert validation is not None
        model.eval()
        found = validation.measure(model.get_base_model())
        found |= ranks.agreed(lambda: validation.drift(model))
        return {f"eval_{name}": value for name, value in found.items()}

    def answered(model: Any, update: int) -> list[dict[str, float]]:
        if accuracy is None or (update % config.evaluate_every and update != len(updates)):
            return []
        return [{f"eval_{ACCURACY}": accuracy.measure(model.get_base_model()), "step": update}]

    stopping = Stopping(config)
    arguments = _arguments(len(updates), validation is not None, config, compute, scratch)
    readings = measured if validation else None, answered
    recorder = _recorder(len(updates), *readings, stopping, watcher)
    trainer = UpdateTrainer(
        model=model,
        args=arguments,
        train_dataset=updates,
        eval_dataset=[] if validation else None,
        callbacks=[recorder],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trained(model: "PeftModel") -> list[Tensor]:
    """LoRA's weights."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def _dropout_seed(seed: int, update: int, forward: int) -> int:
    """Of a forward pass of several ranks, whichever of them it falls to."""
    return random.Random(f"{seed} {update} {forward}").getrandbits(63)


def _arguments(
    updates: int, validates: bool, config: "Finetune", compute: "Compute", scratch: Path
) -> "TrainingArguments":
    """AdamW, a linear decay to 0, a checkpoint at every reading; nothing is reported anywhere."""
    from transformers import TrainingArguments

    keeps_best = validates and config.stop != "none" and ranks.is_first()
    arguments = TrainingArguments(
        output_dir=str(scratch),
        max_steps=updates,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0,
        weight_decay=0.0,
        seed=config.seed,
        data_seed=config.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validates else "no",
        eval_steps=config.validate_every,
        save_strategy="steps",
        save_steps=config.validate_every,
        load_best_model_at_end=keeps_best,
        metric_for_best_model=RANK if keeps_best else None,
        greater_is_better=True if keeps_best else None,
        activation_checkpointing=compute.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        report_to="none",
        disable_tqdm=True,
        use_cpu=compute.device == "cpu",
        remove_unused_columns=False,
    )
    arguments._n_gpu = 1  # else Trainer would spread a batch over all GPUs with DataParallel
    return arguments


def _recorder(
    updates: int,
    measured: "Callable[[Any], dict[str, float]] | None",
    answered: "Callable[[Any, int], list[dict[str, float]]]",
    stopping: Stopping,
    watcher: "Watcher",
) -> "TrainerCallback":
    """Passes the curves on, also those from before a restart, seals checkpoints, and stops by
    the rule or at a loss that is not finite."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):
        """Called by Trainer; `state.log_history` is the one record of the curves."""

        def __init__(self) -> None:
            self.saved = time.monotonic()

        def on_train_begin(
            self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any
        ) -> None:
            watcher.progress(state.global_step, updates, "updates")
            if state.best_global_step:  # the home may have been moved
                best = Path(args.output_dir, f"checkpoint-{state.best_global_step}")
                state.best_model_checkpoint = str(best)
            if state.global_step == 0:
                if measured is not None:
                    state.log_history.append({**measured(model), "step": 0})
                state.log_history.extend(answered(model, 0))
            for line in state.log_history:
                self._tell(line, line["step"])

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any
        ) -> None:
            step = state.global_step
            if not math.isfinite(logs.get("loss", 0.0)):
                raise ModelError(
                    f"update {step}: the loss is {logs['loss']}; lower finetune.learning_rate "
                    f"({args.learning_rate})"
                )
            self._tell(logs, step)

        def on_step_end(
            self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any
        ) -> None:
            if state.global_step in (1, updates):
                ranks.check_equal(trained(model))
            for line in answered(model, state.global_step):
                state.log_history.append(line)
                self._tell(line, state.global_step)
            if state.global_step == updates:
                control.should_evaluate = measured is not None
            if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                control.should_save = True
            control.should_save &= ranks.is_first()

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if stopping.ends(_readings(state.log_history)):
                control.should_training_stop = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.saved = time.monotonic()
            checkpoint = Path(args.output_dir, f"checkpoint-{state.global_step}")
            artifacts.write_text(checkpoint / SEAL, json.dumps(_checksums(checkpoint)))
            _remove_others(checkpoint)

        def _tell(self, line: dict[str, float], step: int) -> None:
            for name in CURVE if "loss" in line else ():
                watcher.metric(name, line[name], step)
            for name in [name for name in line if name.startswith("eval_")]:
                watcher.metric(name.replace("eval_", "validation_"), line[name], step)
            if "loss" in line:
                watcher.progress(step, updates, "updates")

    return Recorder()
