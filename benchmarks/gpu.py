"""All stages at the exact shapes of Qwen2.5-Math-1.5B and Qwen2.5-0.5B, with random weights.

    .venv/bin/python -m benchmarks.gpu --out benchmarks/results/gpu-h200.json
    .venv/bin/python -m benchmarks.gpu --small            # two layers on a CPU: does it run at all?

Nothing is fetched: `benchmarks/paper_models.py` writes both models (4 GB) and this script the
problems. Each stage runs once, in this process, on the device and in the dtype that `auto` means
here; its seconds include loading its models. Beside them stands what the stage has to do, and
what share that is of the rates measured here first: a matrix product's FLOP/s, and the bytes/s of
reading a large tensor. Decoding is bound by reading: at every step all weights, and the keys and
values of every row. Random weights seldom end a text, so that nearly all run to their limit.
"""

import argparse
import json
import math
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import torch

from benchmarks import paper_models
from benchmarks.sampling import (
    conditions,
    decoder_flop,
    head_flop,
    measure_machine,
)
from lightreasoner import config
from lightreasoner.config import Params
from lightreasoner.inference import loading, prompts
from lightreasoner.inference.batching import fitting_rows, kept_bytes
from lightreasoner.pipeline.graph import GRAPH, Inputs, Stage, external_inputs, resolved, walk
from lightreasoner.pipeline.store import Job, Store
from lightreasoner.presets import PRESETS
from lightreasoner.progress import Silent
from lightreasoner.storage.artifacts import Artifact
from lightreasoner.tuning.finetune import plan_updates
from lightreasoner.tuning.rows import hold_out, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PRESET = "qwen2.5-math-1.5b"
SIZES = {"problems": 256, "tokens": 128, "updates": 50, "answers": 512}
SMALL = {"problems": 4, "tokens": 4, "updates": 2, "answers": 3}
"""Problems of each split, new tokens of generate, updates, new tokens of evaluate."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="two layers, four problems")
    for name, size in SIZES.items():
        parser.add_argument(f"--{name}", type=int, help=f"default: {size}, {SMALL[name]} if small")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--work", type=Path, help="a folder with 12 GB; default: a temporary one")
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    given = parser.parse_args()
    sizes = {
        name: getattr(given, name) or size
        for name, size in (SMALL if given.small else SIZES).items()
    }
    with TemporaryDirectory(dir=given.work, prefix="gpu-bench-") as work:
        found = measured(Path(work), sizes, given.small, given.set)
    print("\n".join(summary(found)))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measured(
    work: Path, sizes: dict[str, int], is_small: bool, changes: list[str]
) -> dict[str, Any]:
    """Write the models and problems into `work`, run every stage there, and return the figures."""
    tokenizer = paper_models.ordinary().to_str()
    shape = paper_models.tiny(32) if is_small else None
    for seed, (role, name) in enumerate((("expert", PRESET), ("amateur", "amateur"))):
        paper_models.write(work / role, name, tokenizer, seed, shape)
    _write_problems(work / "problems" / "gsm8k", sizes["problems"])
    params = _params(work, sizes, changes)
    compute = resolved(params.compute)
    expert = loading.load_model(work / "expert", compute.device, compute.dtype)
    machine = measure_machine(expert)
    rows = compute.batch_size or fitting_rows(expert, 200 + sizes["answers"])
    del expert
    stages: dict[str, dict[str, Any]] = {}

    def make(stage: Stage, inputs: Inputs) -> Artifact:
        outcome = Store(work / "home").run(Job.of(stage, inputs, params), Silent())
        stages[stage.name] = {
            "seconds": outcome.manifest["seconds"],
            "peak_memory_mib": outcome.manifest["peak_memory_mib"],
        }
        return outcome.artifact

    given = external_inputs(params)
    found = given | walk(GRAPH, given, make)
    for name, (flop, read) in _work(found, params, min(rows, sizes["problems"])).items():
        seconds = stages[name]["seconds"]
        stages[name] |= {
            "flop": flop,
            "share_of_matrix_rate": flop / seconds / machine.flop_rate,
            "bytes_read": read,
            "share_of_reading_rate": read / seconds / machine.read_rate,
        }
    return {
        "preset": PRESET,
        "small": is_small,
        **sizes,
        "machine": {**conditions(compute), **machine.__dict__},
        "rows": rows,
        "stages": stages,
    }


def _write_problems(folder: Path, n: int) -> None:
    folder.mkdir(parents=True)
    for split, first in (("train", 0), ("test", n)):
        rows = [
            {
                "question": f"Ed has {i} figs and buys {i + 3}. How many has he?",
                "answer": f"#### {i}",
            }
            for i in range(first, first + n)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def _params(work: Path, sizes: dict[str, int], changes: list[str]) -> Params:
    """The preset with these models, problems and sizes, then `changes`."""
    source = {"source": str(work / "problems")}
    own: dict[str, dict[str, Any]] = {
        "models": {"expert": str(work / "expert"), "amateur": str(work / "amateur")},
        "prepare": {**source, "n_problems": sizes["problems"]},
        "generate": {"max_new_tokens": sizes["tokens"]},
        "finetune": {"updates": sizes["updates"]},
        "evaluate": {**source, "problem_sets": ["gsm8k"], "max_new_tokens": sizes["answers"]},
    }
    tree = PRESETS[PRESET].model_dump(mode="json")
    path = work / "params.yaml"
    path.write_text(
        config.dump(config.parse({k: {**v, **own.get(k, {})} for k, v in tree.items()}, PRESET)),
        encoding="utf-8",
    )
    return config.load(path, changes)


def _work(found: Inputs, params: Params, rows: int) -> dict[str, tuple[int, int]]:
    """FLOP and bytes read of the stages that run a model, of real tokens alone."""
    expert, amateur = (loading.load_skeleton(found[name].path) for name in ("expert", "amateur"))
    size = getattr(torch, resolved(params.compute).dtype).itemsize
    written = pq.read_table(found["trajectories"].path / "trajectories.parquet").to_pylist()
    pairs = [(len(row["prompt_ids"]), len(row["completion_ids"])) for row in written]
    lengths = [prompt + new - 1 for prompt, new in pairs]
    new = sum(count for _, count in pairs)
    tuned = list(_tuned_rows(found, params))
    trained = sum(len(positions) for _, positions in tuned)
    return {
        "generate": _decoding(expert, pairs, rows, size),
        "score": (
            sum(decoder_flop(m, lengths) + head_flop(m, new) for m in (expert, amateur)),
            size * (expert.num_parameters() + amateur.num_parameters()),
        ),
        "finetune": (
            2 * (decoder_flop(expert, [n for n, _ in tuned]) + head_flop(expert, trained)),
            2 * size * expert.num_parameters() * (params.finetune.updates or 1),
        ),
        "merge": (0, 2 * size * expert.num_parameters()),
        "evaluate_base": _decoding(
            expert, list(_answers(found, params, "scores_base")), rows, size
        ),
        "evaluate": _decoding(expert, list(_answers(found, params, "scores")), rows, size),
    }


def _decoding(
    model: "PreTrainedModel", pairs: list[tuple[int, int]], rows: int, size: int
) -> tuple[int, int]:
    """FLOP and bytes of writing so many tokens after so many, `rows` texts at once."""
    new = sum(count for _, count in pairs)
    flop = decoder_flop(model, [p + n - 1 for p, n in pairs]) + head_flop(model, new)
    steps = max(max(n for _, n in pairs), math.ceil(new / rows))
    seen = sum(n * p + n * (n - 1) // 2 for p, n in pairs)
    return flop, size * steps * model.num_parameters() + seen * kept_bytes(model, size)


def _answers(found: Inputs, params: Params, name: str) -> Iterator[tuple[int, int]]:
    tokenizer = loading.load_tokenizer(found["expert"].path)
    for row in pq.read_table(found[name].path / "scores.parquet").to_pylist():
        asked = prompts.tokenize(row["prompt"], params.evaluate.style, tokenizer)
        yield len(asked), row["tokens"]


def _tuned_rows(found: Inputs, params: Params) -> Iterator[tuple[int, list[int]]]:
    """Length and positions of every row that fine-tuning read."""
    settings = params.finetune
    rows = read_rows(found["samples"].path, settings.batching)
    kept, _ = hold_out(rows, settings.validation_share, settings.seed)
    for update in plan_updates(kept, settings):
        yield from ((len(row.input_ids), row.positions) for row in chain.from_iterable(update))


def summary(found: dict[str, Any]) -> list[str]:
    """The figures that matter, a line each."""
    machine: dict[str, Any] = found["machine"]
    lines = [
        f"{machine['device']}, {machine['dtype']}: {machine['flop_rate'] / 1e12:.3g} TFLOP/s in "
        f"products, {machine['read_rate'] / 1e9:.4g} GB/s in reading; {found['problems']} problems"
    ]
    for name, stage in found["stages"].items():
        shares = ""
        if "flop" in stage:
            shares = (
                f", {stage['share_of_matrix_rate']:.1%} of the products' rate, "
                f"{stage['share_of_reading_rate']:.1%} of the reading rate"
            )
        lines.append(
            f"{name}: {stage['seconds']:.1f} s, peak {stage['peak_memory_mib']:.0f} MiB{shares}"
        )
    return lines


if __name__ == "__main__":
    main()
