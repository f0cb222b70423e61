"""The paper's presets at the exact shapes of their models, with random weights.

    .venv/bin/python -m benchmarks.exact_shapes qwen2.5-math-1.5b --dtype float32 bfloat16

Every stage of the main job, registering too, is a command in a process of its own, for a few
problems, tokens and updates: what fails or grows at the real sizes shows here, without a GPU or
the hub. Random weights write nonsense, so accuracies mean nothing; a stage's checks (the merge's
parity above all) hold for any weights.

`seconds` and `peak_memory_mib` are the stage's own, from the store's manifest; the peak is of the
process's resident memory, pages of the weights' files among it. `cpu_seconds` are of the whole
command, imports included: on a shared machine they say more than seconds. Products of bfloat16 are
the CPU's own (`has_bfloat16_products`), or computed as a GPU does by `bfloat16_products`. Where the
memory is smaller than the weights in float32, --wide maps them (`mapped_weights`).

The first command that fails ends the run. What was found is written after each stage, and with
--work, whose folder stays, the same command goes on from there. Disk: 3 GB for the models of 1.5B,
15 GB for 7B, 6 GB for 8 of its layers, and as much again (in float32 twice) for each merged model
and its registered copy.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks import paper_models
from lightreasoner.pipeline.graph import EXTERNAL, GRAPH, STAGES
from lightreasoner.storage.fingerprint import git_commit

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "transformers", "peft")
NAMES = [*(stage.name for stage in GRAPH), "register"]
CONSOLE = "from flows.cli.console import main; main()"
SIZES = {"problems": 4, "tokens": 16, "updates": 2}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("preset", choices=[name for name in paper_models.LAYOUTS if "-" in name])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--until", choices=NAMES, default=NAMES[-1])
    parser.add_argument("--tiny", action="store_true", help="two layers, 32 wide, as a trial")
    parser.add_argument(
        "--layers", type=int, help="of the expert, where memory is too small for all"
    )
    parser.add_argument(
        "--wide",
        action="store_true",
        help="files in float32, which are mapped, not copied to memory",
    )
    parser.add_argument("--work", type=Path, help="a folder with room, to go on in")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or RESULTS / f"exact-{given.preset}.json"
    with TemporaryDirectory(prefix="exact-") as temporary:
        work = given.work or Path(temporary)
        known = json.loads(out.read_text()) if given.work and out.exists() else {}
        found = known | conditions()
        if "models" not in found:
            found["models"] = in_a_process(made, work, given)
        for dtype in given.dtype:
            measure = Measure(work, given.preset, dtype, given.wide)
            figures = found.setdefault(dtype, {})
            for name in NAMES[: NAMES.index(given.until) + 1]:
                if name not in figures:
                    figures[name] = measure.figures(name)
                    print(f"{name}: {json.dumps(figures[name])}", flush=True)
                    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            shutil.rmtree(measure.home, ignore_errors=True)


def in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, its memory given back to the system."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def made(work: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Write both models and the problems; what they are."""
    tokenizer = paper_models.ordinary().to_str()
    found = dict[str, Any]()
    for seed, (role, name) in enumerate((("expert", given.preset), ("amateur", "amateur"))):
        shape = paper_models.tiny(32) if given.tiny else paper_models.LAYOUTS[name].shape
        if given.layers and role == "expert":
            shape = replace(shape, layers=given.layers)
        path = paper_models.write(work / role, name, tokenizer, seed, shape)
        if given.wide:
            paper_models.widen(path)
        found[role] = {
            "layout": name,
            "shape": vars(shape),
            "bytes": sum(file.stat().st_size for file in path.glob("*.safetensors")),
        }
    for split, first in (("train", 0), ("test", 100)):
        rows = [_problem(number) for number in range(first, first + SIZES["problems"])]
        folder = work / "problems" / "gsm8k"
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return found


def _problem(number: int) -> dict[str, str]:
    question = f"Ed has {number} figs and buys {number + 3} more. He gives 2 away. How many has he?"
    return {"question": question, "answer": f"{2 * number + 3} - 2\n#### {2 * number + 1}"}


class Measure:
    """The commands of one preset and dtype, each in a process of its own."""

    def __init__(self, work: Path, preset: str, dtype: str, is_wide: bool):
        self.home = work / dtype
        self.data, self.params = self.home / "data", work / "params.yaml"
        self.program = ["-m", "benchmarks.mapped_weights"] if is_wide else ["-c", CONSOLE]
        if dtype == "bfloat16" and not has_bfloat16_products():
            self.program = ["-m", "benchmarks.bfloat16_products"]
        self.run("preset", preset, "--overwrite", "--params", str(self.params))
        source = work / "problems"
        changes = (
            f"models.expert={work / 'expert'}",
            f"models.amateur={work / 'amateur'}",
            "compute.device=cpu",
            f"compute.dtype={dtype}",
            f"prepare.source={source}",
            f"prepare.n_problems={SIZES['problems']}",
            f"generate.max_new_tokens={SIZES['tokens']}",
            f"finetune.updates={SIZES['updates']}",
            f"evaluate.source={source}",
            "evaluate.problem_sets=[gsm8k]",
            f"evaluate.max_new_tokens={SIZES['tokens']}",
        )
        self.parameters = ["--params", str(self.params)]
        self.parameters += [word for change in changes for word in ("--set", change)]

    def figures(self, name: str) -> dict[str, Any]:
        """Run a stage, or register; what it took, and what the merge's check and the gate said."""
        if name == "register":
            file = self.data / "registered_model.json"
            model = ["--model", str(self.data / "model"), "--overwrite"]
            cpu = self.run(name, *model, "--out", str(file), *self.parameters)
            return {"cpu_seconds": cpu, "said": json.loads(file.read_text())}
        stage = STAGES[name]
        out = self.data / (stage.folder or stage.output)
        inputs = [name for name in stage.inputs if name not in EXTERNAL]
        options = [
            word
            for name in inputs
            for word in (f"--{name.replace('_', '-')}", str(self.data / name))
        ]
        options += ["--home", str(self.home), "--out", str(out), "--overwrite"]
        cpu = self.run(name.replace("_", "-"), *options, *self.parameters)
        (file,) = (self.home / "store" / name).glob("*/manifest.json")
        manifest = json.loads(file.read_text())
        found = {key: manifest[key] for key in ("seconds", "peak_memory_mib")}
        found["cpu_seconds"] = cpu
        if name == "select":
            found["samples"] = pq.read_metadata(out / "samples.parquet").num_rows
        if name == "merge":
            found["parity"] = json.loads((out / "parity.json").read_text())
        return found

    def run(self, *arguments: str) -> float:
        """Run a command of the product; its CPU time, seconds."""
        command = [sys.executable, *self.program, *arguments]
        environment = os.environ | {"LIGHTREASONER_HOME": str(self.home)}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)


def has_bfloat16_products() -> bool:
    """Whether this CPU multiplies bfloat16 numbers by instructions for it."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def conditions() -> dict[str, Any]:
    """Where and with what this was measured."""
    return {
        "command": " ".join(["python -m benchmarks.exact_shapes", *sys.argv[1:]]),
        "device": f"{platform.machine()} CPU, {len(os.sched_getaffinity(0))} cores",
        "has_bfloat16_products": has_bfloat16_products(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": git_commit(),
        **SIZES,
    }


if __name__ == "__main__":
    main()
