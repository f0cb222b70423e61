"""`python -m benchmarks.engines`: trajectories by vLLM and in process, their speed and their ties.

    python -m benchmarks.engines --set prepare.n_problems=64 --out FILE

Where two completions part, one teacher-forced pass of the expert over what they share says how far
apart its two best tokens are there.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import typer

from lightreasoner import config
from lightreasoner.cli.options import Overrides, ParamsFile
from lightreasoner.data import problems, sources
from lightreasoner.inference import loading
from lightreasoner.pipeline.graph import external_inputs, resolved
from lightreasoner.progress import Silent
from lightreasoner.sampling import generate
from lightreasoner.serving.identity import identity
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Inputs, Workspace
from lightreasoner.storage.fingerprint import git_commit

Rows = list[dict[str, Any]]
NEAR_TIE = 1e-3
"""Nats between the two best tokens, in float32: another order of sums moves a logit by 1e-5."""


class _Clock(Silent):
    """When the first shard was begun: the engine is ready."""

    def __init__(self) -> None:
        self.began = 0.0

    def progress(self, done: int, total: int, unit: str) -> None:
        """Note it."""
        if unit == "trajectories" and done == 0:
            self.began = time.perf_counter()


def measure(
    inputs: Inputs, section: config.Generate, compute: config.Compute, folder: Path
) -> tuple[dict[str, Any], Rows]:
    """Seconds to be ready and to write, tokens per second; the trajectories."""
    out, clock, since = folder / compute.engine, _Clock(), time.perf_counter()
    out.mkdir()
    work = Workspace(out, folder / f"{compute.engine}-work" / "shards", compute)
    generate.write(inputs, section, work, clock)
    ended = time.perf_counter()
    rows: Rows = tables.read_table(out / "trajectories.parquet", tables.TRAJECTORIES).to_pylist()
    tokens = sum(len(row["completion_ids"]) for row in rows)
    return {
        "engine": identity(compute),
        "seconds_until_ready": clock.began - since,
        "seconds": ended - clock.began,
        "new_tokens": tokens,
        "new_tokens_per_second": tokens / (ended - clock.began),
    }, rows


def partings(expert: Path, ours: Rows, theirs: Rows) -> list[dict[str, Any]]:
    """Each pair of completions that differ: where, and the nats between the best two tokens."""
    model, found = loading.load_model(expert, "cpu", "float32"), []
    for row, other in zip(ours, theirs, strict=True):
        a, b = row["completion_ids"], other["completion_ids"]
        if a != b:
            step = next(n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
            with torch.inference_mode():
                logits = model(torch.tensor([row["prompt_ids"] + a[:step]])).logits[0, -1]
            best, second = logits.log_softmax(-1).topk(2).values.tolist()
            gap = {"step": step, "nats": best - second, "is_near_tie": best - second < NEAR_TIE}
            found.append({"problem_id": row["problem_id"], **gap})
    return found


def main(
    params: ParamsFile = Path("params.yaml"),
    set_: Overrides = None,
    out: Path = Path("engines.json"),
) -> None:
    """Compare the engines on generate, greedily, on the parameters' expert and problems."""
    values = config.load(params, set_ or ())
    prepare, compute = values.prepare, resolved(values.compute)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = sources.draw_problems(
            prepare.source, prepare.problem_set, "train", prepare.n_problems, prepare.seed
        )
        (folder / "problems").mkdir()
        problems.write_problems(drawn, folder / "problems" / "problems.jsonl")
        inputs = external_inputs(values, ("expert",))
        inputs["problems"] = artifacts.of(folder / "problems")
        found: dict[str, Any] = {
            "expert": inputs["expert"].digest,
            "problems": len(drawn),
            "max_new_tokens": values.generate.max_new_tokens,
            "device": compute.device,
            "dtype": compute.dtype,
            "threads": torch.get_num_threads(),
            "commit": git_commit(),
        }
        rows = {}
        for engine in ("transformers", "vllm"):
            own = compute.model_copy(update={"engine": engine})
            found[engine], rows[engine] = measure(inputs, values.generate, own, folder)
        differ = partings(inputs["expert"].path, rows["transformers"], rows["vllm"])
        found["equal"], found["differ"] = len(drawn) - len(differ), differ
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
