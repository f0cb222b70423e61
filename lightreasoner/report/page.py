"""Report: what the tuning changed, as tables, figures and one page that needs nothing else.

Compares the base model and the tuned one on the same problems and shows what the tuning was made
of, down to single trajectories. Reads stored tables and a tokenizer only; the same inputs give the
same bytes.
"""

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from lightreasoner import formatting, untrusted
from lightreasoner.data.problems import problem_of
from lightreasoner.errors import ABSENT, ArtifactError
from lightreasoner.evaluation import contamination, gains, pairing
from lightreasoner.evaluation.pairing import KEYS, Scores
from lightreasoner.inference.token_text import Token
from lightreasoner.report import cost, figures, head, hover, lineage, trajectories
from lightreasoner.report.figures import METHODS, THEMES
from lightreasoner.report.trajectories import Step
from lightreasoner.sampling import pull
from lightreasoner.storage import tables
from lightreasoner.storage.artifacts import Inputs, Workspace
from lightreasoner.storage.payload import expected, read_json

if TYPE_CHECKING:
    from lightreasoner.progress import Watcher

SCORES_OF = {"base": "scores_base", "lightreasoner": "scores"}
DRIFT = ("drift", "top1_kept", "drift_taught")
HELD_OUT = ("loss", "entropy", "gold_perplexity", *DRIFT)
"""Columns of validation.csv (tuning/validation.py, which needs torch)."""
OPEN = 3
"""Changed problems of a kind that are open at first."""
LISTED_CHARS = 2_000_000
"""Of the questions and responses of a kind of changed problems; the page stays one that opens."""
MAX_RESPONSE_CHARS = 2000
MAX_STEPS = 128
"""Steps shown of a trajectory; each brings a panel of about 1 kB."""
TOP_TOKENS = 5


def write(inputs: Inputs, config: None, work: Workspace, watcher: "Watcher") -> None:
    """Write `tables.json`, `metrics.json`, `figures/*.png` and `report.html` into `out`.

    `inputs` are the directories scores_base, scores, steps, samples, adapter and model. Raises
    ArtifactError if an input is malformed, or if the two scores are not of the same problems.
    """
    out, paths = work.out, {name: artifact.path for name, artifact in inputs.items()}
    base, tuned = (pairing.read_scores(paths[name]) for name in SCORES_OF.values())
    pairing.check_comparable(base, tuned, {"style"})
    pairs = pair(base, tuned)
    steps = read_steps(paths["steps"], paths["samples"])
    scored = trajectories.load_scored(paths["steps"], paths["samples"], paths["model"])
    curve = _read_csv(paths["adapter"] / "curve.csv", ["update", "loss", "learning_rate"])
    held_out = _read_csv(paths["adapter"] / "validation.csv", ["update", *HELD_OUT])
    result = {
        "scores": {
            method: read_json(paths[name] / "summary.json") for method, name in SCORES_OF.items()
        },
        "paired": paired(base, tuned),
        "contamination": contamination.of(base, tuned, _read_by_the_tuning(scored)),
        "styles": {"base": base.conditions["style"], "lightreasoner": tuned.conditions["style"]},
        "samples": sample_statistics(steps, paths["samples"]),
        "cost": cost.of(paths["samples"], paths["steps"]),
        "parity": read_json(paths["model"] / "parity.json"),
    }
    readings = _held_out(paths["adapter"], held_out)
    result["drift"] = {name: readings["after"][name] for name in DRIFT} if readings else {}
    with expected(paths["scores"] / "summary.json"):
        metrics = key_numbers(result)
    for name, content in (("tables", result), ("metrics", metrics)):
        text = json.dumps(content, indent=1, allow_nan=False)
        (out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    images, strips = _drawn(result, steps, curve, held_out)
    (out / "figures").mkdir()
    for name, image in images["light"].items():
        (out / "figures" / f"{name}.png").write_bytes(image)
    conditions = {**tuned.conditions, "base_style": base.conditions["style"]}
    with expected(paths["adapter"]):
        tuning = _tuning(paths["adapter"], curve)
    page = page_html(
        **result,
        **_explained(scored),
        headline=formatting.headline(
            result, conditions["seed"], conditions["base_style"], conditions["style"]
        ),
        head=head.html(head.of_inputs(scored, conditions)),
        verdicts_agree=verdicts_agree(pairs),
        examples={"gained": examples(pairs, True), "lost": examples(pairs, False)},
        conditions=conditions,
        tuning=tuning,
        held_out=readings,
        lineage=lineage.of(inputs, conditions, tuning, work.compute),
        figures=images,
        strips=strips,
    )
    (out / "report.html").write_text(page, encoding="utf-8")
    watcher.progress(1, 1, "reports")


def key_numbers(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """What distinguishes one run from another: `dvc metrics diff` and `dvc exp show` list it.

    Accuracies and gain by the strict verdict, as shares; gain_low is the interval's lower end.
    """
    scores, tests = result["scores"], result["paired"]
    found = {
        name: {
            "base": scores["base"][name]["accuracy"],
            "tuned": scores["lightreasoner"][name]["accuracy"],
            "gain": test["difference"],
            "gain_low": test["ci95"][0],
        }
        for name, test in tests.items()
    }
    chosen = ("selected", "selected_share")
    return {**found, "samples": {name: result["samples"][name] for name in chosen}}


def pair(base: Scores, tuned: Scores) -> pd.DataFrame:
    """Both models' rows side by side: columns end in `_base` and `_lightreasoner`.

    `change` is 1 where the tuning gained the response by the strict verdict, -1 where it lost it;
    `problem_change` is the sum over the problem's responses.
    """
    pairs = base.rows.merge(tuned.rows, on=KEYS, suffixes=tuple(f"_{name}" for name in METHODS))
    right = {name: (pairs[f"strict_{name}"] == "correct").astype(int) for name in METHODS}
    pairs["change"] = right["lightreasoner"] - right["base"]
    by_problem = pairs.groupby(["problem_set", "problem_id"])["change"]
    return pairs.assign(problem_change=by_problem.transform("sum"))


def verdicts_agree(pairs: pd.DataFrame) -> bool:
    """Whether the toolkit finds those responses correct that the strict verdict does."""
    right = {
        verdict: pairs[[f"{verdict}_{name}" for name in METHODS]].to_numpy() == "correct"
        for verdict in ("strict", "qwen")
    }
    return bool((right["strict"] == right["qwen"]).all())


def paired(base: Scores, tuned: Scores) -> dict[str, dict[str, Any]]:
    """For each set the paired difference by the strict verdict, as `gains.gain` has it.

    `qwen` holds the same by the toolkit's.
    """
    before, after = gains.by_set(base.rows), gains.by_set(tuned.rows)
    strict, qwen = (
        gains.gain(before, after, (), verdict)["scores"] for verdict in ("strict", "qwen")
    )
    return {name: {**strict[name], "qwen": qwen[name]} for name in strict}


def read_steps(steps_dir: Path, samples_dir: Path) -> pd.DataFrame:
    """One row per step with `kl`, `agree` (same top token) and its sample's `support` (0 if
    none)."""
    columns = ["problem_id", "step", "kl", "expert_top1", "amateur_top1"]
    steps = tables.read_table(steps_dir / "steps.parquet", tables.STEPS).select(columns).to_pandas()
    samples = tables.read_table(samples_dir / "samples.parquet", tables.SAMPLES).to_pandas()
    samples = samples[["problem_id", "step"]].assign(support=samples["token_ids"].map(len))
    merged = steps.merge(samples, how="left", on=["problem_id", "step"])
    if len(merged) != len(steps) or merged["support"].notna().sum() != len(samples):
        raise ArtifactError(f"{samples_dir} was not selected from {steps_dir}; run select again")
    return merged.assign(
        agree=merged["expert_top1"] == merged["amateur_top1"],
        support=merged["support"].fillna(0).astype(int),
    )


def sample_statistics(steps: pd.DataFrame, samples_dir: Path) -> dict[str, Any]:
    """What was selected from what; KL in nats, shares in [0, 1], None where there is no step."""
    provenance = tables.provenance(samples_dir / "samples.parquet")
    if not {"threshold", "alpha", "label"} <= provenance.keys():
        raise ArtifactError(
            f"{samples_dir}: its samples were not selected by KL, so there is nothing to report of "
            "the selection; give the directory that select made"
        )
    selected = steps[steps["support"] > 0]
    pulled = provenance.get("pull")
    return {
        "alpha": provenance["alpha"],
        "threshold": provenance["threshold"],
        "quantile": provenance.get("quantile"),
        "label": provenance["label"],
        "without_first_steps": "skip_first_step" in provenance.get("reference", ()),
        "trajectories": steps["problem_id"].nunique(),
        "steps": len(steps),
        "selected": len(selected),
        "selected_share": len(selected) / len(steps),
        "mean_kl": _mean(steps["kl"]),
        "top1_agreement": _mean(steps["agree"]),
        "mean_kl_agreement": _mean(steps["kl"][steps["agree"]]),
        "mean_kl_disagreement": _mean(steps["kl"][~steps["agree"]]),
        "mean_support": _mean(selected["support"]),
        "single_token_share": _mean(selected["support"] == 1),
        "several_tokens_share": _mean(selected["support"] > 1),
        "pull": pulled,
        "pull_mean": None if pulled is None else pulled / len(selected),
        "warning": pull.warning(pulled, len(selected)),
    }


def examples(pairs: pd.DataFrame, gained: bool) -> list[dict[str, Any]]:
    """The problems that the tuning gained or lost, the sets taking turns; as many as LISTED_CHARS
    hold.

    Of a problem's responses the first that changed as its share of correct ones did.
    """
    sign = 1 if gained else -1
    changed = pairs[(pairs["change"] == sign) & (pairs["problem_change"] * sign > 0)]
    changed = changed.drop_duplicates(["problem_set", "problem_id"])
    turn = changed.groupby("problem_set").cumcount()
    order = turn.sort_values(kind="stable").index
    changed = changed.loc[order]
    texts = changed[["question", *(f"response_{name}" for name in METHODS)]]
    chars = texts.map(lambda text: len(text[:MAX_RESPONSE_CHARS])).sum(axis=1)
    listed = changed[chars.cumsum() <= LISTED_CHARS].astype(object)
    return listed.where(listed.notna(), None).to_dict("records")


def _read_by_the_tuning(scored: trajectories.Scored) -> dict[str, list[str]]:
    """The texts of the training problems' prompts, and of the expert's responses to them. The
    prompt style's words stand in all prompts: contamination leaves them out."""
    return {
        kind: [scored.texts.plain(ids) for ids in scored.trajectories[column].to_pylist()]
        for kind, column in (("problems", "prompt_ids"), ("trajectories", "completion_ids"))
    }


def _explained(scored: trajectories.Scored) -> dict[str, Any]:
    """The trajectories that the page shows, and what it says of all of them."""
    return {
        "explained": [
            {"trajectory": trajectories.trajectory(scored, id_), "why": why}
            for id_, why in trajectories.chosen(scored).items()
        ],
        "alpha_min": scored.score.get("alpha_min"),
        "kl_ranges": [
            *itertools.pairwise((0, *trajectories.KL_EDGES)),
            (trajectories.KL_EDGES[-1], None),
        ],
        "shades": trajectories.SHADES,
    }


def page_html(**context: Any) -> str:
    """The page. All text is escaped; images are inlined; no outside address, and no script but the
    search's, whose hash the page's policy names.
    """
    templates = Path(__file__).parent / "templates"
    script = (templates / "page.js").read_bytes()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        **{filter_.__name__: filter_ for filter_ in FILTERS},
        "count": "{:,}".format,
        "data_uri": lambda image: f"data:image/png;base64,{base64.b64encode(image).decode()}",
    }
    template = environment.get_template("page.html.j2")
    return template.render(
        **context,
        methods=METHODS,
        themes=THEMES,
        limit=MAX_RESPONSE_CHARS,
        open=OPEN,
        max_steps=MAX_STEPS,
        top=TOP_TOKENS,
        lengths=contamination.LENGTHS,
        without=contamination.WITHOUT,
        script=script.decode(),
        script_hash=base64.b64encode(hashlib.sha256(script).digest()).decode(),
    )


def token_html(token: Token) -> Markup:
    """A token as HTML: escaped, its spaces, breaks and unseen characters marked."""
    marks = {" ": Markup("<u> </u>"), "\n": Markup("<i>⏎</i>")}
    parts = re.split(r"( |\n|⟨[^⟩]*⟩)", token.text)
    html = Markup("").join(
        marks.get(part) or Markup("<i>{}</i>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )
    return Markup('<span class="special">{}</span>').format(html) if token.special else html


def plain_html(token: Token) -> Markup:
    """A token as HTML in running text: escaped, special ones set apart."""
    text = escape(token.text)
    return Markup('<span class="special">{}</span>').format(text) if token.special else text


def classes(step: Step) -> str:
    """A step's classes in the page's style sheet, each after a space: its shade, its mark."""
    return (f" k{step.level}" if step.level else "") + (" s" if step.is_sample else "")


FILTERS = (
    formatting.percent,
    formatting.interval,
    formatting.points,
    formatting.difference,
    formatting.points_interval,
    formatting.p_value,
    formatting.gain_that_shows,
    formatting.probability,
    formatting.number,
    formatting.selection,
    token_html,
    plain_html,
    classes,
)
"""What the templates call by name."""


def _first(values: "pd.Series[Any]") -> float | None:
    return float(values.iloc[0]) if len(values) else None


def _mean(values: "pd.Series[Any]") -> float | None:
    return float(values.astype("float64").mean()) if len(values) else None


def _drawn(
    result: dict[str, Any], steps: pd.DataFrame, curve: pd.DataFrame, held_out: pd.DataFrame
) -> tuple[dict[str, dict[str, bytes]], dict[str, hover.Strips]]:
    """The figures as PNG, by theme and name, and what each says under the pointer."""
    kl = steps["kl"], steps["support"] > 0, result["samples"]["threshold"]
    drawn = {
        name: {
            "accuracy": figures.accuracy(result["scores"], theme),
            "kl_histogram": figures.kl_histogram(*kl, theme),
            "loss_curve": figures.loss_curve(curve, held_out, theme),
        }
        for name, theme in THEMES.items()
    }
    light = drawn["light"]
    strips = {
        "accuracy": [],
        "kl_histogram": hover.kl_histogram(light["kl_histogram"], *kl),
        "loss_curve": hover.loss_curve(light["loss_curve"], curve, held_out),
    }
    images = {
        theme: {name: figures.png(figure) for name, figure in each.items()}
        for theme, each in drawn.items()
    }
    return images, strips


def _tuning(adapter_dir: Path, curve: pd.DataFrame) -> dict[str, Any]:
    """What the page says of the tuning; losses are means over a tenth of the updates up to the one
    whose adapter was kept, nats. Older adapters do not name it: it is taken to be the last.
    """
    settings = read_json(adapter_dir / "adapter_config.json")
    kept = read_json(adapter_dir / "validation.json").get("kept_update", len(curve))
    losses = curve["loss"][curve["update"] <= kept]
    tenth = max(1, len(losses) // 10)
    return {
        "r": settings["r"],
        "lora_alpha": settings["lora_alpha"],
        "target_modules": sorted(settings["target_modules"]),
        "lora_dropout": settings.get("lora_dropout"),
        "updates": len(curve),
        "kept_update": kept,
        "learning_rate": _first(curve["learning_rate"]),
        "first_loss": _mean(losses.head(tenth)),
        "last_loss": _mean(losses.tail(tenth)),
        "accuracy": _accuracy(adapter_dir / "accuracy.csv", kept),
    }


def _accuracy(path: Path, kept: int) -> dict[str, Any] | None:
    """Readings of the accuracy on held-out problems (finetune.evaluate_every), if there are any:
    before the first update, and the last one up to the update that was kept."""
    if not path.is_file():
        return None
    readings = _read_csv(path, ["update", "accuracy_uses_answers", "problems"])
    rows = readings[readings["update"] <= kept].to_dict("records")
    return {"before": rows[0], "after": rows[-1]}


def _held_out(adapter_dir: Path, readings: pd.DataFrame) -> dict[str, Any] | None:
    """The held-out problems' readings before the first update and of the kept adapter, if any.

    A measure is None where nothing was read. Older adapters name trajectories and no kept update.
    """
    rows = readings.astype(object).where(readings.notna(), None).to_dict("records")
    if not rows:
        return None
    with expected(adapter_dir):
        validation = read_json(adapter_dir / "validation.json")
        kept = [row for row in rows if row["update"] == validation.get("kept_update")]
        problems = {problem_of(id_) for id_ in validation["problem_ids"]}
    return {"problems": len(problems), "before": rows[0], "after": (kept or rows)[-1]}


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        with untrusted.open_file(path, ArtifactError, untrusted.TEXT_BYTES) as file:
            table = pd.read_csv(file, usecols=columns)
        if len(table) and not all(map(pd.api.types.is_numeric_dtype, table.dtypes)):
            raise ValueError("a value is no number")
        return table
    except FileNotFoundError:
        raise ArtifactError(f"{path}: {ABSENT}") from None
    except ValueError as error:
        said = untrusted.shown(str(error), 120)
        raise ArtifactError(f"{path}: not a table of {columns} ({said}); tune again") from error
