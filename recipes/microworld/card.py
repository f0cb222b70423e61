"""Model cards and checksums of a built micro-world."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightreasoner.data.microworld import SetName
from recipes.microworld.corpus import Mix
from recipes.microworld.measure import Accuracy

CHECKSUMS = "checksums.sha256"


@dataclass(frozen=True)
class Measured:
    """One set's accuracies: of the float32 weights as trained, and of the fp16 ones as stored."""

    trained: Accuracy
    stored: Accuracy
    same_answers: int


@dataclass(frozen=True)
class Card:
    """What a model card states. `seconds` of wall time: data and training, one CPU thread."""

    role: str
    seed: int
    commit: str | None
    seconds: float
    parameters: int
    tokens: int
    mix: Mix
    measured: Mapping[SetName, Measured]


_TEXT = """\
---
library_name: transformers
pipeline_tag: text-generation
language: en
---

# lightreasoner micro-world: {role}

A Qwen2-architecture language model of {parameters:,} parameters, trained from scratch on synthetic
arithmetic word problems. It exists to show LightReasoner (arXiv 2510.07962) at work on a CPU within
minutes. It knows a handful of problem templates and nothing else; it is of no use for any other
purpose, and its figures say nothing about the paper's models.

## Training

| | |
|---|---|
| seed | {seed} |
| commit | {commit} |
| tokens read | {tokens:,} |
| time | {seconds:.0f} s of wall time on one CPU thread |
| answers in the corpus | {mix} |
| recipe | `recipe.json` beside this directory |

The problems are generated from templates of reasoning-gym's `gsm_symbolic`, which derive from
GSM8K, with numbers up to 50. Most answers of the corpus are wrong on purpose. *Clean* answers show
every step. *Habit* takes the wrong number of steps: a problem of two steps gets a needless third,
a longer one is cut short after its first, and the last result written is boxed. A *slip* gets the
last result wrong; a *guess* shows no step. The expert reads many clean answers, but fewer than
habitual ones, so that greedy decoding seldom picks them; the amateur reads the same habits and
hardly a clean answer.

## Accuracy

Greedy decoding in float32, exact match of the boxed number, problems of the `evaluate` split,
Wilson 95% interval. No such question is in the corpus, but its numbers can be, under other names:
with the default recipe, the solutions of nearly all `tuned` and all `transfer` problems, and of no
`chain_sum` problem. The weights are stored in fp16; "as trained" are the float32 weights before.

| set | as stored | as trained | same answer, token by token |
|---|---|---|---|
{rows}

`tuned` are the templates that LightReasoner samples from; `transfer` and `chain_sum` are met in
pre-training only.
"""


def write_card(card: Card, directory: Path) -> None:
    """Write `README.md`."""
    rows = [
        f"| {name} | {figures.stored} | {figures.trained} "
        f"| {figures.same_answers} of {figures.stored.n} |"
        for name, figures in card.measured.items()
    ]
    text = _TEXT.format(
        role=card.role,
        parameters=card.parameters,
        seed=card.seed,
        commit=card.commit or "not recorded",
        tokens=card.tokens,
        seconds=card.seconds,
        mix=", ".join(f"{100 * share:.0f}% {kind}" for kind, share in dict(card.mix).items()),
        rows="\n".join(rows),
    )
    (directory / "README.md").write_text(text, encoding="utf-8")


def checksums(directory: Path) -> dict[str, str]:
    """sha256 of every file below `directory` but the list itself, by relative path."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != CHECKSUMS
    }


def write_checksums(directory: Path) -> None:
    """Write the list in the format that `sha256sum --check` reads."""
    lines = [f"{digest}  {name}\n" for name, digest in checksums(directory).items()]
    (directory / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def read_checksums(directory: Path) -> dict[str, str]:
    """The listed sha256 by relative path."""
    lines = (directory / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
