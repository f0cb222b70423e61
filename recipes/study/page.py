"""The study's page: verdicts first, then a table per question; as Markdown, and from it as HTML."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightreasoner.evaluation import power
from lightreasoner.formatting import NONE, markdown_table
from recipes.study.arms import ARMS, FAULTS, OURS, TABLES
from recipes.study.claims import CLAIMS
from recipes.study.measure import BASE

Tree = Mapping[str, Any]
COSTS = {
    "problems": "problems", "sampled_tokens": "sampled tokens", "samples": "samples",
    "trained_samples": "tuned tokens", "sampling_seconds": "sampling, s", "seconds": "tuning, s",
}  # fmt: skip
CANNOT = """\
- One world, made by us, with one pair of models: nothing here says that real models gain, or how
  much.
- Seeds vary problems, draws and tuning, not the models; the evaluation problems are the same for
  all.
- Intervals and tests are of one seed each. Nothing is corrected for the number of claims.
- Seconds are of a CPU that others may have used; the paper's are of a GPU.
- No arm is stopped by its drift (`finetune.stop=none`), as none is in the paper; the default run is
  guarded by it.
- SFT has the updates and the batch of the section `sft`, by which it tunes more tokens than
  LightReasoner; a row tunes about as many, but in far fewer updates (`sft.updates=19`).
- LightReasoner's settings were chosen in this world (docs/micro-world.md); the other methods have
  the same learning rate.
- Ground truth samples nothing: its 300 tokens are one per problem, written to get the prompts'
  ids.
- Of rounds, costs and drift are the last round's alone, and its drift is from that round's expert.
- Drift says how far a model moved, not in which direction: an arm that loses may drift less than
  one that gains (see the columns), so that a small drift is no sign of health.
"""
NOT_TRIED = """\
Three of the four that a setting repeats were tried, one at a time. The fourth, labels without the
tokens from `tokenizer.vocab_size` on (`finetune.reference=[ordinary_tokens]`), changes nothing
here: all tokens of the micro-world lie below that. Not tried, for they have no setting
here: prefixes that are decoded and tokenised again, distributions after `generate`'s
processors, KL = beta kept, vocabularies that are cut, truncation at 512 tokens, a gradient that
accumulation scales twice, LoRA's A drawn before the seed, bfloat16 autocast and TF32, a doubled
begin-of-sequence token. docs/deviations.md describes each."""


def markdown(found: Tree) -> str:
    """The page, from the study's tree."""
    seeds = list(found["seeds"].values())
    sets = list(seeds[0][BASE]["scores"])
    heads = "claim", "where", "paper", f"here, by seed ({'; '.join(found['seeds'])})", "verdict"
    parts = [
        "# The paper's claims, tried in the micro-world",
        _conditions(found, seeds[0]),
        "## Verdicts",
        markdown_table(heads, [_claim_row(claim, seeds) for claim in CLAIMS], heads),
        "In points of the strict verdict's accuracy with a paired bootstrap's 95% interval, in the "
        "mean over the sets where none is named. " + _rule(),
        power.note({name: each["n"] for name, each in seeds[0][BASE]["scores"].items()})
        + " So it is for every table of this page.",
        "In the tables a number is the mean over the seeds; the brackets hold the least and the "
        "most, not a 95% interval.",
        "What cannot be concluded:", CANNOT,
    ]  # fmt: skip
    for title, arms in TABLES.items():
        names = ([] if title == "Methods" else [OURS]) + list(arms)
        parts += [f"## {title}", _table(names, seeds, sets)]
        if title == "Amateurs":
            parts.append(_amateurs(names, seeds))
        if title == FAULTS:
            parts.append(NOT_TRIED)
    parts += ["## What tuning does on the way", _curves(found["curves"])]
    parts += ["## KL and labels", _statistics(seeds), _mass(found["label_mass"])]
    return "\n\n".join(parts) + "\n"


def html(text: str, title: str) -> str:
    """The page in one file without requests."""
    import markdown as converter

    body = converter.markdown(text, extensions=["tables"])
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 "
        "1rem}table{border-collapse:collapse;display:block;overflow-x:auto}td,th{border:1px solid "
        "#d6dbe1;padding:.3rem .6rem;text-align:left;vertical-align:top}</style>\n"
        f"{body}\n</html>\n"
    )


def _rule() -> str:
    from recipes.study import claims

    return " ".join((claims.__doc__ or "").split("\n\n", 1)[1].split())


def _conditions(found: Tree, first: Tree) -> str:
    said = found["conditions"]
    n = ", ".join(f"{name} {each['n']}" for name, each in first[BASE]["scores"].items())
    return (
        f"Seeds {', '.join(found['seeds'])}; problems evaluated: {n}, the same for every arm "
        f"(evaluate.seed {said['params']['evaluate']['seed']}). Made by `make study` at commit "
        f"{said['commit']} on {said['device']} in {said['dtype']}; "
        + ", ".join(f"{name} {version}" for name, version in said["packages"].items()) + "."
    )  # fmt: skip


def _claim_row(claim: Any, seeds: Sequence[Tree]) -> tuple[str, ...]:
    here, verdict = claim.judge(seeds)
    return claim.text, claim.place, claim.paper or NONE, here, f"**{verdict}**"


def _table(names: Sequence[str], seeds: Sequence[Tree], sets: Sequence[str]) -> str:
    heads = ["", *(f"{name}, %" for name in sets), "gain, points", *COSTS.values(), "drift, nats"]
    return markdown_table(heads, [_row(name, seeds, sets) for name in names])


def _row(name: str, seeds: Sequence[Tree], sets: Sequence[str]) -> tuple[str, ...]:
    entries = [each[name] for each in seeds]
    missing = [each["missing"] for each in entries if "missing" in each]
    if missing:
        return (f"{ARMS[name].title}: {missing[0]}", *[NONE] * (len(sets) + len(COSTS) + 2))
    accuracies = [
        _range([100 * each["scores"][one]["strict"]["accuracy"] for each in entries], "{:.1f}")
        for one in sets
    ]
    if name == BASE:
        return (ARMS[name].title, *accuracies, *[NONE] * (len(COSTS) + 2))
    gains = _range([100 * each["to_base"]["mean"]["difference"] for each in entries], "{:+.1f}")
    costs = [_range([each[cost] for each in entries], "{:,.0f}") for cost in COSTS]
    drift = _range([each["drift"].get("drift", np.nan) for each in entries], "{:.3f}")
    return (ARMS[name].title, *accuracies, gains, *costs, drift)


def _range(values: Sequence[float], form: str) -> str:
    """`76.7 (76.4 to 77.2)`: mean, least and most over the seeds; none if one has none."""
    if np.isnan(values).any():
        return NONE
    mean, low, high = (form.format(each) for each in (np.mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def _amateurs(names: Sequence[str], seeds: Sequence[Tree]) -> str:
    rows = []
    for name in names:
        entries = [each[name] for each in seeds if "gap" in each[name]]
        if entries:
            gap = _range([100 * each["gap"] for each in entries], "{:+.1f}")
            pull = _range([each["pull"] for each in entries], "{:.1f}")
            gain = _range(
                [100 * each["to_base"]["mean"]["difference"] for each in entries], "{:+.1f}"
            )
            rows.append(("its own amateur" if name == OURS else ARMS[name].title, gap, pull, gain))
    return markdown_table(("amateur", "gap, points", "pull, nats", "gain, points"), rows)


def _curves(curves: Tree) -> str:
    """Held-out loss, entropy and perplexity of people's solutions, at the first seed."""
    rows = [
        (title, f"{update:g}", *(f"{value:.4f}" for value in row))
        for title, curve in curves.items()
        for update, *row in zip(
            *(curve[name] for name in ("update", "loss", "entropy", "gold_perplexity")), strict=True
        )
    ]  # fmt: skip
    return markdown_table(("", "update", "loss", "entropy, nats", "perplexity of golds"), rows)


def _statistics(seeds: Sequence[Tree]) -> str:
    first = seeds[0][OURS]["statistics"]
    rows = [
        (name, f"{each['n']:,}", _number(each["value"]), each["paper"] or NONE)
        for name, each in first.items()
    ]
    return markdown_table(("of scored steps, first seed", "n", "here", "paper"), rows)


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _mass(found: Tree) -> str:
    rows = [
        (f"`{each['token']!r}`", f"{each['mass']:.1%}", f"{each['expert']:.1%}")
        for each in found["tokens"]
    ]
    table = markdown_table(("token", "share of the labels' mass", "of the expert's there"), rows)
    return (
        f"Where the labels' mass lies ({found['samples']:,} samples, first seed): "
        f"{found['not_top']:.1%} of it on tokens other than the expert's likeliest.\n\n{table}"
    )
