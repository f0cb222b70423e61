"""The work of each stage that runs a model, and its peak of memory, from shapes and sizes.

Batches are those that the stages make: their constants and rules are taken from the stages' own
modules. Loading and writing files, grading and what the CPU does between is not counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lightreasoner.config import Compute, Params
from lightreasoner.forecast import work as formulas
from lightreasoner.forecast.limits import least
from lightreasoner.forecast.shapes import ITEM_BYTES, Shape
from lightreasoner.forecast.sizes import Sizes
from lightreasoner.forecast.work import Work
from lightreasoner.inference import batching
from lightreasoner.sampling import score
from lightreasoner.serving import vllm_engine
from lightreasoner.serving.vllm_server import CACHE_SHARE
from lightreasoner.storage.shards import LARGEST_FLOP
from lightreasoner.tuning import accuracy, finetune, loss, validation

CONTRAST_PASSES = 30
"""Over the float32 logits of a step, read or written, in score.py and contrast.py."""

HELD_LOGITS = 4
"""Copies of the logits in flight that are in memory together, float32."""

PARITY_POSITIONS = 32
"""Of a trajectory, at which merge compares distributions (parity.py)."""

PROGRAM_BYTES = 650e6
"""Python with torch and transformers, resident in a CPU's memory."""


@dataclass(frozen=True)
class Setting:
    """All that the stages' formulas need: parameters with `compute` resolved, shapes, sizes.

    `labels` are the samples of a trajectory, `memory` the device's bytes.
    """

    params: Params
    compute: Compute
    expert: Shape
    amateur: Shape
    sizes: Mapping[str, Sizes]
    labels: float
    memory: float

    @property
    def item(self) -> int:
        """Bytes of a number in the compute dtype."""
        return ITEM_BYTES[self.compute.dtype]


ON_WORKERS = ("generate", "score", "evaluate_base", "evaluate")
"""Stages that compute.workers share; where vLLM writes text, its GPUs do."""

VLLM_SHARE = 0.9
"""Of a GPU's memory, which vLLM takes unless it is told otherwise."""


def is_vllms(setting: Setting, stage: str) -> bool:
    """Whether vLLM writes the stage's text."""
    return setting.compute.engine == "vllm" and stage in setting.sizes


def together(setting: Setting, stage: str) -> int:
    """How many workers, or GPUs of vLLM's, do the stage's work side by side."""
    if is_vllms(setting, stage):
        return setting.compute.gpus
    return setting.compute.workers if stage in ON_WORKERS else 1


def work(setting: Setting, stage: str) -> Work:
    """The whole stage's."""
    if stage in setting.sizes:
        return written(setting, stage)
    return {"score": scored, "finetune": tuned, "merge": merged}[stage](setting)


def tokens(setting: Setting, stage: str) -> float:
    """Tokens that the stage writes, or those that it reads where it writes none."""
    sizes = setting.sizes["generate"]
    if stage in setting.sizes:
        return setting.sizes[stage].rows * setting.sizes[stage].new
    if stage == "finetune":
        each = updates(setting)
        return each.count * each.rows * each.tokens
    rows = sizes.rows if stage == "score" else setting.params.merge.parity_prompts
    return rows * (sizes.prompt + sizes.new)


def written(setting: Setting, stage: str) -> Work:
    """generate, evaluate_base, evaluate: prompts are read, then all rows decoded in step.

    On a GPU vLLM replays CUDA graphs, in which the host calls no layer.
    """
    shape, sizes, dtype = setting.expert, setting.sizes[stage], setting.compute.dtype
    slots = rows_at_once(setting, stage)
    full = formulas.steps(sizes.rows, sizes.new, sizes.most, slots, shard(setting, stage, slots))
    batch = batching.PREFILL_TOKENS[setting.compute.device]
    reading = formulas.read(shape, sizes.rows, sizes.prompt, sizes.rows, batch, dtype)
    whole = reading + formulas.decode(shape, sizes.rows, sizes.prompt, sizes.new, full, dtype)
    graphs = is_vllms(setting, stage) and setting.compute.device == "cuda"
    return replace(whole, layer_calls=0) if graphs else whole


def scored(setting: Setting) -> Work:
    """score: both models read each trajectory once, the head at each step."""
    sizes, dtype = setting.sizes["generate"], setting.compute.dtype
    steps, batch = sizes.rows * sizes.new, score.BATCH_TOKENS[setting.compute.device]
    both = [
        formulas.read(shape, sizes.rows, sizes.prompt + sizes.new - 1, steps, batch, dtype)
        for shape in (setting.expert, setting.amateur)
    ]
    contrast = Work(bytes=4.0 * CONTRAST_PASSES * setting.expert.vocab_size * steps)
    return both[0] + both[1] + contrast


@dataclass(frozen=True)
class Updates:
    """Of finetune: how many there are, and the rows of one: tokens, labels and passes."""

    count: int
    rows: float
    tokens: float
    labels: float
    passes: float


def updates(setting: Setting) -> Updates:
    """What plan_updates makes of rows of the mean length; a sample's step is anywhere."""
    config, sizes = setting.params.finetune, setting.sizes["generate"]
    is_sample, whole = config.batching == "sample", sizes.prompt + sizes.new
    per_row = 1.0 if is_sample else setting.labels
    counted = 1.0 if config.batching in ("sample", "solution") else per_row
    wanted = math.ceil(config.samples_per_update / counted)
    tokens = sizes.prompt + sizes.new / 2 if is_sample else whole
    held = 1 - config.validation_share
    all_rows = max(1.0, held * sizes.rows * (setting.labels if is_sample else 1))
    rows = min(wanted, all_rows)
    together = max(1.0, config.samples_per_forward / counted)
    if setting.compute.device in finetune.VALUES_IN_CACHE:
        values = finetune.VALUES_IN_CACHE[setting.compute.device]
        together = min(together, max(1.0, values / setting.expert.hidden_size // tokens))
    count = config.updates or math.ceil(all_rows / rows)
    return Updates(count, rows, tokens, rows * per_row, math.ceil(rows / together))


def tuned(setting: Setting) -> Work:
    """finetune: its updates, and the readings of held-out samples, solutions and answers between
    them."""
    params, each, dtype = setting.params.finetune, updates(setting), setting.compute.dtype
    update = formulas.train(
        setting.expert,
        params,
        each.rows,
        each.tokens,
        each.labels,
        each.passes,
        dtype,
        setting.compute.gradient_checkpointing,
    )
    if not params.validation_share:
        return update.times(each.count)
    sizes = setting.sizes["generate"]
    problems = max(1, round(params.validation_share * sizes.problems))
    held = problems * sizes.rows / sizes.problems
    readings = 1 + math.ceil(each.count / params.validate_every)
    # Once for samples, once for solutions (taken to be as long), twice for the drift.
    heads = held * (setting.labels + 3 * sizes.new)
    batch = validation.BATCH_TOKENS[setting.compute.device]
    reading = formulas.read(setting.expert, 4 * held, sizes.prompt + sizes.new, heads, batch, dtype)
    whole = update.times(each.count) + reading.times(readings)
    if not params.evaluate_every:
        return whole
    return whole + answered(setting, problems).times(
        1 + math.ceil(each.count / params.evaluate_every)
    )


def answered(setting: Setting, problems: int) -> Work:
    """A reading of the accuracy on so many held-out problems, decoded in this process."""
    rows, most = min(accuracy.MOST, problems), setting.params.finetune.evaluate_max_new_tokens
    new = min(setting.sizes["evaluate"].new, most)
    asked = replace(setting.sizes["generate"], rows=rows, new=new, most=most)
    alone = setting.compute.model_copy(update={"engine": "transformers", "workers": 1})
    return written(replace(setting, compute=alone, sizes={"evaluate": asked}), "evaluate")


def merged(setting: Setting) -> Work:
    """merge: four models read the same few trajectories, one by one, three of them in float32, for
    which they are widened each time; the weights are read, folded and written."""
    shape, sizes = setting.expert, setting.sizes["generate"]
    rows = min(setting.params.merge.parity_prompts, sizes.rows)
    tokens, heads = sizes.prompt + sizes.new, PARITY_POSITIONS * rows
    reading = formulas.read(shape, rows, tokens, heads, tokens, "float32")
    copies = 4 if setting.compute.dtype != "float32" else 3
    narrow, wide = (shape.weight_bytes(dtype) for dtype in (shape.kept_dtype, "float32"))
    widening = 0 if narrow == wide else (copies - 1) * rows * (narrow + wide)
    return reading.times(copies) + Work(bytes=3 * wide + widening)


def rows_at_once(setting: Setting, stage: str) -> int:
    """How many rows are decoded at once, by batching.py's rule or vllm_engine.py's."""
    if setting.compute.batch_size:
        return setting.compute.batch_size
    if is_vllms(setting, stage):
        return vllm_engine.ROWS[setting.compute.device]
    device, shape, sizes = setting.compute.device, setting.expert, setting.sizes[stage]
    room = batching.MEMORY_SHARE[device] * (
        setting.memory - shape.weight_bytes(setting.compute.dtype)
    )
    return batching.rows_within(
        int(room), _prefill_bytes(setting), _row_bytes(setting, sizes.longest + sizes.most)
    )


def shard(setting: Setting, stage: str, slots: int) -> float:
    """Prompts that are decoded together, by batching.py's rule; by vLLM, all of a copy's."""
    sizes, compute = setting.sizes[stage], setting.compute
    if is_vllms(setting, stage):
        return math.ceil(sizes.rows * compute.gpus_per_model / compute.gpus)
    prompts = batching.FILLS * slots
    if compute.device == "cpu":
        flop = 2.0 * setting.expert.parameters * (sizes.prompt + sizes.most)
        prompts = max(slots, min(prompts, int(LARGEST_FLOP["cpu"] / flop)))
    return min(prompts, math.ceil(sizes.rows / compute.workers))


def _prefill_bytes(setting: Setting) -> int:
    shape = setting.expert
    values = 3 * shape.intermediate_size + 8 * shape.hidden_size
    token = shape.cache_bytes(setting.compute.dtype) + values * setting.item
    return batching.PREFILL_TOKENS[setting.compute.device] * token


def _row_bytes(setting: Setting, tokens: int) -> int:
    shape = setting.expert
    return (
        tokens * shape.cache_bytes(setting.compute.dtype) + batching.LOGIT_BYTES * shape.vocab_size
    )


def peak(setting: Setting, stage: str) -> float:
    """Expected bytes of memory at a stage's peak, each answer as long as it may be."""
    shape, compute = setting.expert, setting.compute
    program = PROGRAM_BYTES if compute.device == "cpu" else 0.0
    needed = program + least(setting.params, compute, shape, setting.amateur)[stage]
    if is_vllms(setting, stage):
        if compute.endpoints:
            return program
        on_cpu = needed + CACHE_SHARE * setting.memory
        return on_cpu if compute.device == "cpu" else VLLM_SHARE * setting.memory
    if stage in setting.sizes:
        sizes = setting.sizes[stage]
        rows = min(rows_at_once(setting, stage), sizes.rows)
        cache = rows * _row_bytes(setting, sizes.longest + sizes.most)
        return needed + cache + _prefill_bytes(setting)
    if stage == "score":
        return needed + 4.0 * HELD_LOGITS * score.LOGITS_IN_FLIGHT[compute.device]
    if stage == "merge":
        rows = setting.params.merge.parity_prompts
        return needed + 2 * 4.0 * rows * PARITY_POSITIONS * shape.vocab_size
    each = updates(setting)
    values = 10 * shape.hidden_size + 4 * shape.intermediate_size
    layers = 1 if compute.gradient_checkpointing else shape.num_hidden_layers
    kept = shape.num_hidden_layers * shape.hidden_size + layers * values
    tokens = each.rows * each.tokens / each.passes
    logits = min(loss.LOGITS_IN_FLIGHT[compute.device], each.labels * shape.vocab_size)
    return needed + setting.item * kept * tokens + 4.0 * HELD_LOGITS * logits
