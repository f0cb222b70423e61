"""The forms in Prefect's interface: a preset, the fields that are changed most, and the rest.

A run from the interface is a preset plus what the form's fields say. A deployment's form starts
with params.yaml, expressed the same way: the preset of its expert and what differs from it. So
what Prefect records of a run says all of it, short, and "Copy to new run" starts it again.

A field that is left empty keeps the preset's value. Prefect's interface and its API refuse a value
out of bounds before a run exists.
"""

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from flows.forms.fields import PARAMETERS, SHORT, field, limits, overrides_pattern, plain
from lightreasoner import config, presets
from lightreasoner.config import Params, PromptStyle
from lightreasoner.errors import ConfigError
from lightreasoner.evaluation.gains import Asked, reported
from lightreasoner.presets import PRESETS

DIGEST_LENGTH = 6
LONGEST_NAME = 120
NAMED, LONGEST_SAID = 60, 30
"""Characters of a run's name for what differs, and of one value in it."""

SAID = 5
"""Faults of which a form tells."""

SWEPT = ("beta", "alpha")
IN_GRID = tuple(f"select.{name}=" for name in SWEPT)
"""What a sweep's grid says, and how its settings begin."""

More = Annotated[
    tuple[
        Annotated[
            str,
            Field(
                pattern=r"^[a-z]+\.[a-z_0-9]+=.+$",
                max_length=config.LONGEST_OVERRIDE,
                json_schema_extra={"pattern": overrides_pattern()},
            ),
        ],
        ...,
    ],
    Field(
        title="More parameters",
        max_length=100,
        description="Any other parameter of params.yaml, as section.key=value, for example "
        "generate.max_new_tokens=256.",
    ),
]


class Settings(BaseModel):
    """What every form has; faults read as on the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: presets.Name = Field(
        "microworld",
        title="Preset",
        description="Where all parameters start: the embedded micro-world (minutes on a laptop), "
        "or one of the paper's experts (a GPU and the Hugging Face hub).",
    )
    name: str | None = Field(
        None,
        title="Name",
        min_length=1,
        max_length=LONGEST_NAME,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="What the run is called in Prefect and MLflow. Empty: what differs from the "
        "preset, shortest first.",
        json_schema_extra=plain,
    )

    @model_validator(mode="wrap")
    @classmethod
    def _in_our_words(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            form = handler(cls.fields_of(value) if isinstance(value, Params) else value)
        except ValidationError as error:
            found: list[dict[str, Any]] = [dict(item) for item in error.errors()]
            raise ValueError(_said([config.fault(item, cls) for item in found])) from None
        try:
            form.check()
        except ConfigError as error:
            raise ValueError(_said(error.faults)) from None
        return form

    @classmethod
    def of(cls, params: Params) -> Self:
        """The form that says these parameters."""
        return cls.model_validate(params)

    @classmethod
    def over(cls, params: Params, **more: Any) -> Self:
        """The form that says these parameters, and more of its own fields. Raises ConfigError."""
        try:
            return cls.model_validate({**cls.fields_of(params), **more})
        except ValidationError as error:
            raise ConfigError([str(item["ctx"]["error"]) for item in error.errors()]) from None

    @classmethod
    def fields_of(cls, params: Params) -> dict[str, Any]:
        """The fields' values that say these parameters."""
        return field_values(params, cls.model_fields)

    def check(self) -> None:
        """Raise ConfigError where the fields do not fit together."""
        self.values()

    def values(self) -> Params:
        """All parameters. Raises ConfigError where they do not fit together."""
        return self.values_with(())

    def values_with(self, rule: Sequence[str]) -> Params:
        """All parameters, those of `rule` (`section.key=value`) beside the form's fields."""
        named = [
            f"{parameter}={json.dumps(value, ensure_ascii=False)}"
            for name, parameter in PARAMETERS.items()
            if (value := getattr(self, name, None)) is not None
        ]
        more: tuple[str, ...] = getattr(self, "more", ())
        overrides = [*named, *more, *rule]
        keys = [override.partition("=")[0] for override in overrides]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ConfigError([f"{key} is given twice; remove one of the two" for key in twice])
        return config.changed(PRESETS[self.preset], overrides)

    def run_name(self) -> str:
        """What a run is called: the given name, or its subject, what differs, a short digest."""
        params = self.values()
        said = [self.subject(params), *shortest_first(self.differing(params)), digest(params)]
        return self.name or " ".join(said)

    def subject(self, params: Params) -> str:
        """What is tuned or asked."""
        return name_of(params)

    def differing(self, params: Params) -> list[str]:
        """What differs from the preset of the same expert, as section.key=value."""
        base = presets.of_expert(params.models.expert) or presets.NAMES[0]
        found = config.differences(params, PRESETS[base])
        return [each for each in found if not each.startswith("models.expert=")]


class Rule(Settings):
    """The rule by which steps become samples."""

    beta: float | None = field("beta")
    alpha: float | None = field("alpha")


class Grid(Settings):
    """Several such rules."""

    betas: tuple[Annotated[float, Field(**limits("select.beta"))], ...] = Field(
        (0.2, 0.4, 0.8),
        title="Betas, nats",
        min_length=1,
        max_length=20,
        description="Thresholds of the KL (eq. 35).",
    )
    alphas: tuple[Annotated[float, Field(**limits("select.alpha"))], ...] = Field(
        (0.1, 0.2),
        title="Alphas",
        min_length=1,
        max_length=20,
        description="Plausibility thresholds of the grid (eq. 34).",
    )


class Tuning(Settings):
    """What is tuned on the samples, how, and what it is graded on."""

    expert: str | None = field("expert")
    amateur: str | None = field("amateur")
    n_problems: int | None = field("n_problems")
    updates: int | None = field("updates")
    learning_rate: float | None = field("learning_rate")
    r: int | None = field("r")
    seed: int | None = field("seed")
    problem_sets: tuple[str, ...] | None = field("problem_sets")
    n_evaluated: int | None = field("n_evaluated")
    style: PromptStyle | None = field("style")
    more: More = ()


class Form(Tuning, Rule):
    """A preset, and what differs from it."""


class ControlsForm(Form):
    """What both models are asked beside how the parameters ask them; all ways are crossed."""

    styles: tuple[PromptStyle, ...] = Field(
        ("none", "cot"),
        title="More prompt styles",
        max_length=10,
        description="Beside the parameters' own. none is the question alone.",
    )
    shots: tuple[Annotated[int, Field(**limits("evaluate.shots"))], ...] = Field(
        (4,),
        title="More numbers of worked examples",
        max_length=10,
        description="Before each question, beside the parameters' own number.",
    )
    budgets: tuple[Annotated[int, Field(**limits("evaluate.max_new_tokens"))], ...] = Field(
        (),
        title="More limits of tokens",
        max_length=10,
        description="Beside the parameters' own. Empty: half of that; that alone: no other.",
    )

    def grid(self) -> list[Asked]:
        """All ways of asking; the parameters' own are among them."""
        evaluate = self.values().evaluate
        budgets = self.budgets or (max(1, evaluate.max_new_tokens // 2),)
        return [
            Asked(style, shots, budget)
            for budget in _beside(evaluate.max_new_tokens, budgets)
            for shots in _beside(evaluate.shots, self.shots)
            for style in dict.fromkeys((*(each.style for each in reported(evaluate)), *self.styles))
        ]


def _beside(own: int | None, others: Sequence[int]) -> list[int | None]:
    """None, for the parameters' own, then the others."""
    return [None, *(each for each in dict.fromkeys(others) if each != own)]


class RoundsForm(Form):
    """How often the tuned model becomes the expert."""

    rounds: int = Field(
        3,
        title="Rounds",
        ge=1,
        le=20,
        description="In each the expert writes, is tuned and graded; 1 is the pipeline's own run.",
    )
    later_amateur: Literal["same", "previous"] = Field(
        "same",
        title="Amateur of later rounds",
        description="same: the parameters' own; previous: the expert of the round before.",
    )


class SweepForm(Tuning, Grid):
    """A grid of betas and alphas; the steps of all of its points are scored once."""

    @classmethod
    def fields_of(cls, params: Params) -> dict[str, Any]:
        """The fields' values; a beta and an alpha are the grid's to say.

        The grid is the default one, as far as these parameters allow it.
        """
        said = field_values(params, cls.model_fields)
        more = [each for each in said.pop("more", []) if not each.startswith(IN_GRID)]
        said |= {"more": more} if more else {}
        alphas: tuple[float, ...] = cls.model_fields["alphas"].default
        if min(alphas) < params.score.alpha_min:
            fitting = [alpha for alpha in alphas if alpha >= params.score.alpha_min]
            said["alphas"] = fitting or [params.select.alpha]
        idle = set(SWEPT) - params.select.rule.keys()
        return said | {f"{name}s": [getattr(params.select, name)] for name in idle}

    def check(self) -> None:
        """Raise ConfigError where a point does not fit the rest, or a grid changes nothing."""
        select = self.points()[0].select
        for name, grid in zip(SWEPT, (self.betas, self.alphas), strict=True):
            if len(set(grid)) > 1 and name not in select.rule:
                values = ", ".join(f"{value:g}" for value in dict.fromkeys(grid))
                rest = [(key, value) for key, value in select.rule.items() if key not in SWEPT]
                rule = ", ".join(f"{key} {value}" for key, value in rest)
                raise ConfigError(
                    [
                        f"{name}s {values}: under select.{rule} {name} changes nothing; give one "
                        f"{name}, or remove that setting"
                    ]
                )

    def points(self) -> list[Params]:
        """The parameters of each point, alpha by alpha. Raises ConfigError."""
        return [
            self.values_with([f"select.alpha={alpha}", f"select.beta={beta}"])
            for alpha in dict.fromkeys(self.alphas)
            for beta in dict.fromkeys(self.betas)
        ]

    def values(self) -> Params:
        """The parameters of the first point. Raises ConfigError."""
        return self.points()[0]

    def subject(self, params: Params) -> str:
        """What is tuned, and the grid."""
        betas, alphas = (",".join(f"{x:g}" for x in grid) for grid in (self.betas, self.alphas))
        return f"{name_of(params)} beta={betas} alpha={alphas}"

    def differing(self, params: Params) -> list[str]:
        """What differs beside the grid."""
        found = super().differing(params)
        return [each for each in found if not each.startswith(IN_GRID)]


def _said(faults: list[str]) -> str:
    """The first faults, on one line."""
    more = [f"{len(faults) - SAID} more faults"] if len(faults) > SAID else []
    return "; ".join([*faults[:SAID], *more])


class EvaluationForm(Settings):
    """A model, and what it is asked."""

    model: str = Field(
        title="Model",
        min_length=1,
        description="models:/NAME@alias or NAME/version of the registry, owner/name@commit of the "
        "hub, or a local directory.",
    )
    problem_sets: tuple[str, ...] | None = field("problem_sets")
    n_evaluated: int | None = field("n_evaluated")
    style: PromptStyle | None = field("style")
    more: More = ()

    @classmethod
    def fields_of(cls, params: Params) -> dict[str, Any]:
        """The fields' values; the model is that of these parameters' name and alias."""
        said = field_values(params, cls.model_fields, ("compute", "evaluate"))
        return {**said, "model": f"models:/{params.register.name}@{params.register.alias}"}

    def subject(self, params: Params) -> str:
        """What is asked, and what it is asked."""
        sets = ",".join(params.evaluate.problem_sets)
        return f"{self.model.removeprefix('models:/')} on {sets}"

    def differing(self, params: Params) -> list[str]:
        """What differs beside the problem sets."""
        found = super().differing(params)
        return [each for each in found if not each.startswith("evaluate.problem_sets=")]


def field_values(
    params: Params, fields: Collection[str], sections: Collection[str] = Params.model_fields
) -> dict[str, Any]:
    """The preset of the same expert and what differs from it, in `fields` or as overrides."""
    preset = presets.of_expert(params.models.expert) or presets.NAMES[0]
    said: dict[str, Any] = {"preset": preset}
    more = []
    names = {parameter: name for name, parameter in PARAMETERS.items() if name in fields}
    for override in config.differences(params, PRESETS[preset]):
        parameter, _, value = override.partition("=")
        # In a field of its own, nothing means the preset's value.
        if parameter in names and value != "null":
            said[names[parameter]] = json.loads(value)
        elif parameter.partition(".")[0] in sections:
            more.append(override)
    return {**said, "more": more} if more else said


def name_of(params: Params) -> str:
    """The preset of the same expert, else the expert's own name."""
    expert = params.models.expert
    return presets.of_expert(expert) or expert.partition("@")[0].rstrip("/").rpartition("/")[2]


def shortest_first(overrides: Sequence[str]) -> list[str]:
    """Overrides as a run's name says them: `n=40`, the shortest first, and how many did not fit.

    Of an absolute path the last part is enough; names go to the hub with a model's card.
    """
    said = []
    for override in overrides:
        parameter, _, value = override.partition("=")
        plain = re.sub(r'["\[\] ]', "", value.removesuffix(".0"))
        plain = Path(plain).name if plain.startswith("/") else plain
        if len(plain) > LONGEST_SAID:
            plain = f"{plain[: LONGEST_SAID - 3]}..."
        said.append(f"{SHORT.get(parameter, parameter)}={plain}")
    said.sort(key=lambda each: (len(each), each))
    fitting = [each for n, each in enumerate(said, 1) if len(" ".join(said[:n])) <= NAMED]
    more = len(said) - len(fitting)
    return [*fitting, f"+{more}"] if more else fitting


def digest(params: Params) -> str:
    """A few digits that tell runs with different parameters apart."""
    text = json.dumps(params.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
