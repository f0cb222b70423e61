"""The paper's presets at the exact shapes of their models, with random weights.

    .venv/bin/python -m benchmarks.exact_shapes qwen2.5-math-1.5b --dtype float32 bfloat16

Every stage of the main job, registering too, is a command in a process of its own, for a few
problems, tokens and updates: what fails or grows at the real sizes shows here, without a GPU or
the hub. Random weights write nonsense, so accuracies mean nothing; a stage's checks (the merge's
parity above all) hold for any weights. Seconds are those of the stage in the store's manifest and
of its whole process; the peak is the process's largest resident set.

Stages whose process ends badly end the run; what the others found is kept. Needs a few GB of disk
at --work for the models (3 GB for 1.5B, 15 GB for 7B, and each merged model) and as much memory as
the stages take.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from benchmarks import paper_models
from lightreasoner.pipeline.graph import GRAPH

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "transformers", "peft")
STAGES = tuple(stage.name for stage in GRAPH)
SIZES = {"problems": 4, "tokens": 16, "updates": 2}
SEED = 42


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("preset", choices=[name for name in paper_models.LAYOUTS if "-" in name])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--until", choices=[*STAGES, "register"], default="register")
    parser.add_argument("--tiny", action="store_true", help="two layers, 32 wide, as a trial")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--work", type=Path, help="a folder with room; default: a temporary one")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out = given.out or RESULTS / f"exact-{given.preset}.json"
    with TemporaryDirectory(dir=given.work, prefix="exact-") as work:
        found = conditions() | made(Path(work), given.preset, given.tiny)
        for dtype in given.dtype:
            measure = Measure(Path(work), given.preset, [f"compute.dtype={dtype}", *given.set])
            found[dtype] = measure.all_until(given.until)
            out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            shutil.rmtree(measure.home)


def made(work: Path, preset: str, is_tiny: bool) -> dict[str, Any]:
    """Write both models and the problems; what they are."""
    tokenizer = paper_models.ordinary().to_str()
    clock, found = time.perf_counter(), dict[str, Any]()
    for seed, (role, name) in enumerate((("expert", preset), ("amateur", "amateur"))):
        shape = paper_models.tiny(32) if is_tiny else None
        path = paper_models.write(work / role, name, tokenizer, seed, shape)
        found[role] = {
            "layout": name,
            "shape": vars(shape or paper_models.LAYOUTS[name].shape),
            "bytes": sum(file.stat().st_size for file in path.glob("*.safetensors")),
        }
    for split, first in (("train", 0), ("test", 100)):
        rows = [_problem(number) for number in range(first, first + SIZES["problems"])]
        folder = work / "problems" / "gsm8k"
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return {"models": found, "seconds_to_make": round(time.perf_counter() - clock, 1)}


def _problem(number: int) -> dict[str, str]:
    question = f"Ed has {number} figs and buys {number + 3} more. He gives 2 away. How many has he?"
    return {"question": question, "answer": f"{2 * number + 3} - 2\n#### {2 * number + 1}"}


class Measure:
    """The commands of one preset and dtype, each in a process of its own."""

    def __init__(self, work: Path, preset: str, changes: list[str]):
        self.work, self.home, self.data = work, work / "home", work / "home" / "data"
        self.params = work / "params.yaml"
        source = work / "problems"
        self.changes = [
            f"models.expert={work / 'expert'}",
            f"models.amateur={work / 'amateur'}",
            "compute.device=cpu",
            f"prepare.source={source}",
            f"prepare.n_problems={SIZES['problems']}",
            f"generate.max_new_tokens={SIZES['tokens']}",
            f"finetune.updates={SIZES['updates']}",
            f"evaluate.source={source}",
            "evaluate.problem_sets=[gsm8k]",
            f"evaluate.max_new_tokens={SIZES['tokens']}",
            *changes,
        ]
        self.run("preset", preset, "--overwrite", "--params", str(self.params))

    def all_until(self, last: str) -> dict[str, Any]:
        """Every stage up to `last`; the figures of each."""
        found: dict[str, Any] = {
            "settings": [change for change in self.changes if "/" not in change]
        }
        names = [*STAGES, "register"]
        for name in names[: names.index(last) + 1]:
            found[name] = self.register() if name == "register" else self.stage(name)
            print(f"{name}: {json.dumps(found[name])}", flush=True)
        return found

    def stage(self, name: str) -> dict[str, Any]:
        """Run a stage; its figures, with what the check of the merge measured."""
        folder = next(stage.folder or stage.output for stage in GRAPH if stage.name == name)
        inputs = [
            word
            for given in next(stage.inputs for stage in GRAPH if stage.name == name)
            if (self.data / given).is_dir()
            for word in (f"--{given.replace('_', '-')}", str(self.data / given))
        ]
        out = self.data / folder
        options = [*inputs, "--home", str(self.home), "--out", str(out), *self.parameters()]
        figures = self.run(name.replace("_", "-"), *options)
        (manifest,) = (self.home / "store" / name).glob("*/manifest.json")
        figures["stage_seconds"] = json.loads(manifest.read_text())["seconds"]
        if name == "merge":
            figures["parity"] = json.loads((out / "parity.json").read_text())
        if name == "select":
            figures["samples"] = pq.read_metadata(out / "samples.parquet").num_rows
        return figures

    def register(self) -> dict[str, Any]:
        """Register the merged model and ask the gate; what both said."""
        out = self.data / "registered_model.json"
        options = ["--model", str(self.data / "model"), "--out", str(out), *self.parameters()]
        figures = self.run("register", *options)
        return figures | {"said": json.loads(out.read_text())}

    def parameters(self) -> list[str]:
        """The preset's file and what differs from it."""
        changes = [word for change in self.changes for word in ("--set", change)]
        return ["--params", str(self.params), *changes]

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run a command of the product; its seconds and largest resident set, MiB."""
        environment = os.environ | {"LIGHTREASONER_HOME": str(self.home)}
        start = time.perf_counter()
        command = [str(Path(sys.executable).with_name("lightreasoner")), *arguments]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sys.stderr)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{arguments[0]} ended with status {process.returncode}")
        seconds, peak = time.perf_counter() - start, used.ru_maxrss / 1024
        cpu = used.ru_utime + used.ru_stime
        return {
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu, 1),
            "peak_memory_mib": round(peak),
        }


def conditions() -> dict[str, Any]:
    """Where and with what this was measured."""
    return {
        "command": " ".join(["benchmarks/exact_shapes.py", *sys.argv[1:]]),
        "device": f"{platform.machine()} CPU, {len(os.sched_getaffinity(0))} cores",
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        **SIZES,
    }


if __name__ == "__main__":
    main()
