"""Bench: how fast sampling is here, against what this machine can do and against the naive way.

Rates are measured in the same process and with the same threads, so that ratios hold on a noisy
machine. FLOP are counted from the architecture over real tokens only: padding counts as waste.
"""

import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lightreasoner import processes
from lightreasoner.inference import loading, prompts, vocabulary
from lightreasoner.inference.batching import fitting_rows, shard_prompts
from lightreasoner.inference.decode import Completion, decode
from lightreasoner.pipeline.store import peak_memory_mib, reset_peak_memory
from lightreasoner.sampling.contrast import kl_divergence, shared_log_probs
from lightreasoner.sampling.score import Scorer, Trajectory
from lightreasoner.storage.fingerprint import git_commit, package_versions
from lightreasoner.storage.shards import shard_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightreasoner.config import Compute, Generate
    from lightreasoner.data.problems import Problem
    from lightreasoner.progress import Watcher
    from lightreasoner.storage.artifacts import Artifact

MATRIX = 2048
REPEATS = 10
DECODE_ROWS = 32
DECODE_STEPS = 24


@dataclass(frozen=True)
class Machine:
    """What was measured of the machine: FLOP/s of a large matrix product, bytes/s of reading."""

    threads: int
    flop_rate: float
    read_rate: float


def sampling(
    expert: "Artifact",
    amateur: "Artifact",
    problems: "list[Problem]",
    config: "Generate",
    compute: "Compute",
    naive_problems: int,
    watcher: "Watcher",
) -> dict[str, Any]:
    """Generate and score `problems`, the first `naive_problems` also one prefix at a time.

    Seconds exclude loading the models. Raises what the stages raise.
    """
    shared = torch.tensor(vocabulary.check_pair(expert.path, amateur.path))
    pair = [loading.load_model(m.path, compute.device, compute.dtype) for m in (expert, amateur)]
    machine = measure_machine(pair[0])
    prompt_ids = _prompts(expert, problems, config)
    stop_ids = loading.stop_ids(expert.path, loading.load_tokenizer(expert.path))
    reset_peak_memory()
    trajectories, generated = _generate(
        pair[0], problems, prompt_ids, stop_ids, config, compute, watcher
    )
    scored = _score(Scorer(pair[0], pair[1], shared, 0.01), trajectories, machine, watcher)
    peak = peak_memory_mib()
    naive = _naive(pair, trajectories[:naive_problems], shared.to(compute.device))
    seconds = generated["seconds"] + scored["seconds"]
    return {
        "expert": expert.digest,
        "amateur": amateur.digest,
        "problems": len(problems),
        "max_new_tokens": config.max_new_tokens,
        "machine": {**conditions(compute), **machine.__dict__},
        "generate": generated,
        "score": scored,
        "decode_step": _decode_step(pair[0], prompt_ids, machine),
        "naive": naive,
        "problems_per_second": len(problems) / seconds,
        "seconds_per_problem": seconds / len(problems),
        "peak_memory_mib": peak,
    }


def measure_machine(model: "PreTrainedModel") -> Machine:
    """Best of ten products of 2048-square matrices in the model's dtype; best of five sums."""
    kind = {"device": model.device, "dtype": model.dtype}
    one, other = (torch.randn(MATRIX, MATRIX, **kind) for _ in range(2))
    out = torch.empty_like(one)
    product = _best(lambda: torch.mm(one, other, out=out), REPEATS, model.device)
    many = torch.randn(1 << 26, **kind)
    read = _best(many.sum, 5, model.device)
    return Machine(
        torch.get_num_threads(), 2 * MATRIX**3 / product, many.numel() * many.element_size() / read
    )


def _best(action: Callable[[], object], repeats: int, device: torch.device) -> float:
    """The least seconds that an action took."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        _wait(device)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _prompts(expert: "Artifact", problems: "list[Problem]", config: "Generate") -> list[list[int]]:
    return prompts.encode_all(
        problems,
        config.style,
        loading.load_tokenizer(expert.path),
        config.max_new_tokens,
        loading.context_length(expert.path),
        "generate.max_new_tokens",
    )


def _generate(
    expert: "PreTrainedModel",
    problems: "list[Problem]",
    prompt_ids: list[list[int]],
    stop_ids: set[int],
    config: "Generate",
    compute: "Compute",
    watcher: "Watcher",
) -> tuple[list[Trajectory], dict[str, Any]]:
    """Greedy trajectories, one a problem, in shards as the stage makes them, and their cost."""
    tokens = round(statistics.fmean(map(len, prompt_ids))) + config.max_new_tokens
    size = shard_prompts(expert, tokens, len(problems), compute)
    completions: list[Completion] = []
    start = time.perf_counter()
    for at in range(0, len(prompt_ids), size):
        batch = prompt_ids[at : at + size]
        completions += decode(
            expert, batch, stop_ids, config.max_new_tokens, batch_size=compute.batch_size
        )
        watcher.progress(len(completions), len(prompt_ids), "problems generated")
    seconds = time.perf_counter() - start
    new = sum(len(completion.ids) for completion in completions)
    trajectories = [
        {"problem_id": problem.id, "prompt_ids": prompt, "completion_ids": completion.ids}
        for problem, prompt, completion in zip(problems, prompt_ids, completions, strict=True)
    ]
    cost = {
        "seconds": seconds,
        "shard": size,
        "batch_size": compute.batch_size or min(size, fitting_rows(expert, tokens)),
        "prompt_tokens": sum(map(len, prompt_ids)),
        "new_tokens": new,
        "new_tokens_per_second": new / seconds,
    }
    return trajectories, cost


def _score(
    scorer: Scorer, trajectories: list[Trajectory], machine: Machine, watcher: "Watcher"
) -> dict[str, Any]:
    size = shard_size(len(trajectories), 1.0, scorer.expert.device.type)
    steps = 0
    start = time.perf_counter()
    for at in range(0, len(trajectories), size):
        steps += len(scorer.score(trajectories[at : at + size]))
        watcher.progress(min(at + size, len(trajectories)), len(trajectories), "problems scored")
    seconds = time.perf_counter() - start
    lengths = [len(row["prompt_ids"]) + len(row["completion_ids"]) - 1 for row in trajectories]
    flop = sum(
        decoder_flop(model, lengths) + head_flop(model, steps)
        for model in (scorer.expert, scorer.amateur)
    )
    return {
        "seconds": seconds,
        "tokens": sum(lengths),
        "steps": steps,
        "tokens_per_second": sum(lengths) / seconds,
        "flop": flop,
        "share_of_matrix_rate": flop / seconds / machine.flop_rate,
    }


def decoder_flop(model: "PreTrainedModel", lengths: list[int]) -> int:
    """FLOP of one causal pass over sequences: 2 a weight and token, and attention's two products.

    Query i attends to i + 1 positions: 4 x head size x heads x (i + 1) a layer.
    """
    weights = sum(
        layer.weight.numel()
        for layer in model.get_decoder().modules()
        if isinstance(layer, torch.nn.Linear)
    )
    config = model.config
    head_size = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    width = config.num_hidden_layers * config.num_attention_heads * head_size
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    return 2 * weights * sum(lengths) + 4 * width * pairs


def head_flop(model: "PreTrainedModel", positions: int) -> int:
    """FLOP of the LM head at so many positions."""
    return 2 * model.get_output_embeddings().weight.numel() * positions


def _decode_step(
    expert: "PreTrainedModel", prompt_ids: list[list[int]], machine: Machine
) -> dict[str, float]:
    """Seconds of a decoded step of 32 rows, and the bound that the machine sets for it.

    A step is a 24th of what 25 tokens take longer than 1.

    The bound is the larger of reading all weights once and of the step's FLOP at the rate of a
    product of that shape.
    """
    rows = [prompt_ids[row % len(prompt_ids)] for row in range(DECODE_ROWS)]

    def take(tokens: int) -> float:
        def action() -> list[Completion]:
            return decode(expert, rows, set(), tokens, batch_size=len(rows))

        return _best(action, 3, expert.device)

    seconds = (take(1 + DECODE_STEPS) - take(1)) / DECODE_STEPS
    weights = sum(weight.numel() for weight in expert.parameters())
    size = next(expert.parameters()).element_size()
    hidden, inner = expert.config.hidden_size, expert.config.intermediate_size
    kind = {"device": expert.device, "dtype": expert.dtype}
    one, other = torch.randn(DECODE_ROWS, hidden, **kind), torch.randn(inner, hidden, **kind)
    product = _best(lambda: torch.nn.functional.linear(one, other), 50, expert.device)
    rate = 2 * DECODE_ROWS * hidden * inner / product
    mean = round(statistics.mean(map(len, rows))) + DECODE_STEPS // 2
    flop = (
        decoder_flop(expert, [mean]) - decoder_flop(expert, [mean - 1])
    ) * DECODE_ROWS + head_flop(expert, DECODE_ROWS)
    reading, computing = weights * size / machine.read_rate, flop / rate
    return {
        "rows": DECODE_ROWS,
        "seconds": seconds,
        "weights_read_seconds": reading,
        "flop_seconds": computing,
        "times_the_bound": seconds / max(reading, computing),
    }


@torch.inference_mode()
def _naive(
    pair: "list[PreTrainedModel]", trajectories: list[Trajectory], shared: torch.Tensor
) -> dict[str, Any]:
    """Both models anew on every whole prefix, one at a time: the same KL, the slow way."""
    start = time.perf_counter()
    largest = 0.0
    for row in trajectories:
        for step in range(len(row["completion_ids"])):
            prefix = torch.tensor([row["prompt_ids"] + row["completion_ids"][:step]])
            expert, amateur = (
                shared_log_probs(model(prefix.to(model.device)).logits[0, -1:], shared)
                for model in pair
            )
            largest = max(largest, kl_divergence(expert, amateur).item())
    seconds = time.perf_counter() - start
    per_problem = seconds / len(trajectories) if trajectories else math.nan
    return {
        "problems": len(trajectories),
        "seconds_per_problem": per_problem,
        "largest_kl": largest,
    }


def conditions(compute: "Compute") -> dict[str, Any]:
    """The device, versions and commit of a measurement."""
    device = platform.processor() or platform.machine()
    if compute.device == "cuda":
        device = torch.cuda.get_device_name()
    return {
        "device": device,
        "cores": processes.usable_cores(),
        "dtype": compute.dtype,
        "python": platform.python_version(),
        "packages": package_versions(),
        "commit": git_commit(),
    }


def summary(found: dict[str, Any]) -> list[str]:
    """The figures that matter, a line each."""
    generate, score, step, naive = (
        found[name] for name in ("generate", "score", "decode_step", "naive")
    )
    lines = [
        f"{found['problems']} problems: {found['seconds_per_problem']:.3f} s a problem, peak "
        f"{found['peak_memory_mib']:.0f} MiB",
        f"generate: {generate['new_tokens_per_second']:.0f} new tokens/s; a step of "
        f"{step['rows']} rows takes {step['times_the_bound']:.2f} times the machine's bound",
        f"score: {score['tokens_per_second']:.0f} tokens/s, "
        f"{score['share_of_matrix_rate']:.0%} of the matrix-product rate",
    ]
    if naive["problems"]:
        times = naive["seconds_per_problem"] * found["problems"] / score["seconds"]
        lines.append(
            f"naive scoring: {naive['seconds_per_problem']:.2f} s a problem, {times:.0f} times ours"
        )
    return lines
