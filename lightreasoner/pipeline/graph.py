"""The stages: the narrow waist that the command line, the Prefect tasks and DVC all call.

    problems --generate--> trajectories --score--> steps --select--> samples
    samples --finetune--> adapter --merge--> model --evaluate--> scores --report--> report

Two more make the baselines' sample sets of whole solutions (BASELINES), in select's place:

    problems, trajectories --keep, gold--> samples

A stage reads artifacts, its own section of the parameters, and writes its payload into `out`.
Modules are imported when a stage runs, so that help texts and cached runs load no model library.
"""

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from lightreasoner import memory
from lightreasoner.config import Compute, Evaluate, Params, Section
from lightreasoner.progress import Watcher
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact, Workspace

Inputs = dict[str, Artifact]

FREE_IT = "end what else uses {device}, or take one with more memory"
FEWER_ROWS = (
    "set compute.batch_size (now {params.compute.batch_size}) lower than what the whole memory "
    f"would hold, or {FREE_IT}"
)
REMEDIES = {
    "generate": FEWER_ROWS,
    "evaluate_base": FEWER_ROWS,
    "evaluate": FEWER_ROWS,
    "finetune": "lower finetune.samples_per_forward (now {params.finetune.samples_per_forward}; in "
    "compare sft.solutions_per_forward), or set compute.gradient_checkpointing=true",
}
"""What helps against too little memory, by stage; fields are those of the parameters."""


@dataclass(frozen=True)
class Stage:
    """One stage of the graph.

    `folder` is where the command line puts the output, if not under the output's own name; `view`
    is what of its section the stage reads, where two share one.
    """

    name: str
    summary: str
    inputs: tuple[str, ...]
    output: str
    section: str | None
    module: str
    write: Callable[[Inputs, Params, Workspace, Watcher], None]
    folder: str | None = None
    view: Callable[[Any], Section] | None = None

    def settings(self, params: Params) -> Section | None:
        """The stage's section as it reads it; None if it has none."""
        if self.section is None:
            return None
        section: Section = getattr(params, self.section)
        return self.view(section) if self.view else section

    def run(self, inputs: Inputs, params: Params, work: Workspace, watcher: Watcher) -> Artifact:
        """Write the payload into the directory `work.out` and return it with its digest.

        Raises NoMemoryError where the memory does not hold it, and what the stage raises.
        """
        device = resolved(params.compute).device
        remedy = REMEDIES.get(self.name, FREE_IT).format(params=params, device=device)
        with memory.told(self.name, device, remedy):
            self.write(inputs, params, work, watcher)
        return artifacts.of(work.out)


def prepare(inputs: Inputs, params: Params, work: Workspace, watcher: Watcher) -> None:
    """Draw the problems: `problems.jsonl`."""
    from lightreasoner.data import problems, sources

    section, tally = params.prepare, sources.Tally()
    drawn = sources.read(
        section.source, section.problem_set, "train", section.n_problems, section.seed, tally
    )
    problems.write(drawn, work.out / "problems.jsonl")
    for how, count in tally.items():
        watcher.metric(f"gold_answers/{how}", count, 0)
    watcher.progress(len(drawn), len(drawn), "problems")


def generate(inputs: Inputs, params: Params, work: Workspace, watcher: Watcher) -> None:
    """Let the expert write trajectories of the problems: `trajectories.parquet`."""
    from lightreasoner.sampling.generate import write_trajectories

    write_trajectories(
        inputs["expert"],
        inputs["problems"].path,
        params.generate,
        resolved(params.compute),
        work,
        watcher,
    )


def score(inputs: Inputs, params: Params, work: Workspace, watcher: Watcher) -> None:
    """Compare expert and amateur at every step: `steps.parquet`, `trajectories.parquet`."""
    from lightreasoner.sampling.score import write_steps

    write_steps(
        inputs["expert"],
        inputs["amateur"],
        inputs["trajectories"].path,
        params.score,
        resolved(params.compute),
        work,
        watcher,
    )


def select(inputs: Inputs, params: Params, work: Workspace, watcher: Watcher) -> None:
    """Keep the informative steps with their soft labels: the sample set."""
    from lightreasoner.sampling.select import write_samples

    write_samples(inputs["steps"], params.select, work.out)
    watcher.progress(1, 1, "sample sets")


def keep(inputs: Inputs, params: Params, work: Workspace, watcher: Watcher) -> None:
    """Keep the expert's correct solutions: a sample set of whole solutions."""
    from lightreasoner.sampling.whole_solutions import write_kept

    write_kept(inputs["problems"].path, inputs["trajectories"], inputs["expert"], work.out)
    watcher.progress(1, 1, "sample sets")


def gold(inputs: Inputs, params: Params, work: Workspace, watcher: Watcher) -> None:
    """Take the problems' own solutions: a sample set of whole solutions."""
    from lightreasoner.sampling.whole_solutions import write_gold

    write_gold(inputs["problems"].path, inputs["trajectories"], inputs["expert"], work.out)
    watcher.progress(1, 1, "sample sets")


def finetune(inputs: Inputs, params: Params, work: Workspace, watcher: Watcher) -> None:
    """Tune a LoRA adapter of the expert on the sample set."""
    from lightreasoner.tuning.finetune import write_adapter

    write_adapter(
        inputs["expert"],
        inputs["samples"].path,
        inputs["problems"].path,
        params.finetune,
        resolved(params.compute),
        work,
        watcher,
    )


def merge(inputs: Inputs, params: Params, work: Workspace, watcher: Watcher) -> None:
    """Fold the adapter into the expert and check that both compute the same."""
    from lightreasoner.tuning.merge import write_model

    write_model(
        inputs["expert"],
        inputs["adapter"].path,
        inputs["samples"],
        params.merge,
        resolved(params.compute),
        work.out,
        watcher,
    )


def evaluate_base(inputs: Inputs, params: Params, work: Workspace, watcher: Watcher) -> None:
    """Grade the expert as it came: `scores.parquet`, `summary.json`."""
    _evaluate(inputs["expert"], params.evaluate.of_base(), params, work, watcher)


def evaluate(inputs: Inputs, params: Params, work: Workspace, watcher: Watcher) -> None:
    """Grade the tuned model: `scores.parquet`, `summary.json`."""
    _evaluate(inputs["model"], params.evaluate.of_tuned(), params, work, watcher)


def _evaluate(
    model: Artifact, config: Evaluate, params: Params, work: Workspace, watcher: Watcher
) -> None:
    from lightreasoner.evaluation.evaluate import write_scores

    write_scores(model.path, config, resolved(params.compute), work, watcher)


def report(inputs: Inputs, params: Params, work: Workspace, watcher: Watcher) -> None:
    """Tables, figures and a page from the scores, the steps, the tuning's curves, the parity."""
    from lightreasoner.report.page import write_report

    write_report(inputs, resolved(params.compute), work.out)
    watcher.progress(1, 1, "reports")


GRAPH: tuple[Stage, ...] = (
    Stage(
        "prepare", "Draw the problems.",
        ("problem_source",), "problems", "prepare", "lightreasoner.data.sources", prepare,
    ),
    Stage(
        "generate", "Let the expert write trajectories, one a problem unless told.",
        ("expert", "problems"), "trajectories", "generate",
        "lightreasoner.sampling.generate", generate,
    ),
    Stage(
        "score", "Compare expert and amateur at every step of the trajectories.",
        ("expert", "amateur", "trajectories"), "steps", "score",
        "lightreasoner.sampling.score", score,
    ),
    Stage(
        "select", "Keep the informative steps with their soft labels.",
        ("steps",), "samples", "select", "lightreasoner.sampling.select", select,
    ),
    Stage(
        "finetune", "Tune a LoRA adapter of the expert on the samples.",
        ("expert", "samples", "problems"), "adapter",
        "finetune", "lightreasoner.tuning.finetune", finetune,
    ),
    Stage(
        "merge", "Fold the adapter into the expert and check that both compute the same.",
        ("expert", "adapter", "samples"), "model", "merge", "lightreasoner.tuning.merge", merge,
    ),
    Stage(
        "evaluate_base", "Grade the expert as it came, on fresh problems.",
        ("expert", "benchmark_source"), "scores_base", "evaluate",
        "lightreasoner.evaluation.evaluate",
        evaluate_base, view=Evaluate.of_base,
    ),
    Stage(
        "evaluate", "Grade the tuned model on the same problems.",
        ("model", "benchmark_source"), "scores", "evaluate",
        "lightreasoner.evaluation.evaluate",
        evaluate, view=Evaluate.of_tuned,
    ),
    Stage(
        "report", "Write tables, figures and a page.",
        ("scores_base", "scores", "steps", "samples", "adapter", "model"), "report", None,
        "lightreasoner.report.page", report,
    ),
)  # fmt: skip

BASELINES: tuple[Stage, ...] = (
    Stage(
        "keep", "Keep the expert's correct solutions as samples: rejection sampling (SFT).",
        ("expert", "problems", "trajectories"), "samples", None,
        "lightreasoner.sampling.whole_solutions", keep,
        folder="samples_sft",
    ),
    Stage(
        "gold", "Take the problems' own solutions as samples: ground-truth supervision.",
        ("expert", "problems", "trajectories"), "samples", None,
        "lightreasoner.sampling.whole_solutions", gold,
        folder="samples_gold",
    ),
)  # fmt: skip
"""What `lightreasoner compare` runs in select's place; no part of dvc.yaml."""

STAGES: dict[str, Stage] = {stage.name: stage for stage in (*GRAPH, *BASELINES)}

EXTERNAL = ("expert", "amateur", "problem_source", "benchmark_source")


def external_inputs(params: Params, wanted: Collection[str] = EXTERNAL) -> Inputs:
    """What the graph starts from: both models and the sources of problems, checked.

    A wrong model, an amateur of another vocabulary or a missing file is refused here, before any
    stage runs. Raises ModelError or ProblemsError.
    """
    from lightreasoner.data import sources
    from lightreasoner.inference import loading, vocabulary

    resolve: dict[str, Callable[[], Artifact]] = {
        "expert": lambda: loading.resolve(params.models.expert),
        "amateur": lambda: loading.resolve(params.models.amateur),
        "problem_source": lambda: sources.resolve(params.prepare.source),
        "benchmark_source": lambda: sources.resolve(params.evaluate.source),
    }
    inputs = {name: resolve[name]() for name in wanted}
    if {"expert", "amateur"} <= inputs.keys():
        vocabulary.check_pair(inputs["expert"].path, inputs["amateur"].path)
    if "problem_source" in inputs:
        source = params.prepare
        sources.check(source.source, [source.problem_set], "train", source.n_problems)
    if "benchmark_source" in inputs:
        benchmarks = params.evaluate
        sources.check(benchmarks.source, benchmarks.problem_sets, "test", benchmarks.n_problems)
    return inputs


@functools.cache
def resolved(compute: Compute) -> Compute:
    """The same settings with the device and dtype that `auto` stands for on this machine."""
    import torch

    device = compute.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = compute.dtype
    if dtype == "auto":
        # Older GPUs only emulate bfloat16, slower than float32.
        fast = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "bfloat16" if fast else "float32"
    return compute.model_copy(update={"device": device, "dtype": dtype})
