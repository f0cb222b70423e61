"""The main job over several seeds: what a run of `make run` may come out at.

    .venv/bin/python benchmarks/seeds.py --finetune 42 43 44 --evaluate 42 1001 1002

Every fine-tuning seed is run with the first evaluation seed, and every other evaluation seed with
the first fine-tuning seed. Results go to benchmarks/results/seeds.json.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "seeds.json"
PACKAGES = ("torch", "transformers", "peft", "prefect", "mlflow")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--finetune", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--evaluate", type=int, nargs="+", default=[42, 1001, 1002])
    parser.add_argument("--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--out", type=Path, default=RESULT)
    seeds = parser.parse_args()
    pairs = [(seed, seeds.evaluate[0]) for seed in seeds.finetune]
    pairs += [(seeds.finetune[0], seed) for seed in seeds.evaluate[1:]]
    measured = conditions()
    with TemporaryDirectory() as home:
        rows = [run(Path(home), *pair, seeds.set) for pair in pairs]
    seeds.out.write_text(json.dumps(measured | {"runs": rows}, indent=1) + "\n")


def run(home: Path, finetune: int, evaluate: int, more: list[str]) -> dict[str, Any]:
    """One run of the pipeline; stages that an earlier one made are taken from its store."""
    wanted = [f"finetune.seed={finetune}", f"evaluate.seed={evaluate}", *more]
    command = [str(Path(sys.executable).with_name("lightreasoner")), "run"]
    start = time.monotonic()
    subprocess.run(
        [*command, *(word for pair in wanted for word in ("--set", pair))],
        cwd=ROOT,
        env=os.environ | {"LIGHTREASONER_HOME": str(home)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    report = json.loads((home / "latest" / "report.json").read_text())
    tuned = report["scores"]["lightreasoner"]["tuned"]["accuracy"]
    print(f"finetune.seed {finetune}, evaluate.seed {evaluate}: tuned {tuned:.3f}", flush=True)
    return {
        "finetune_seed": finetune,
        "evaluate_seed": evaluate,
        "seconds": round(time.monotonic() - start, 1),
        "scores": report["scores"],
        "paired": report["paired"],
        "stages": report["stages"],
    }


def conditions() -> dict[str, Any]:
    """Where and with what this was measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {
        "command": " ".join(["benchmarks/seeds.py", *sys.argv[1:]]),
        "commit": commit,
        "device": f"{platform.machine()} CPU, {len(os.sched_getaffinity(0))} cores",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


if __name__ == "__main__":
    main()
