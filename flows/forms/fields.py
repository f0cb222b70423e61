"""Fields of the forms in Prefect's interface that stand for a parameter.

Limits and sentences are those of lightreasoner/config.py. Each may stay empty, which means the
preset's value.
"""

import re
from dataclasses import asdict
from typing import Any, get_args

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import Field

from lightreasoner import config

FIELDS = {
    "expert": ("models.expert", "Expert", ""),
    "amateur": ("models.amateur", "Amateur", "amateur"),
    "beta": ("select.beta", "Beta, nats", "beta"),
    "alpha": ("select.alpha", "Alpha", "alpha"),
    "n_problems": ("prepare.n_problems", "Problems to learn from", "n"),
    "updates": ("finetune.updates", "Updates", "updates"),
    "learning_rate": ("finetune.learning_rate", "Learning rate", "lr"),
    "r": ("finetune.r", "LoRA rank", "r"),
    "seed": ("finetune.seed", "Seed of fine-tuning", "seed"),
    "problem_sets": ("evaluate.problem_sets", "Problem sets to evaluate on", "sets"),
    "n_evaluated": ("evaluate.n_problems", "Problems per set to evaluate on", "evaluated"),
    "style": ("evaluate.style", "Prompt style", "style"),
}
"""The parameter that a field stands for, the field's title, and what the names of runs call it."""
NUMBER = r" *(?:null|~|0x[0-9a-fA-F]+|0o[0-7]+|[-+]?[0-9._]{1,40}(?:[eE][-+]?[0-9]{1,3})?) *"
"""As YAML writes one, or nothing; what it matches may still be none."""

BOUNDS = (Ge, Gt, Le, Lt, MinLen, MaxLen)
PARAMETERS = {name: parameter for name, (parameter, _, _) in FIELDS.items()}
SHORT = {parameter: short for parameter, _, short in FIELDS.values() if short}


def field(name: str) -> Any:
    """The field of this name, empty by default."""
    parameter, title, _ = FIELDS[name]
    return Field(
        None,
        title=title,
        description=f"{config.fields()[parameter].description} Empty: the preset's.",
        json_schema_extra=plain,
        **limits(parameter),
    )


def limits(parameter: str) -> dict[str, Any]:
    """What bounds a parameter (`select.beta`), as arguments of pydantic's Field."""
    metadata = config.fields()[parameter].metadata
    bounds = [asdict(bound) for bound in metadata if isinstance(bound, BOUNDS)]
    return {name: value for bound in bounds for name, value in bound.items()}


def overrides_pattern() -> str:
    """What `section.key=value` may be, as far as a pattern can say it: the names, and numbers.

    Prefect's server, which cannot ask us, refuses the rest before a run exists.
    """
    names: dict[str, list[str]] = {NUMBER: [], ".+": []}
    for name, field in config.fields().items():
        kinds = {field.annotation, *get_args(field.annotation)}
        names[NUMBER if kinds & {int, float} else ".+"].append(re.escape(name))
    choices = [f"(?:{'|'.join(each)})={value}" for value, each in names.items()]
    return f"^(?:{'|'.join(choices)})$"


def plain(schema: dict[str, Any]) -> None:
    """Offer a plain input that may stay empty, in place of a switch between a value and None."""
    (value,) = (each for each in schema.pop("anyOf") if each != {"type": "null"})
    schema.update(value)
    schema.pop("default", None)
