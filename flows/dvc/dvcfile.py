"""dvc.yaml, written from the graph: `python -m flows.dvc.dvcfile` prints it, a test compares.

Each stage depends on its inputs, its section of params.yaml and the files of the code it runs, the
same files that its fingerprint covers; in a project (`lightreasoner init`), which has no code, on
the first two. A stage's command finds its result in the store if any driver made it before.
"""

from typing import Any

from lightreasoner import yaml12
from lightreasoner.cli.options import command_name
from lightreasoner.pipeline.graph import EXTERNAL, GRAPH, Stage
from lightreasoner.storage.fingerprint import PACKAGE_DIR, code_files
from lightreasoner.storage.outputs import DATA

HEADER = """\
# Written by `make dvc.yaml` from lightreasoner/pipeline/graph.py; a test compares.
"""
HEADER_OF_PROJECT = """\
# Written by `lightreasoner init`. The code is installed, where DVC does not see it: after another
# version of lightreasoner say `dvc repro --force`; what it would not change comes from the store.
"""
PARAMS_OF = {
    "expert": "models.expert",
    "amateur": "models.amateur",
    "problem_source": "prepare.source",
    "benchmark_source": "evaluate.source",
}
MICROWORLD = "lightreasoner/microworld/models"
NUMERIC = ["compute.device", "compute.dtype"]
ENGINE = [f"compute.{name}" for name in ("engine", "endpoint_version", "endpoint_dtype")]
"""What is in the key of text (serving/identity.py); whether there are endpoints follows from it."""


def dvc_yaml(in_checkout: bool = True) -> str:
    """The text of dvc.yaml, of a checkout or of a project."""
    stages = {command_name(stage): stage_entry(stage, in_checkout) for stage in GRAPH}
    stages["register"] = {
        "cmd": "lightreasoner register",
        "deps": [data(name) for name in ("model", "report")],
        "params": ["register"],
        "outs": [data("registered")],
    }
    tree = {
        "stages": stages,
        "metrics": [f"{data('report')}/metrics.json"],
        "plots": [
            curve("curve.csv", "Loss of fine-tuning, nats"),
            curve("validation.csv", "Loss of the samples held out, nats"),
            {f"{data('report')}/figures": None},
        ],
        "artifacts": {
            "samples": {
                "path": data("samples"),
                "type": "dataset",
                "desc": "The contrastive samples, docs/sample-set.md; versions are git tags, "
                "samples@v1.0.0.",
            },
            "model": {
                "path": data("model"),
                "type": "model",
                "desc": "The expert with the adapter merged into it, in the Hugging Face layout.",
            },
        },
    }
    return (HEADER if in_checkout else HEADER_OF_PROJECT) + yaml12.dump(tree)


def stage_entry(stage: Stage, in_checkout: bool = True) -> dict[str, Any]:
    """One stage as DVC has it."""
    made = [data(name) for name in stage.inputs if name not in EXTERNAL]
    shipped = [f"{MICROWORLD}/{name}" for name in stage.inputs if name in ("expert", "amateur")]
    code = [file.relative_to(PACKAGE_DIR.parent).as_posix() for file in code_files(stage.module)]
    params = [PARAMS_OF[name] for name in stage.inputs if name in EXTERNAL]
    return {
        "cmd": f"lightreasoner {command_name(stage)}",
        "deps": made + (shipped + code if in_checkout else []),
        "params": sorted(
            {
                *NUMERIC,
                *(ENGINE if stage.writes_text else []),
                *params,
                *([stage.section] if stage.section else []),
            }
        ),
        "outs": [data(stage.output)],
    }


def curve(file: str, title: str) -> dict[str, Any]:
    """A plot of the adapter's loss over the updates, one line per revision."""
    axes = {"x": "update", "y": "loss", "x_label": "update", "y_label": "nats", "title": title}
    return {f"{data('adapter')}/{file}": axes}


def data(name: str) -> str:
    """Where DVC's workspace holds an artifact."""
    return (DATA / name).as_posix()


if __name__ == "__main__":
    print(dvc_yaml(), end="")
