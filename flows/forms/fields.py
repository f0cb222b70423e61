"""The fields of the forms in Prefect's interface, each with its title, its bounds and a sentence.

All but a few may stay empty, which means the preset's value.
"""

from typing import Annotated, Any

from pydantic import Field

from lightreasoner import presets
from lightreasoner.config import PromptStyle

OVERRIDE = r"^[a-z]+\.[a-z_0-9]+=.+$"

PLACES = {
    "expert": "models.expert",
    "amateur": "models.amateur",
    "beta": "select.beta",
    "alpha": "select.alpha",
    "n_problems": "prepare.n_problems",
    "updates": "finetune.updates",
    "learning_rate": "finetune.learning_rate",
    "r": "finetune.r",
    "seed": "finetune.seed",
    "problem_sets": "evaluate.problem_sets",
    "n_evaluated": "evaluate.n_problems",
    "style": "evaluate.style",
}
"""The parameter that a field stands for."""


def _plain(schema: dict[str, Any]) -> None:
    """Offer a plain input that may stay empty, in place of a switch between a value and None."""
    (value,) = (each for each in schema.pop("anyOf") if each != {"type": "null"})
    schema.update(value)
    schema.pop("default", None)


Preset = Annotated[
    presets.Name,
    Field(
        title="Preset",
        description="Where all parameters start: the embedded micro-world (minutes on a laptop), "
        "or one of the paper's experts (a GPU and the Hugging Face hub).",
    ),
]
Expert = Annotated[
    str | None,
    Field(
        title="Expert",
        json_schema_extra=_plain,
        min_length=1,
        description="The strong model, which is tuned: owner/name@commit of the hub or a local "
        "directory. Empty: the preset's.",
    ),
]
Amateur = Annotated[
    str | None,
    Field(
        title="Amateur",
        json_schema_extra=_plain,
        min_length=1,
        description="The weak model of the same vocabulary. Empty: the preset's.",
    ),
]
Beta = Annotated[
    float | None,
    Field(
        title="Beta, nats",
        json_schema_extra=_plain,
        ge=0,
        allow_inf_nan=False,
        description="Keeps the steps where KL(expert || amateur) is over beta nats (eq. 35). "
        "Empty: the preset's; the paper's is 0.4 nats.",
    ),
]
Alpha = Annotated[
    float | None,
    Field(
        title="Alpha",
        json_schema_extra=_plain,
        gt=0,
        le=1,
        description="Plausible tokens: expert's probability at least alpha times its largest "
        "(eq. 34). Empty: the preset's; the paper's is 0.2.",
    ),
]
NProblems = Annotated[
    int | None,
    Field(
        title="Problems to learn from",
        json_schema_extra=_plain,
        ge=1,
        description="Drawn from the preset's training set. Empty: the preset's number.",
    ),
]
Updates = Annotated[
    int | None,
    Field(
        title="Updates",
        json_schema_extra=_plain,
        ge=1,
        description="Optimizer updates of the fine-tuning. Empty: the preset's number.",
    ),
]
LearningRate = Annotated[
    float | None,
    Field(
        title="Learning rate",
        json_schema_extra=_plain,
        gt=0,
        allow_inf_nan=False,
        description="AdamW's, decays linearly to 0. Empty: the preset's.",
    ),
]
Rank = Annotated[
    int | None,
    Field(
        title="LoRA rank",
        json_schema_extra=_plain,
        ge=1,
        description="LoRA's r. Empty: the preset's.",
    ),
]
Seed = Annotated[
    int | None,
    Field(
        title="Seed of fine-tuning",
        json_schema_extra=_plain,
        ge=0,
        le=2**31 - 1,
        description="LoRA's A, dropout and the order of samples. Empty: the preset's.",
    ),
]
ProblemSets = Annotated[
    tuple[str, ...] | None,
    Field(
        title="Problem sets to evaluate on",
        json_schema_extra=_plain,
        min_length=1,
        description="microworld has tuned, transfer, chain_sum; the paper's presets gsm8k, math, "
        "svamp, asdiv, minerva_math, olympiadbench, mmlu_stem. Empty: the preset's.",
    ),
]
NEvaluated = Annotated[
    int | None,
    Field(
        title="Problems a set to evaluate on",
        json_schema_extra=_plain,
        ge=1,
        description="Drawn from each set. Empty: the preset's number.",
    ),
]
Style = Annotated[
    PromptStyle | None,
    Field(
        title="Prompt style",
        json_schema_extra=_plain,
        description="Of the tuned expert's evaluation. Empty: the preset's.",
    ),
]
Betas = Annotated[
    tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...],
    Field(title="Betas, nats", min_length=1, description="Thresholds of the KL (eq. 35)."),
]
Alphas = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], ...],
    Field(
        title="Alphas", min_length=1, description="Plausibility thresholds of the grid (eq. 34)."
    ),
]
Model = Annotated[
    str,
    Field(
        title="Model",
        min_length=1,
        description="models:/NAME@alias or NAME/version of the registry, owner/name@commit of the "
        "hub, or a local directory.",
    ),
]
More = Annotated[
    tuple[Annotated[str, Field(pattern=OVERRIDE)], ...],
    Field(
        title="More parameters",
        description="Any other parameter of params.yaml, as section.key=value, such as "
        "generate.max_new_tokens=256.",
    ),
]
