"""Parameters: one typed section per stage, read from params.yaml.

The defaults are the paper's (arXiv 2510.07962, section 3.1 and appendix F); presets.py changes
what a given setting needs. Sections enter a stage's fingerprint by value, so no stage module
imports this one at run time. It is long because everything that can be set is in this one place.
"""

import difflib
import inspect
import json
import posixpath
import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from lightreasoner import derivation, untrusted, yaml12
from lightreasoner.errors import ConfigError
from lightreasoner.untrusted import shown

PromptStyle = Literal["qwen25-math-cot", "cot", "none", "chat", "authors"]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
Draws = Annotated[int, Field(ge=1, le=10_000)]
Rows = Annotated[int, Field(ge=1, le=100_000)]
Temperature = Annotated[float, Field(ge=0, le=100)]
Rate = Annotated[float, Field(gt=0, le=10)]
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
LONGEST_NAME = 100
SET_NAME = re.compile(r"[\w.:/ -]{1,100}")
"""What MLflow accepts in the name of a metric."""

MANY = 10_000_000
"""No more problems or updates; a slip of the keyboard would run for years."""

LONGEST_OVERRIDE = 10_000

SIGNS = {
    "greater_than_equal": ">=", "greater_than": ">", "less_than_equal": "<=", "less_than": "<",
}  # fmt: skip
"""The comparison in each of pydantic's errors about bounds."""

SMALLEST_GAIN = 0.01
"""Points: what no evaluation of a size that people have can show."""

CHAMPION = "champion"
"""The alias of the model that last passed the gate (tasks/registry/gate.py)."""


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line without control characters")
    return text


Text = Annotated[str, AfterValidator(_one_line), Field(min_length=1, max_length=1_000)]
"""A path or a name."""


def _one_form(columns: dict[str, str | None]) -> dict[str, str | None]:
    if columns.get("messages") and len(set(columns.values()) - {None}) > 1:
        raise ValueError("must name messages alone, whose turns are question and answer")
    return columns


Columns = Annotated[
    dict[Literal["question", "answer", "solution", "messages"], Text | None],
    AfterValidator(_one_form),
]
"""A column's name by what it holds."""


class Section(BaseModel):
    """A frozen section of params.yaml; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """They would count as 1 and 0."""
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError("must not be true or false; give a number, or quote text")
        return value


def _check_draws(n: int, temperature: float, what: str) -> None:
    if n > 1 and temperature == 0:
        raise ValueError(
            f"n {n} at temperature 0 would write the same {what} {n} times; raise the temperature "
            "or set n to 1"
        )


class Models(Section):
    """The pair of models: `owner/name@commit` on the hub or a local directory."""

    expert: Text = Field(
        description="The strong model, which is tuned: owner/name@commit or a directory.",
    )
    amateur: Text = Field(
        description="The weak model, with the same vocabulary: the same, or made of the expert: "
        "self:layers:N (its last N layers left out), self:bits:N (its matrices rounded to N bits).",
    )

    @field_validator("expert")
    @classmethod
    def _expert_is_a_model(cls, name: str) -> str:
        if name.startswith(derivation.PREFIX):
            raise ValueError("must be a model of its own; self:... is for models.amateur")
        return name

    @field_validator("amateur")
    @classmethod
    def _derivation_is_known(cls, name: str) -> str:
        derivation.parse(name)
        return name


class Compute(Section):
    """Where and how to compute; a result's key has device and dtype, a text's the engine, too."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: cuda if there is a GPU, else cpu."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU that supports it, else float32."
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Sequences per batch. Default: as many as fit in memory, up to 128.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=1_024,
        description="Processes that generate, score and evaluate in parallel, on Ray if more than "
        "1; on cuda each has its own GPU.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations during fine-tuning: less memory, more time."
    )
    engine: Literal["transformers", "vllm"] = Field(
        "transformers",
        description="Who writes trajectories and responses: transformers in this process, or vLLM "
        "as a server (make setup-vllm).",
    )
    gpus: int = Field(1, ge=1, le=1_024, description="GPUs of this machine that vLLM uses.")
    gpus_per_model: int = Field(
        1, ge=1, le=1_024, description="How many of them share a copy of the model in vLLM."
    )
    endpoints: tuple[Text, ...] = Field(
        (),
        max_length=100,
        description="vLLM servers that run already, http://HOST:PORT/v1 each, instead of one of "
        "our own (docs/how-to/engines.md).",
    )
    endpoint_version: Text | None = Field(
        None, description="The vLLM version of the endpoints, such as 0.32.0."
    )
    endpoint_dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="The --dtype that the endpoints were started with."
    )
    endpoint_key_file: Text | None = Field(
        None, description="A file with the endpoints' API key, if they have one."
    )
    track: tuple[Literal["mlflow", "tensorboard", "trackio", "wandb"], ...] = Field(
        ("mlflow",),
        max_length=10,
        description="Who gets the curves and measures: mlflow always; also tensorboard, trackio, "
        "wandb (docs/decisions/013-trackers.md).",
    )

    @model_validator(mode="after")
    def _engine_fits(self) -> "Compute":
        declared = (self.endpoint_version, self.endpoint_dtype)
        if self.engine != "vllm" and (self.endpoints or self.gpus > 1):
            raise ValueError("endpoints and gpus are vLLM's; set engine to vllm")
        if self.endpoints and None in declared:
            raise ValueError("endpoints need endpoint_version and endpoint_dtype: set both")
        if not self.endpoints and declared != (None, None):
            raise ValueError("endpoint_version and endpoint_dtype say nothing without endpoints")
        if self.gpus % self.gpus_per_model:
            raise ValueError(
                f"gpus {self.gpus} must be a multiple of gpus_per_model {self.gpus_per_model}"
            )
        return self


class Prepare(Section):
    """The problems that the expert and the amateur read."""

    source: Text = Field(
        description="microworld, hub, owner/name@commit on the hub, a file (JSONL, JSON, CSV, "
        "Parquet, Arrow), a folder of save_to_disk, or a directory in the Qwen2.5-Math toolkit's "
        "layout.",
    )
    columns: Columns = Field(
        {},
        description="Where question, answer, solution or messages (a user's turn and an "
        "assistant's) have other names, such as {question: problem}; null: not read.",
    )
    problem_set: Text = Field(max_length=200, description="Which problem set of the source.")
    n_problems: int | None = Field(
        1000, ge=1, le=MANY, description="Problems to draw; null takes all."
    )
    seed: Seed = Field(42, description="Seed for drawing them.")


class Generate(Section):
    """The expert's trajectories."""

    style: PromptStyle = Field(
        "qwen25-math-cot", description="Prompt style for every call, training included (eq. 38)."
    )
    max_new_tokens: Tokens = Field(128, description="Maximum tokens per trajectory.")
    temperature: Temperature = Field(0.0, description="Sampling temperature; 0 decodes greedily.")
    n: Draws = Field(
        1, description="Trajectories per problem; more than 1 needs a temperature above 0."
    )
    seed: Seed = Field(42, description="Sampling seed; has no effect at temperature 0.")

    @model_validator(mode="after")
    def _draws_differ(self) -> "Generate":
        _check_draws(self.n, self.temperature, "trajectory")
        return self


class Score(Section):
    """What is stored of each step's two distributions."""

    alpha_min: float = Field(
        0.01, gt=0, le=1, description="Store log pi_E, log pi_A where pi_E >= alpha_min max pi_E."
    )


class Select(Section):
    """Which steps become samples, and their soft labels."""

    alpha: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Plausibility threshold: the support is pi_E >= alpha max pi_E (eq. 34).",
    )
    beta: float = Field(
        0.4, ge=0, le=1_000, description="Keep steps with KL(pi_E || pi_A) > beta nats (eq. 35)."
    )
    steps: Literal["informative", "all"] = Field(
        "informative",
        description="informative: the steps that beta or quantile keeps; all: every step.",
    )
    label: Literal["contrast", "one_hot", "expert"] = Field(
        "contrast",
        description="contrast: v_C (section 2.3.2); one_hot: the token the expert wrote; "
        "expert: pi_E renormalised on the support.",
    )
    quantile: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Instead of beta: keep steps whose KL is above this quantile of all steps; "
        "null uses beta.",
    )
    reference: tuple[Literal["skip_first_step"], ...] = Field(
        (),
        max_length=10,
        description="Bugs in the authors' code to reproduce (docs/deviations.md).",
    )

    @property
    def rule(self) -> dict[str, str]:
        """What selects the steps and makes their labels; what has no say is left out."""
        if self.steps == "all":
            kept = {"steps": "all"}
        elif self.quantile is not None:
            kept = {"quantile": f"{self.quantile:g}"}
        else:
            kept = {"beta": f"{self.beta:g}"}
        label = {} if self.label == "contrast" else {"label": self.label}
        alpha = {} if self.label == "one_hot" else {"alpha": f"{self.alpha:g}"}
        reference = {"reference": " ".join(self.reference)} if self.reference else {}
        return kept | label | alpha | reference


class Finetune(Section):
    """LoRA fine-tuning of the expert on KL(v_C || pi_E) (eq. 37)."""

    batching: Literal["trajectory", "sample", "solution"] = Field(
        "sample",
        description="sample: single samples, shuffled; trajectory: all selected steps of a "
        "trajectory together; solution: the same, but the two counts below are in trajectories.",
    )
    updates: int | None = Field(
        1000,
        ge=1,
        le=MANY,
        description="Optimizer updates; null: one pass over the training set.",
    )
    samples_per_update: Rows = Field(
        16, description="Samples per update; trajectory batching takes at least this many."
    )
    samples_per_forward: Rows = Field(
        8, description="Samples per forward pass; gradients accumulate up to an update."
    )
    learning_rate: Rate = Field(5e-5, description="AdamW's, decayed linearly to 0.")
    r: int = Field(8, ge=1, le=4_096, description="LoRA's rank.")
    lora_alpha: int = Field(16, ge=1, le=65_536, description="LoRA's scale is lora_alpha / r.")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before LoRA's A.")
    target_modules: tuple[Text, ...] = Field(
        ("q_proj", "v_proj"),
        min_length=1,
        max_length=100,
        description="Linear layers that get an adapter.",
    )
    seed: Seed = Field(42, description="Seed for LoRA's A, dropout and the order of samples.")
    processes: int = Field(
        1,
        ge=1,
        le=1_024,
        description="Processes that share each update's samples, on cuda each with its own GPU.",
    )
    validation_share: float = Field(
        0.05, ge=0, lt=1, description="Share of the problems whose samples are held out."
    )
    validate_every: int = Field(
        50, ge=1, le=MANY, description="Updates between evaluations on the held-out samples."
    )
    evaluate_every: int = Field(
        0,
        ge=0,
        le=MANY,
        description="Updates between readings of the accuracy on held-out problems, 64 at most; 0: "
        "none. It uses their gold answers, for a curve alone: it stops nothing and changes no "
        "adapter.",
    )
    evaluate_max_new_tokens: Tokens = Field(
        2048, description="For evaluate_every: maximum tokens per response, decoded greedily."
    )
    stop: Literal["none", "loss", "drift"] = Field(
        "none",
        description="When to stop early. loss: where the held-out loss falls no more, keeping the "
        "best adapter; it can keep falling while the model gets worse. drift: where steps that are "
        "not taught move too far, keeping the last adapter that was within the limit.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=MANY,
        description="For stop=loss: evaluations without a lower held-out loss (the untuned "
        "expert's counts as the first).",
    )
    drift_limit: float = Field(
        0.1,
        gt=0,
        le=100,
        description="For stop=drift: the largest mean KL(base || tuned) on held-out steps that are "
        "not taught, nats. Without it, a larger one is warned of.",
    )
    reference: tuple[Literal["last_column", "ordinary_tokens"], ...] = Field(
        (),
        max_length=10,
        description="Bugs in the authors' code to reproduce (docs/deviations.md).",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Finetune":
        if (self.stop == "loss") != (self.patience is not None):
            raise ValueError(
                f"patience {self.patience} with stop {self.stop}: stop=loss needs a patience, and "
                "no other takes one; set both, or patience to null"
            )
        if self.evaluate_every and self.validation_share == 0:
            raise ValueError(
                f"evaluate_every {self.evaluate_every} needs held-out problems; set "
                "validation_share above 0, or evaluate_every to 0"
            )
        if self.stop != "none" and self.validation_share == 0:
            raise ValueError(
                f"stop {self.stop} needs held-out samples; set validation_share above 0"
            )
        if "last_column" in self.reference and self.batching != "sample":
            raise ValueError("reference last_column needs a row per sample; set batching to sample")
        return self


class Sft(Section):
    """The baselines of `lightreasoner compare` trained on whole solutions (appendix F.4)."""

    n_problems: int | None = Field(
        None,
        ge=1,
        le=MANY,
        description="Problems from prepare's set, drawn with its seed; null takes all.",
    )
    n: Draws = Field(1, description="Solutions that the expert writes per problem.")
    temperature: Temperature = Field(0.0, description="Sampling temperature; 0 decodes greedily.")
    max_new_tokens: Tokens = Field(2048, description="Maximum tokens per solution.")
    seed: Seed = Field(42, description="Sampling seed; has no effect at temperature 0.")
    updates: int | None = Field(
        None,
        ge=1,
        le=MANY,
        description="Optimizer updates; null: one pass over the kept solutions.",
    )
    solutions_per_update: Rows = Field(16, description="Solutions per update.")
    solutions_per_forward: Rows = Field(4, description="Solutions per forward pass.")
    learning_rate: Rate = Field(5e-5, description="AdamW's, decayed linearly to 0.")


class Merge(Section):
    """Folding the adapter into the expert, with a parity check."""

    parity_prompts: Rows = Field(
        16, description="Trajectories used for the check, those held out of finetune first."
    )
    max_fold_kl: float = Field(
        1e-6,
        gt=0,
        le=1_000,
        description="Largest KL(base + adapter || folded) allowed at any position, both in "
        "float32, nats.",
    )
    max_cast_ratio: float = Field(
        4.0,
        ge=1,
        le=1e6,
        description="How far the cast to compute.dtype may move the merged model, as a multiple of "
        "how far it moves the expert (mean KL; five times that at any one position).",
    )


class Evaluate(Section):
    """Graded responses of base and tuned expert to the same problems."""

    source: Text = Field(description="Source of the problems, as in prepare.source.")
    columns: Columns = Field({}, description="Its columns, as in prepare.columns.")
    problem_sets: tuple[str, ...] = Field(
        min_length=1,
        max_length=50,
        description="Problem sets of the source. microworld has tuned, transfer and chain_sum; hub "
        "has gsm8k, math, svamp, asdiv, minerva_math, olympiadbench, mmlu_stem and others.",
    )
    n_problems: int | None = Field(
        None, ge=1, le=MANY, description="Problems per set; null takes all."
    )
    base_style: PromptStyle | None = Field(
        None, description="The base's prompt style (appendix G); null: as for the tuned expert."
    )
    style: PromptStyle = Field("qwen25-math-cot", description="The tuned expert's prompt style.")
    shots: int | None = Field(
        None,
        ge=0,
        le=100,
        description="Worked examples before each question, none of them evaluated; null: 5 on "
        "mmlu_stem, else 0.",
    )
    max_new_tokens: Tokens = Field(2048, description="Maximum tokens per response.")
    n: Draws = Field(
        1, description="Responses per problem; more than 1 needs a temperature above 0."
    )
    temperature: Temperature = Field(0.0, description="Sampling temperature; 0 decodes greedily.")
    seed: Seed = Field(42, description="Seed for drawing problems and for sampling.")

    @field_validator("problem_sets")
    @classmethod
    def _are_parts_of_metrics_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """Otherwise MLflow would reject all metrics of a run, after hours, and the model's too."""
        for name in names:
            metric = f"accuracy/{name}"
            if not SET_NAME.fullmatch(name) or posixpath.normpath(metric) != metric:
                raise ValueError(
                    "must be names of 1 to 100 letters, digits, _ - . : / and spaces, as in "
                    f"MLflow's metric names, and not paths such as ../a; rename {shown(name)}"
                )
        return names

    @model_validator(mode="after")
    def _draws_differ(self) -> "Evaluate":
        _check_draws(self.n, self.temperature, "response")
        return self

    def of_base(self) -> "Evaluate":
        """The section as it applies to the base."""
        return self.model_copy(update={"style": self.base_style or self.style, "base_style": None})

    def of_tuned(self) -> "Evaluate":
        """The section as it applies to the tuned expert."""
        return self.model_copy(update={"base_style": None})


class Register(Section):
    """The merged model's place in the registry."""

    name: str = Field(description="The registered model's name: letters, digits, - and _.")
    alias: str = Field(
        "candidate",
        pattern=r"^[a-z][a-z0-9-]*$",
        max_length=100,
        description="The alias that moves to the new version; champion is reserved for the gate.",
    )
    gate_set: str | None = Field(
        None,
        description="The set of evaluate.problem_sets that decides who is champion; null takes the "
        "first.",
    )
    gain_to_show: float = Field(
        10.0,
        ge=SMALLEST_GAIN,
        le=100,
        description="The gain that the evaluation should be able to show, in points; a run warns "
        "of sets with too few problems.",
    )

    @field_validator("name")
    @classmethod
    def _is_a_name_for_mlflow(cls, name: str) -> str:
        """MLflow's rule for a logged model's name, which allows no dot, and file names' limit."""
        if not MODEL_NAME.fullmatch(name):
            fitting = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:LONGEST_NAME]
            raise ValueError(
                "must begin with a letter or digit and contain only letters, digits, - and _, "
                f"at most {LONGEST_NAME}, as MLflow requires; name it "
                f"{fitting.rstrip('-') or 'lightreasoner'}"
            )
        return name

    @field_validator("alias")
    @classmethod
    def _leaves_the_champion_alone(cls, alias: str) -> str:
        if alias == CHAMPION:
            raise ValueError(f"must not be {CHAMPION}, which only the gate moves; choose another")
        if alias == "latest" or re.fullmatch(r"v\d+", alias):
            raise ValueError(
                "must not be latest or v and a number, which MLflow reserves; name it candidate "
                "or choose another word"
            )
        return alias


with warnings.catch_warnings():
    # The stage is called `register`, as is a method of every abstract class; nothing calls it here.
    warnings.filterwarnings("ignore", message='Field name "register"', category=UserWarning)

    class Params(Section):
        """All of params.yaml."""

        models: Models
        compute: Compute
        prepare: Prepare
        generate: Generate
        score: Score
        select: Select
        finetune: Finetune
        merge: Merge
        evaluate: Evaluate
        # `...` says that it is required: the method would be taken as the default.
        register: Register = Field(...)
        sft: Sft

        @model_validator(mode="after")
        def _support_is_stored(self) -> "Params":
            if self.select.alpha < self.score.alpha_min:
                raise ValueError(
                    f"select.alpha must be >= score.alpha_min ({self.score.alpha_min}), "
                    f"got {self.select.alpha}; lower score.alpha_min"
                )
            return self

        @model_validator(mode="after")
        def _quantile_selects(self) -> "Params":
            if self.select.steps == "all" and self.select.quantile is not None:
                raise ValueError(
                    f"select.quantile {self.select.quantile} selects steps, but select.steps "
                    "all takes every step; set only one of the two"
                )
            return self

        @model_validator(mode="after")
        def _gate_set_is_evaluated(self) -> "Params":
            sets = self.evaluate.problem_sets
            if self.register.gate_set not in (None, *sets):
                raise ValueError(
                    f"register.gate_set {shown(self.register.gate_set)} is not among "
                    f"evaluate.problem_sets ({', '.join(sets[:10])}); name one of them, or null "
                    "for the first"
                )
            return self

        @property
        def gate_set(self) -> str:
            """The set on which the gate compares models."""
            return self.register.gate_set or self.evaluate.problem_sets[0]


def fields() -> dict[str, FieldInfo]:
    """Each parameter's field, by `section.key`."""
    return {
        f"{section}.{key}": field
        for section, part in Params.model_fields.items()
        for key, field in getattr(part.annotation, "model_fields", {}).items()
    }


def load(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Read params.yaml and apply `section.key=value` overrides.

    Raises ConfigError with all faults at once, each with the value, the limit and the remedy.
    """
    tree = _read_yaml(path)
    _apply_all(tree, overrides)
    return parse(tree, str(path), {override.partition("=")[0].strip() for override in overrides})


def parse(tree: dict[str, Any], origin: str, overridden: Collection[str] = ()) -> Params:
    """Validate a tree of parameters; errors name its `origin`, or --set for a key that was
    `overridden` (`section.key`).
    """
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        found: list[dict[str, Any]] = [dict(item) for item in error.errors()]
    raise ConfigError(
        [
            f"{'--set' if _is_of(item['loc'], overridden) else origin}: {fault(item, Params)}"
            for item in found
        ]
    )


def changed(params: Params, overrides: Sequence[str]) -> Params:
    """The parameters with `section.key=value` overrides, as `--set` applies them.

    Raises ConfigError with all faults at once, as `load` does.
    """
    tree = params.model_dump(mode="json")
    _apply_all(tree, overrides)
    return parse(tree, "parameters")


def differences(params: Params, base: Params) -> list[str]:
    """The overrides that turn `base` into `params`, as `changed` reads them."""
    ours, theirs = params.model_dump(mode="json"), base.model_dump(mode="json")
    return [
        f"{section}.{key}={json.dumps(value, ensure_ascii=False)}"
        for section, values in ours.items()
        for key, value in values.items()
        if value != theirs[section][key]
    ]


def _is_of(loc: tuple[Any, ...], overridden: Collection[str]) -> bool:
    """Whether the place of a fault, a section or a key, was set by one of the overrides."""
    sections = {name.partition(".")[0] for name in overridden}
    is_unknown_section = len(loc) == 1 and loc[0] in sections - Params.model_fields.keys()
    return is_unknown_section or ".".join(map(str, loc[:2])) in overridden


def dump(params: Params) -> str:
    """params.yaml's text, with a sentence above each field."""
    lines = ["# One section per stage; `lightreasoner preset NAME` rewrites this file.", ""]
    for name in type(params).model_fields:
        section = getattr(params, name)
        lines += [f"# {inspect.getdoc(section)}", f"{name}:"]
        values = section.model_dump(mode="json")
        for key, info in type(section).model_fields.items():
            flow = yaml12.dump({key: values[key]}, inline=True).strip()
            lines += [f"  # {info.description}", f"  {flow[1:-1]}"]
        lines.append("")
    return "\n".join(lines)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = untrusted.read_text(path, lambda said: ConfigError([said]), untrusted.SETTINGS_BYTES)
    except FileNotFoundError:
        raise ConfigError(
            [f"{path}: no such file; `lightreasoner preset microworld` writes one"]
        ) from None
    try:
        tree = yaml12.load(text)
    except ValueError as error:
        raise ConfigError([f"{path}: not valid YAML ({error})"]) from error
    if not isinstance(tree, dict):
        raise ConfigError(
            [
                f"{path}: {'is empty' if tree is None else 'must be a mapping'}; "
                "give one section per stage"
            ]
        )
    return tree


def _apply_all(tree: dict[str, Any], overrides: Sequence[str]) -> None:
    faults = [fault for override in overrides if (fault := _apply(tree, override))]
    if faults:
        raise ConfigError(faults)


def _apply(tree: dict[str, Any], override: str) -> str | None:
    """Set one `section.key=value` in place; the fault, if it is malformed."""
    name, equals, value = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if len(override) > LONGEST_OVERRIDE:
        return (
            f"--set {shown(override)}: has {len(override):,} characters, over "
            f"{LONGEST_OVERRIDE:,}; write it into params.yaml"
        )
    if not (equals and dot and section and key):
        return f"--set {shown(override)}: must read section.key=value, such as select.beta=0.5"
    try:
        parsed = yaml12.load(value)
    except ValueError as error:
        return f"--set {shown(override)}: {shown(value)} is not a YAML value ({error})"
    if not isinstance(tree.setdefault(section, {}), dict):
        return f"--set {shown(override)}: section {shown(section)} must be a mapping"
    tree[section][key] = parsed
    return None


def fault(error: dict[str, Any], model: type[BaseModel]) -> str:
    """One line for one of pydantic's errors about a model, with value, limit and remedy."""
    name = _name(error["loc"])
    value, kind, context = shown(error.get("input")), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{name} is not a known key{_did_you_mean(error['loc'], model)}"
    if kind == "missing":
        return f"{name} is missing; add it"
    if kind in SIGNS:
        (bound,) = context.values()
        limit = f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
        return f"{name} must be {SIGNS[kind]} {limit}{_unit(error['loc'], model)}, got {value}"
    if kind == "value_error":
        said = str(context["error"])
        return f"{name} {said}, got {value}" if name else said
    return f"{name}: {error['msg'][0].lower()}{error['msg'][1:]}, got {value}"


def _name(loc: tuple[Any, ...]) -> str:
    """The place of a fault; keys may be anything."""
    name = ".".join(map(str, loc))
    return name if name.isprintable() and len(name) < 100 else shown(name)


def _fields(loc: tuple[Any, ...], model: type[BaseModel]) -> dict[str, Any]:
    """The fields to which the last part of a location belongs."""
    fields: dict[str, Any] = dict(model.model_fields)
    for part in loc[:-1]:
        if part not in fields or not hasattr(fields[part].annotation, "model_fields"):
            return {}
        fields = fields[part].annotation.model_fields
    return fields


def _did_you_mean(loc: tuple[Any, ...], model: type[BaseModel]) -> str:
    known = list(_fields(loc, model))
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def _unit(loc: tuple[Any, ...], model: type[BaseModel]) -> str:
    description = getattr(_fields(loc, model).get(loc[-1]), "description", "") or ""
    return " nats" if " nats" in description else ""
