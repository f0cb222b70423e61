"""Problems and tokens: counted where the problems are here, else by what is known of the set.

How long answers get is not known before. They take at most `max_new_tokens`; expected is the mean
of the newest results in the store of the same expert, sets and limit, else USUAL_ANSWER.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from lightreasoner.config import Evaluate, Params, PromptStyle
from lightreasoner.data import demos, sources
from lightreasoner.data.reading import EVALUATED, Reading
from lightreasoner.errors import ArtifactError
from lightreasoner.evaluation import power
from lightreasoner.forecast.local import Start, is_of_hub
from lightreasoner.pipeline.store import Outcome, Store
from lightreasoner.storage import tables
from lightreasoner.storage.payload import read_json

USUAL_ANSWER = 400
"""Tokens of an answer, where none of the like is stored; our guess for mathematics."""

SELECTED_SHARE = 0.2
"""Of a trajectory's steps, where none are selected yet; our guess."""

TRAINING = {"gsm8k": 7_473, "math": 7_500}
UNKNOWN = 1_000
"""Problems of a set of the hub whose size is not known here."""

CHARACTERS = {
    "gsm8k": 240, "math": 196, "math500": 196, "svamp": 162, "asdiv": 161, "minerva_math": 421,
    "olympiadbench": 313, "mmlu_stem": 292 + 2_271,
}  # fmt: skip
"""Of a question, the mean over the toolkit's files (of math: of its 500); with demos, if any."""

LONG_QUESTION, PER_TOKEN, TEMPLATE = 400, 3.5, 40
"""Characters of a question that is not known, characters a token, tokens around a question."""


STORED, EARLIER, GUESS = "as stored", "as in earlier results", "a guess"
PROBED = 100
"""Prompts of a set whose tokens are counted, for the mean."""

Lengths = list[tuple[int, float, float]]


@dataclass(frozen=True)
class Sizes:
    """So many prompts, their mean and longest tokens, and the tokens that follow each."""

    problems: int
    rows: int
    prompt: float
    longest: int
    new: float
    most: int
    basis: str

    def at_most(self) -> "Sizes":
        """The same, each answer as long as it may be, unless all are written."""
        return self if self.basis == STORED else replace(self, new=self.most)


def trajectories(
    params: Params, start: Start, store: Store, stored: Outcome | None = None
) -> Sizes:
    """Of generate, whose own result may be `stored`."""
    prepare, generate, expert = params.prepare, params.generate, start.inputs["expert"]
    reading = Reading("prepare", prepare.columns, needs="")
    draw = Draw(
        prepare.source, "train", prepare.n_problems, prepare.seed, generate.style, reading=reading
    )
    lengths = draw.lengths([prepare.problem_set], start.directories["expert"])
    own = _read(stored, _written) if stored else None
    if own is not None:
        return _sizes(lengths, generate.n, generate.max_new_tokens, own, STORED)
    wanted = {"style": generate.style, "max_new_tokens": generate.max_new_tokens}
    found = _newest(store.results("generate"), {"expert": {expert.digest}}, wanted, _written)
    return _sizes(lengths, generate.n, generate.max_new_tokens, found)


def answers(config: Evaluate, stage: str, start: Start, store: Store) -> Sizes:
    """Of evaluate_base or evaluate; `config` is the section as that stage reads it.

    A tuned model is expected to answer as earlier ones of this expert do, else as the base does.
    """
    expert = start.inputs["expert"].digest
    draw = Draw(
        config.source, "test", config.n_problems, config.seed, config.style, config.shots,
        Reading(columns=config.columns),
    )  # fmt: skip
    wanted = config.model_dump(mode="json", include={"source", "problem_sets", "max_new_tokens"})
    models = {
        each.artifact.digest
        for each in store.results("merge")
        if each.manifest["inputs"].get("expert") == expert
    }
    found = None
    if stage == "evaluate":
        found = _newest(store.results(stage), {"model": models}, wanted, _answered)
    if found is None:
        found = _newest(store.results("evaluate_base"), {"expert": {expert}}, wanted, _answered)
    lengths = draw.lengths(config.problem_sets, start.directories["expert"])
    return _sizes(lengths, config.n, config.max_new_tokens, found)


@dataclass(frozen=True)
class Draw:
    """Where problems come from, and how they are asked (config.Evaluate)."""

    source: str
    split: str
    n: int | None
    seed: int
    style: PromptStyle
    shots: int | None = 0
    reading: Reading = EVALUATED

    def lengths(self, sets: Sequence[str], model: Path | None) -> Lengths:
        """Problems, mean and longest tokens of each set's prompts, in the tokens of `model`.

        At most PROBED prompts of a set are made.
        """
        if is_of_hub(self.source):
            return [self._of_hub(name) for name in sets]
        return [self._probed(name, model) for name in sets]

    def _of_hub(self, name: str) -> tuple[int, float, float]:
        known = power.PROBLEMS if self.split == "test" else TRAINING
        size = known.get(name, self.n or UNKNOWN)
        tokens = TEMPLATE + CHARACTERS.get(name, LONG_QUESTION) / PER_TOKEN
        return min(size, self.n or size), tokens, tokens

    def _probed(self, name: str, model: Path | None) -> tuple[int, float, float]:
        n = self.n
        if self.source == sources.MICROWORLD and n is not None:  # any number; each takes a ms
            n = min(n, PROBED)
        drawn = sources.draw_problems(
            self.source, name, self.split, n, self.seed, reading=self.reading
        )
        questions = [each.question for each in drawn[:: math.ceil(len(drawn) / PROBED)]]
        tokens = [TEMPLATE + len(question) / PER_TOKEN for question in questions]
        if model is not None:
            from lightreasoner.inference import loading, prompts

            shown = demos.of(self.source, name, self.shots, self.seed, (), self.reading)
            tokenizer = loading.load_tokenizer(model)
            ids = prompts.encode_prompts(questions, self.style, tokenizer, list(shown.values()))
            tokens = [float(len(each)) for each in ids]
        size = len(drawn) if n == self.n else self.n or 0
        return size, sum(tokens) / len(tokens), max(tokens)


def labels(params: Params, sizes: Sizes, selected: Outcome | None) -> float:
    """Samples of a trajectory that has any."""
    rule = params.select
    share = 1.0 if rule.steps == "all" else SELECTED_SHARE
    if rule.quantile is not None:
        share = 1.0 - rule.quantile
    found = _read(selected, _labelled) if selected else None
    return max(1.0, share * sizes.new if found is None else found)


def _sizes(lengths: Lengths, n: int, most: int, found: float | None, basis: str = EARLIER) -> Sizes:
    problems = sum(size for size, _, _ in lengths)
    return Sizes(
        problems=problems,
        rows=n * problems,
        prompt=sum(size * mean for size, mean, _ in lengths) / problems,
        longest=math.ceil(max(longest for _, _, longest in lengths)),
        new=min(float(most), USUAL_ANSWER if found is None else found),
        most=most,
        basis=GUESS if found is None else basis,
    )


def _newest(
    results: Sequence[Outcome],
    inputs: dict[str, set[str]],
    config: dict[str, Any],
    measure: Callable[[Path], float],
) -> float | None:
    """What is measured of the newest result with such inputs and settings; None without any."""
    for each in results:
        said = each.manifest
        if all(said["inputs"].get(name) in digests for name, digests in inputs.items()) and all(
            said["config"].get(name) == value for name, value in config.items()
        ):
            found = _read(each, measure)
            if found is not None:
                return found
    return None


def _read(result: Outcome, measure: Callable[[Path], float]) -> float | None:
    """What a payload says; None for one that is gone or damaged."""
    try:
        return measure(result.artifact.path)
    except (ArtifactError, OSError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return None


def _written(payload: Path) -> float:
    table = tables.read_table(payload / "trajectories.parquet", tables.TRAJECTORIES)
    return float(pc.mean(pc.list_value_length(table["completion_ids"])).as_py())


def _answered(payload: Path) -> float:
    sets = read_json(payload / "summary.json").values()
    return float(sum(each["tokens"] for each in sets) / sum(each["n"] for each in sets))


def _labelled(payload: Path) -> float:
    samples = tables.read_table(payload / "samples.parquet", tables.SAMPLES)
    return float(len(samples) / pc.count_distinct(samples["problem_id"]).as_py())
