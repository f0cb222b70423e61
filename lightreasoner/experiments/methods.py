"""The methods of a comparison: what each changes in the parameters, and which stages it runs.

    base           the expert as it came
    lightreasoner  the parameters as they are
    sft            whole solutions of the expert's own whose answer is right (appendix F.4)
    gold           whole solutions that people wrote
    no_selection   every step is a sample            (the paper's ablations, section 3.5)
    no_contrast    a sample's label is the token that the expert wrote
    neither        both

All are tuned with one LoRA configuration and graded on the same problems. `sft` and `gold` take
their problems, solutions and updates from the section `sft`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lightreasoner.config import Params, parse
from lightreasoner.data.reading import BASELINES
from lightreasoner.errors import ConfigError, MergeError, ModelError, SelectionError
from lightreasoner.pipeline.graph import STAGES, Inputs, Stage, external_inputs
from lightreasoner.untrusted import shown

Name = Literal[
    "base", "lightreasoner", "sft", "gold", "no_selection", "no_contrast", "neither"
]  # fmt: skip
NAMES: tuple[Name, ...] = get_args(Name)
Changes = dict[str, dict[str, Any]]
UNTUNABLE = (SelectionError, ModelError, MergeError)
"""What tuning can come to by its parameters alone, at every try: a row of a table then says why."""


@dataclass(frozen=True)
class Method:
    """A method: its name in tables, the stage that makes its sample set, what it changes.

    `select` are values of the section `select`. `maker` is None for the base, which is not tuned.
    """

    title: str
    maker: Literal["select", "keep", "gold"] | None = "select"
    select: dict[str, Any] = field(default_factory=dict)


NO_SELECTION = {"steps": "all", "quantile": None}
NO_CONTRAST = {"label": "one_hot"}
METHODS: dict[Name, Method] = {
    "base": Method("base", None),
    "lightreasoner": Method("LightReasoner"),
    "sft": Method("SFT, rejection sampling", "keep"),
    "gold": Method("SFT, ground truth", "gold"),
    "no_selection": Method("no selection", select=NO_SELECTION),
    "no_contrast": Method("no contrast", select=NO_CONTRAST),
    "neither": Method("neither", select={**NO_SELECTION, **NO_CONTRAST}),
}


def named(names: Sequence[str]) -> tuple[Name, ...]:
    """The methods of these names, in the table's order. Raises ConfigError for unknown ones."""
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        raise ConfigError(
            [f"no method {shown(name)}; there are {', '.join(METHODS)}" for name in unknown]
            or [f"no method is named; there are {', '.join(METHODS)}"]
        )
    return tuple(name for name in METHODS if name in names)


def stages_of(name: Name) -> tuple[Stage, ...]:
    """What a method runs, in order, up to its scores."""
    maker = METHODS[name].maker
    if maker is None:
        return (STAGES["evaluate_base"],)
    scored = ("score",) if maker == "select" else ()
    chain = ("prepare", "generate", *scored, maker, "finetune", "merge", "evaluate")
    return tuple(STAGES[stage] for stage in chain)


def before_samples(name: Name) -> tuple[Stage, ...]:
    """The stages of a method that come before its sample set; all of the base's.

    What fails there is no matter of tuning.
    """
    chain, maker = stages_of(name), METHODS[name].maker
    return chain if maker is None else chain[: chain.index(STAGES[maker])]


def params_of(name: Name, params: Params) -> Params:
    """The parameters that a method runs with, all else as in `params`.

    Raises ConfigError where they do not fit together.
    """
    method = METHODS[name]
    whole_solutions = method.maker in ("keep", "gold")
    changes = _of_solutions(params, method) if whole_solutions else {"select": method.select}
    tree = params.model_dump(mode="json")
    changed = {section: {**tree[section], **values} for section, values in changes.items()}
    return parse({**tree, **changed}, f"method {name}")


def checked_inputs(params: Params, names: Sequence[Name]) -> Inputs:
    """What the chains start from. Raises ModelError and ProblemsError for parameters that one of
    the methods could not run with: the baselines need gold answers."""
    inputs = external_inputs(params)
    for name in names:
        if METHODS[name].maker in ("keep", "gold"):
            external_inputs(params_of(name, params), ("problem_source",), BASELINES)
    return inputs


def _of_solutions(params: Params, method: Method) -> Changes:
    """The section `sft` in the stages' terms; ground truth needs the prompts of `generate` alone,
    which come with its shortest trajectories.
    """
    sft = params.sft
    written = {"n": sft.n, "temperature": sft.temperature, "max_new_tokens": sft.max_new_tokens}
    prompts_only = {"n": 1, "temperature": 0.0, "max_new_tokens": 1}
    return {
        "prepare": {"n_problems": sft.n_problems},
        "generate": {"seed": sft.seed, **(written if method.maker == "keep" else prompts_only)},
        "finetune": {
            "batching": "solution",
            "updates": sft.updates,
            "samples_per_update": sft.solutions_per_update,
            "samples_per_forward": sft.solutions_per_forward,
            "learning_rate": sft.learning_rate,
            "reference": (),
        },
    }


def seeds(params: Params) -> dict[str, int]:
    """The seeds that a comparison rests on, by section."""
    sections = ("prepare", "generate", "sft", "finetune", "evaluate")
    return {section: getattr(params, section).seed for section in sections}
