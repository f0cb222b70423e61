"""The stages: the narrow waist that the command line, the Prefect tasks and DVC all call.

    problems --generate--> trajectories --score--> steps --select--> samples
    samples --finetune--> adapter --merge--> model --evaluate--> scores --report--> report

Two more make the baselines' sample sets of whole solutions (BASELINES), in select's place:

    problems, trajectories --keep, gold--> samples

A stage is a function of its own module, `write(inputs, section, work, watcher)`: it reads artifacts
and its own section of the parameters, and writes its payload into `work.out`. Modules are imported
when a stage runs, so that help texts and cached runs load no model library.
"""

import ctypes
import functools
import importlib
import importlib.util
import runpy
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightreasoner import memory
from lightreasoner.config import Compute, Evaluate, Params, Section
from lightreasoner.progress import Watcher
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact, Inputs, Workspace

FREE_IT = "end other programs on {compute.device}, or use one with more memory"
FEWER_ROWS = (
    "set compute.batch_size (now {compute.batch_size}) lower than what the whole memory "
    f"would hold, or {FREE_IT}"
)
REMEDIES = {
    "generate": FEWER_ROWS,
    "evaluate_base": FEWER_ROWS,
    "evaluate": FEWER_ROWS,
    "finetune": "lower finetune.samples_per_forward (now {settings.samples_per_forward}; in "
    "compare sft.solutions_per_forward), or set compute.gradient_checkpointing=true",
}
"""The remedy for too little memory, by stage; fields are those of its section and of compute."""


@dataclass(frozen=True)
class Stage:
    """One stage of the graph; `function` of its `module` writes the payload.

    `folder` is where the command line puts the output, if not under the output's own name; `view`
    is what of its section the stage reads, where two share one; `writes_text` says that the result
    is the engine's, too.
    """

    name: str
    summary: str
    inputs: tuple[str, ...]
    output: str
    section: str | None
    module: str
    function: str = "write"
    folder: str | None = None
    view: Callable[[Any], Section] | None = None
    writes_text: bool = False

    def settings(self, params: Params) -> Section | None:
        """The stage's section as it reads it; None if it has none."""
        if self.section is None:
            return None
        section: Section = getattr(params, self.section)
        return self.view(section) if self.view else section

    def run(
        self, inputs: Inputs, settings: Section | None, work: Workspace, watcher: Watcher
    ) -> Artifact:
        """Write the payload into the directory `work.out` and return it with its digest.

        Raises NoMemoryError where the memory does not hold it, and what the stage raises.
        """
        write = getattr(importlib.import_module(self.module), self.function)
        remedy = REMEDIES.get(self.name, FREE_IT).format(settings=settings, compute=work.compute)
        with memory.errors_with_remedy(self.name, work.compute.device, remedy):
            write(inputs, settings, work, watcher)
        return artifacts.of(work.out)


GRAPH: tuple[Stage, ...] = (
    Stage(
        "prepare", "Draw the problems.",
        ("problem_source",), "problems", "prepare", "lightreasoner.data.prepare",
    ),
    Stage(
        "generate", "Let the expert write a trajectory for each problem.",
        ("expert", "problems"), "trajectories", "generate",
        "lightreasoner.sampling.generate", writes_text=True,
    ),
    Stage(
        "score", "Compare expert and amateur at every step.",
        ("expert", "amateur", "trajectories"), "steps", "score",
        "lightreasoner.sampling.score",
    ),
    Stage(
        "select", "Keep the informative steps with their soft labels.",
        ("steps",), "samples", "select", "lightreasoner.sampling.select",
    ),
    Stage(
        "finetune", "Tune a LoRA adapter of the expert on the samples.",
        ("expert", "samples", "problems"), "adapter", "finetune", "lightreasoner.tuning.finetune",
    ),
    Stage(
        "merge", "Fold the adapter into the expert and check the result.",
        ("expert", "adapter", "samples"), "model", "merge", "lightreasoner.tuning.merge",
    ),
    Stage(
        "evaluate_base", "Grade the expert before tuning, on fresh problems.",
        ("expert", "benchmark_source"), "scores_base", "evaluate",
        "lightreasoner.evaluation.evaluate",
        view=Evaluate.of_base, writes_text=True,
    ),
    Stage(
        "evaluate", "Grade the tuned model on the same problems.",
        ("model", "benchmark_source"), "scores", "evaluate",
        "lightreasoner.evaluation.evaluate",
        view=Evaluate.of_tuned, writes_text=True,
    ),
    Stage(
        "report", "Write tables, figures and a page.",
        ("scores_base", "scores", "steps", "samples", "adapter", "model"), "report", None,
        "lightreasoner.report.page",
    ),
)  # fmt: skip

BASELINES: tuple[Stage, ...] = (
    Stage(
        "keep", "Keep the expert's correct solutions as samples (SFT).",
        ("expert", "problems", "trajectories"), "samples", None,
        "lightreasoner.sampling.whole_solutions", "keep",
        folder="samples_sft",
    ),
    Stage(
        "gold", "Take the problems' own solutions as samples.",
        ("expert", "problems", "trajectories"), "samples", None,
        "lightreasoner.sampling.whole_solutions", "gold",
        folder="samples_gold",
    ),
)  # fmt: skip
"""What `lightreasoner compare` runs in place of select; not part of dvc.yaml."""

STAGES: dict[str, Stage] = {stage.name: stage for stage in (*GRAPH, *BASELINES)}

EXTERNAL = ("expert", "amateur", "problem_source", "benchmark_source")


def walk(
    stages: Iterable[Stage], inputs: Inputs, make: Callable[[Stage, Inputs], Artifact]
) -> Inputs:
    """What stages put out, by name: `make` is called for each in order, with its own inputs.

    These come from `inputs` and from the stages before it.
    """
    known, made = dict(inputs), {}
    for stage in stages:
        needed = {name: known[name] for name in stage.inputs}
        known[stage.output] = made[stage.output] = make(stage, needed)
    return made


def external_inputs(params: Params, wanted: Collection[str] = EXTERNAL, needs: str = "") -> Inputs:
    """What the graph starts from: both models and the sources of problems, checked.

    A wrong model, an amateur of another vocabulary or a missing file is refused here, before any
    stage runs; where all stages will, so are more processes than this machine has devices for.
    `needs` says what needs gold answers of the problems to learn from, if anything does beside
    finetune.evaluate_every. Raises ModelError or ProblemsError.
    """
    from lightreasoner.data import demos, sources
    from lightreasoner.data.reading import TUNING, Reading
    from lightreasoner.inference import loading, vocabulary
    from lightreasoner.tuning import launch

    if set(wanted) == set(EXTERNAL):
        launch.check(params.finetune.processes, resolved(params.compute).device)
    problems, benchmarks = params.prepare, params.evaluate
    resolve: dict[str, Callable[[], Artifact]] = {
        "expert": lambda: loading.resolve(params.models.expert),
        "amateur": lambda: loading.resolve_amateur(params.models.amateur, params.models.expert),
        "problem_source": lambda: sources.resolve(problems.source),
        "benchmark_source": lambda: sources.resolve(benchmarks.source),
    }
    if "problem_source" in wanted:
        needs = needs or (TUNING if params.finetune.evaluate_every else "")
        reading = Reading("prepare", problems.columns, needs)
        sets = [problems.problem_set]
        sources.check(problems.source, sets, "train", problems.n_problems, reading)
    if "benchmark_source" in wanted:
        names, reading = benchmarks.problem_sets, Reading(columns=benchmarks.columns)
        sources.check(benchmarks.source, names, "test", benchmarks.n_problems, reading)
        demos.check(benchmarks.source, names, benchmarks.shots, benchmarks.seed, reading)
    inputs = {name: resolve[name]() for name in wanted}
    if {"expert", "amateur"} <= inputs.keys():
        vocabulary.check_pair(inputs["expert"].path, inputs["amateur"].path)
    return inputs


@functools.cache
def resolved(compute: Compute) -> Compute:
    """The same settings with the device and dtype that `auto` means on this machine."""
    device, dtype = compute.device, compute.dtype
    if device == "auto":
        device = "cuda" if _has_gpu() else "cpu"
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" and _has_fast_bfloat16() else "float32"
    return compute.model_copy(update={"device": device, "dtype": dtype})


def _has_gpu() -> bool:
    """Whether torch has a GPU. Its import takes seconds, so it is asked only if that may be: if it
    was built for one and, for CUDA, the driver is there.
    """
    package = importlib.util.find_spec("torch")
    assert package is not None
    assert package.origin is not None
    built = runpy.run_path(str(Path(package.origin).with_name("version.py")))
    if built["cuda"]:
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return False
    elif not built["hip"]:
        return False
    import torch

    return torch.cuda.is_available()


def _has_fast_bfloat16() -> bool:
    """Older GPUs only emulate bfloat16, slower than float32."""
    import torch

    return torch.cuda.is_bf16_supported(including_emulation=False)
