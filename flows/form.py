"""The forms in Prefect's interface: a preset, the fields that are changed most, and the rest.

A run from the interface is a preset plus what the form's fields say. A deployment's form starts
with params.yaml, expressed the same way: the preset of its expert and what differs from it. So
what Prefect records of a run says all of it, short, and "Copy to new run" starts it again.

A field that is left empty keeps the preset's value. Bounds are those of lightreasoner/config.py (a
test compares); Prefect's interface and its API refuse a value outside them before a run exists.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from lightreasoner import config, presets
from lightreasoner.config import Params, PromptStyle
from lightreasoner.errors import ConfigError
from lightreasoner.presets import PRESETS

OVERRIDE = r"^[a-z]+\.[a-z_0-9]+=.+$"
DIGEST_LENGTH = 6

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


class Settings(BaseModel):
    """What every form has; faults are said in the words of the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Preset = "microworld"

    @model_validator(mode="wrap")
    @classmethod
    def _in_our_words(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            form = handler(cls.saying(value) if isinstance(value, Params) else value)
        except ValidationError as error:
            found: list[dict[str, Any]] = [dict(item) for item in error.errors()]
            raise ValueError("; ".join(config.fault(item, cls) for item in found)) from None
        try:
            form.check()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return form

    @classmethod
    def of(cls, params: Params) -> Self:
        """The form that says these parameters."""
        return cls.model_validate(params)

    @classmethod
    def saying(cls, params: Params) -> dict[str, Any]:
        """The fields' values that say these parameters."""
        return described(params, cls.model_fields)

    def check(self) -> None:
        """Raise ConfigError where the fields do not fit together."""
        self.values()

    def values(self) -> Params:
        """All parameters. Raises ConfigError where they do not fit together."""
        named = [
            f"{place}={json.dumps(value, ensure_ascii=False)}"
            for field, place in PLACES.items()
            if (value := getattr(self, field, None)) is not None
        ]
        more: tuple[str, ...] = getattr(self, "more", ())
        keys = [override.partition("=")[0] for override in (*named, *more)]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ConfigError([f"{key} is given twice; leave one of the two away" for key in twice])
        return config.changed(PRESETS[self.preset], [*named, *more])

    def run_name(self) -> str:
        """What a run is called: preset or expert, beta, a short digest of all parameters."""
        params = self.values()
        return f"{name_of(params)} beta={params.select.beta:g} {digest(params)}"


class Form(Settings):
    """A preset, and what differs from it."""

    beta: Beta = None
    alpha: Alpha = None
    expert: Expert = None
    amateur: Amateur = None
    n_problems: NProblems = None
    updates: Updates = None
    learning_rate: LearningRate = None
    r: Rank = None
    seed: Seed = None
    problem_sets: ProblemSets = None
    n_evaluated: NEvaluated = None
    style: Style = None
    more: More = ()


class SweepForm(Settings):
    """A grid of betas and alphas; the steps of all of its points are scored once."""

    betas: Betas = (0.2, 0.4, 0.8)
    alphas: Alphas = (0.1, 0.2)
    expert: Expert = None
    amateur: Amateur = None
    n_problems: NProblems = None
    updates: Updates = None
    learning_rate: LearningRate = None
    r: Rank = None
    seed: Seed = None
    problem_sets: ProblemSets = None
    n_evaluated: NEvaluated = None
    style: Style = None
    more: More = ()

    @classmethod
    def saying(cls, params: Params) -> dict[str, Any]:
        """The fields' values; a beta and an alpha are the grid's to say."""
        plain = config.changed(params, ["select.beta=0.4", "select.alpha=0.2"])
        return described(plain, cls.model_fields)

    @classmethod
    def over(cls, params: Params, betas: Sequence[float], alphas: Sequence[float]) -> "SweepForm":
        """These parameters at each point of a grid. Raises ConfigError."""
        said = {**cls.saying(params), "betas": betas, "alphas": alphas}
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            raise ConfigError([str(item["ctx"]["error"]) for item in error.errors()]) from None

    def check(self) -> None:
        """Raise ConfigError where a point does not fit the rest."""
        self.points()

    def points(self) -> list[Params]:
        """The parameters of each point, alpha by alpha. Raises ConfigError."""
        base = self.values()
        return [
            config.changed(base, [f"select.alpha={alpha}", f"select.beta={beta}"])
            for alpha in dict.fromkeys(self.alphas)
            for beta in dict.fromkeys(self.betas)
        ]

    def run_name(self) -> str:
        """What a run is called: preset or expert, the grid, a short digest."""
        params = self.values()
        grid = (
            f"beta={','.join(f'{beta:g}' for beta in self.betas)} "
            f"alpha={','.join(f'{alpha:g}' for alpha in self.alphas)}"
        )
        return f"{name_of(params)} {grid} {digest(params)}"


class EvaluationForm(Settings):
    """A model, and what it is asked."""

    model: Model
    problem_sets: ProblemSets = None
    n_evaluated: NEvaluated = None
    style: Style = None
    more: More = ()

    @classmethod
    def saying(cls, params: Params) -> dict[str, Any]:
        """The fields' values; the model is the newest candidate of these parameters' name."""
        said = described(params, cls.model_fields, ("compute", "evaluate"))
        return {**said, "model": f"models:/{params.register.name}@candidate"}

    def run_name(self) -> str:
        """What a run is called: the model, the problem sets, a short digest."""
        params = self.values()
        sets = ",".join(params.evaluate.problem_sets)
        return f"{self.model.removeprefix('models:/')} on {sets} {digest(params)}"


def described(
    params: Params, fields: Collection[str], sections: Collection[str] = Params.model_fields
) -> dict[str, Any]:
    """The preset of the same expert and what differs from it, in `fields` or as overrides."""
    preset = presets.of_expert(params.models.expert) or presets.NAMES[0]
    said: dict[str, Any] = {"preset": preset}
    more = []
    tree = params.model_dump(mode="json")
    names = {place: field for field, place in PLACES.items() if field in fields}
    for override in config.differences(params, PRESETS[preset]):
        place = override.partition("=")[0]
        section, _, key = place.partition(".")
        # In a field of its own, nothing means the preset's value.
        if place in names and tree[section][key] is not None:
            said[names[place]] = tree[section][key]
        elif section in sections:
            more.append(override)
    return {**said, "more": more} if more else said


def name_of(params: Params) -> str:
    """The preset of the same expert, else the expert's own name."""
    expert = params.models.expert
    return presets.of_expert(expert) or expert.partition("@")[0].rstrip("/").rpartition("/")[2]


def digest(params: Params) -> str:
    """A few digits that tell runs with different parameters apart."""
    text = json.dumps(params.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
