import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import written_scores
import written_steps
from hypothesis import given, settings
from hypothesis import strategies as st
from written_steps import write_samples, write_steps, write_tokenizer

from lightreasoner.config import Compute
from lightreasoner.errors import ArtifactError
from lightreasoner.evaluation import evaluate, pairing
from lightreasoner.inference.token_text import Token
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.progress import Silent
from lightreasoner.report import figures, head, page
from lightreasoner.storage import artifacts, fingerprint, tables
from lightreasoner.storage.artifacts import Workspace
from tasks.tracking import measures

PROVENANCE = {
    "alpha": 0.2, "beta": 0.4, "threshold": 0.4, "label": "contrast",
    "score": {"expert": "expert-digest", "amateur": "amateur-digest"},
    "generate": {"seed": 11, "style": "qwen25-math-cot"},
}  # fmt: skip
COMPUTE = Compute(device="cpu", dtype="float32")
CONDITIONS = {
    "style": "qwen25-math-cot", "max_new_tokens": 64, "n": 1, "temperature": 0.0, "seed": 7,
}  # fmt: skip
VALIDATION = """update,loss,entropy,gold_perplexity,drift,top1_kept,drift_taught
0,1.5,0.9,,0.0,1.0,0.0
10,0.8,0.7,,0.01,0.99,0.5
20,0.7,0.6,,0.02,0.975,0.75
"""
PARITY = {
    "kl_mean": 1e-6,
    "kl_max": 1.5e-5,
    "top1_agreement": 1.0,
    "cast_kl_mean": 0.002,
    "cast_kl_max": 0.25,
    "cast_top1_agreement": 0.75,
    "positions": 1024,
    "prompts": 32,
    "held_out_prompts": 20,
}
VERDICTS = {
    # base, LightReasoner: 2 gained and 1 lost of 4; then 1 gained of 2
    "tuned": [("wrong", "correct"), ("unparsed", "correct"), ("correct", "wrong"), ("wrong",) * 2],
    "transfer": [("correct", "correct"), ("wrong", "correct")],
}
BOXES = {"correct": r"\boxed{4}", "wrong": r"\boxed{5}", "unparsed": "five"}


def write_scores(out: Path, side: int, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    rows = [
        {
            "problem_set": name,
            "problem_id": f"{name}/{index}",
            "k": 0,
            "prompt": f"{index} & 2 < 5?",
            "question": f"{index} & 2 < 5?",
            "response": f"<b>{index}</b> {BOXES[verdicts[side]]}",
            "extracted": None if verdicts[side] == "unparsed" else BOXES[verdicts[side]][7],
            "gold": "4",
            "strict": verdicts[side],
            "pred": "4",
            "qwen": "correct",
            "tokens": 9,
            "finish_reason": "length" if verdicts[side] == "unparsed" else "stop",
        }
        for name, pairs in VERDICTS.items()
        for index, verdicts in enumerate(pairs)
    ]
    out.mkdir()
    scores = edit(pd.DataFrame(rows))
    tables.write_table(scores, tables.SCORES, out / "scores.parquet", CONDITIONS)
    summary = {
        name: evaluate.summarise(group) for name, group in scores.groupby("problem_set", sort=False)
    }
    (out / "summary.json").write_text(json.dumps(summary))


def write_inputs(
    root: Path, edit: Callable[[pd.DataFrame], pd.DataFrame] = lambda scores: scores
) -> dict[str, Path]:
    """All six inputs; `edit` changes the tuned model's scores."""
    inputs = {name: root / name for name in STAGES["report"].inputs}
    write_scores(inputs["scores_base"], 0, lambda scores: scores)
    write_scores(inputs["scores"], 1, edit)
    write_steps(inputs["steps"])
    write_samples(inputs["samples"], **PROVENANCE)
    write_tokenizer(inputs["model"])
    inputs["adapter"].mkdir()
    curve = pd.DataFrame({"update": range(1, 21), "loss": np.linspace(2, 1, 20)})
    curve.assign(learning_rate=1e-3, grad_norm=1.0).to_csv(
        inputs["adapter"] / "curve.csv", index=False
    )
    (inputs["adapter"] / "validation.csv").write_text(VALIDATION)
    (inputs["adapter"] / "validation.json").write_text('{"problem_ids": ["a", "b"]}')
    (inputs["adapter"] / "adapter_config.json").write_text(
        json.dumps({"r": 8, "lora_alpha": 16, "target_modules": ["v_proj", "q_proj"]})
    )
    (inputs["model"] / "parity.json").write_text(json.dumps(PARITY))
    return inputs


def write_report(inputs: dict[str, Path], out: Path) -> None:
    given = {name: artifacts.of(path) for name, path in inputs.items()}
    page.write(given, None, Workspace(out, out / "scratch", COMPUTE), Silent())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    out = root / "report"
    out.mkdir()
    write_report(write_inputs(root), out)
    return out


def test_tables_by_hand(made: Path) -> None:
    """KL: (0.1 + 1.0 + 0.3 + 0.0 + 5.0) / 5 = 1.28; agreeing steps 0.4 / 3; others 6.0 / 2."""
    found = json.loads((made / "tables.json").read_text())
    expected = {"tuned": (0.25, 2, 1, 1.0), "transfer": (0.5, 1, 0, 1.0)}
    for name, (difference, gained, lost, p) in expected.items():
        paired = found["paired"][name]
        assert (paired["difference"], paired["gained"], paired["lost"]) == (
            difference,
            gained,
            lost,
        )
        assert (paired["p"], paired["p_holm"]) == (p, p)
        assert paired["ci95"][0] <= difference <= paired["ci95"][1]
        assert paired["qwen"]["difference"] == 0
    assert found["scores"]["base"]["tuned"]["accuracy"] == 0.25
    assert found["scores"]["base"]["tuned"]["truncated"] == 1
    assert found["scores"]["base"]["tuned"]["no_answer"] == 1
    assert found["scores"]["lightreasoner"]["tuned"]["correct"] == 2
    assert found["scores"]["lightreasoner"]["transfer"]["ci95"] == pytest.approx([0.3424, 1], 1e-3)
    assert found["samples"] == pytest.approx(
        {
            "alpha": 0.2,
            "threshold": 0.4,
            "quantile": None,
            "label": "contrast",
            "without_first_steps": False,
            "trajectories": 2,
            "steps": 5,
            "selected": 2,
            "selected_share": 0.4,
            "mean_kl": 1.28,
            "top1_agreement": 0.6,
            "mean_kl_agreement": 0.4 / 3,
            "mean_kl_disagreement": 3.0,
            "mean_support": 1.5,
            "single_token_share": 0.5,
            "several_tokens_share": 0.5,
            **dict.fromkeys(("pull", "pull_mean", "warning")),
        }
    )


def test_the_cost_by_hand(made: Path) -> None:
    """p0: 2 prompt tokens, 3 of a response, the last label at step 1; p1: 2 and 2, at step 1.

    Whole solutions read 2 + 2 and 2 + 1 tokens, both models the same; up to the last label it is
    2 + 1 and 2 + 1.
    """
    assert json.loads((made / "tables.json").read_text())["cost"] == {
        "lightreasoner": {"trajectories": 2, "labels": 2, "read": 6},
        "sft": {"trajectories": 2, "labels": 5, "read": 7},
        "scoring": {"models": 2, "read": 14},
    }
    text = read_text(made)
    assert "LightReasoner's samples 2 2 40.0% 6 85.7%" in text


class Page(html.parser.HTMLParser):
    """Collects tags, the addresses that a page names, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "srcset", "href", "action")
        ]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.targets += [value or "" for name, value in attrs if name == "popovertarget"]

    def handle_data(self, data: str) -> None:
        self.text += data


def read_text(out: Path) -> str:
    """The page's text on one line."""
    return " ".join(Page((out / "report.html").read_text()).text.split())


def test_the_page_stands_alone_and_escapes_what_models_wrote(made: Path) -> None:
    text = (made / "report.html").read_text()
    page = Page(text)
    outside = [address for address in page.addresses if address.removeprefix("#") not in page.ids]
    assert len(outside) == 6
    assert all(address.startswith("data:image/png;base64,") for address in outside)
    assert not {"link", "iframe"} & page.tags
    assert text.count("<script") == 1
    assert not re.search(r"https?://|url\(|@import", re.sub(r"base64,[\w+/=]+", "", text))
    assert "&lt;b&gt;0&lt;/b&gt;" in text
    assert "<b>0</b> \\boxed{4}" in page.text


def test_no_script_but_the_pages_own_is_allowed(made: Path) -> None:
    """A policy with a hash bars all others, handlers in attributes too."""
    text = (made / "report.html").read_text()
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    (allowed,) = re.findall('script-src ([^;"]*)', text)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert allowed == f"'sha256-{digest}'"


def test_the_page_shows_gains_and_losses(made: Path) -> None:
    text = read_text(made)
    gained, lost = text.split("Base correct, LightReasoner not")
    assert "3 of 3" in gained.split("Base not correct, LightReasoner correct")[1]
    assert [*re.findall(r"(?:tuned|transfer)/\d", gained)] == ["tuned/0", "transfer/1", "tuned/1"]
    assert re.findall(r"tuned/\d", lost) == ["tuned/2"]
    assert "p is McNemar's exact two-sided test of these two counts, corrected for" in text
    assert "50.0% (15.0-85.0)" in text


def test_questions_that_the_tuning_may_have_met(made: Path) -> None:
    """The written trajectories' tokens are no words of the questions: nothing is shared."""
    found = json.loads((made / "tables.json").read_text())
    none, metrics = {"problems": 0, "trajectories": 0, "any": 0}, measures.of_report(made)
    for name, each in found["contamination"].items():
        assert each["shared"] == {"8": none, "13": none}
        assert each["without"]["difference"] == found["paired"][name]["difference"]
        assert metrics[f"contamination_13_any/{name}"] == 0
        assert metrics[f"gain_without_contamination/{name}"] == metrics[f"gain/{name}"]
    assert "Questions that the tuning may have met" in read_text(made)


def test_the_pages_columns_say_verdict_and_interval(made: Path) -> None:
    """A table per verdict; on a phone each value stands behind its column's name."""
    html = (made / "report.html").read_text(encoding="utf-8")
    heads = re.findall("<thead>.*</thead>", html)
    for verdict, row in zip(("strict", "qwen"), heads, strict=False):
        columns = [" ".join(Page(part).text.split()) for part in row.split("</th>")[:-1]]
        compared = [f"{label} ({verdict}, 95% CI)" for label in figures.METHODS.values()]
        tested = [f"gain, points ({verdict}, 95% CI)", f"gained ({verdict})", f"lost ({verdict})"]
        tested += [f"paired p ({verdict}, Holm)", "gain that shows (80% power)"]
        assert columns == ["problem set", "n", *compared, *tested]
        for column in columns[1:]:
            assert html.count(f'data-label="{column}"') >= 2


def test_the_page_shows_what_held_out_problems_said(made: Path) -> None:
    """The first and the last reading; no gold solution was there to be read."""
    text = read_text(made)
    assert "2 problems, before and after the tuning: loss 1.5 and 0.7 nats" in text
    assert "entropy 0.9 and 0.6 nats" in text
    assert "gold solutions – and –" in text
    assert "itself before 0.02 nats, same top token at 97.5%; on the taught ones 0.75 nats" in text
    found = json.loads((made / "tables.json").read_text())["drift"]
    assert found == {"drift": 0.02, "top1_kept": 0.975, "drift_taught": 0.75}


def test_the_page_is_of_the_adapter_that_was_kept(tmp_path: Path) -> None:
    """Update 10 of 20: losses fall from 2 to 1 in equal steps of 1/19, the tenth is 2 - 9/19. Three
    trajectories of two problems are named, as older adapters name them."""
    inputs = write_inputs(tmp_path)
    held_out = {"problem_ids": ["a", "a#1", "b#2"], "kept_update": 10}
    (inputs["adapter"] / "validation.json").write_text(json.dumps(held_out))
    write_report(inputs, tmp_path)
    text = read_text(tmp_path)
    assert (
        "kept: update 10 of 20; up to it mean loss 2 nats in the first tenth, 1.53 in the" in text
    )
    assert (
        "2 problems, before and after the tuning: loss 1.5 and 0.8 nats; entropy 0.9 and 0.7 nats"
        in text
    )
    assert "This run made 20 updates" in text
    assert json.loads((tmp_path / "tables.json").read_text())["drift"]["drift"] == 0.01


def test_an_accuracy_while_tuning_is_said_to_use_answers(made: Path, tmp_path: Path) -> None:
    """Of the adapter that was kept: the last reading up to its update."""
    assert "accuracy while tuning" not in read_text(made)
    inputs = write_inputs(tmp_path)
    (inputs["adapter"] / "validation.json").write_text('{"problem_ids": ["a"], "kept_update": 10}')
    rows = ("update,accuracy_uses_answers,problems", "0,0.125,16", "8,0.75,16", "12,0.5,16")
    (inputs["adapter"] / "accuracy.csv").write_text("\n".join(rows))
    write_report(inputs, tmp_path)
    said = (
        "16 held-out problems: 12.5% before the tuning, 75.0% after update 8; read by their gold "
        "answers, which decided nothing"
    )
    assert said in read_text(tmp_path)


def test_the_last_adapter_is_not_called_kept(made: Path) -> None:
    """Older adapters do not say which was kept."""
    text = read_text(made)
    assert "20; mean loss 1.97 nats in the first tenth, 1.03 in the last" in text
    assert "kept:" not in text


def test_a_tuning_that_held_nothing_out_says_nothing_of_it(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    (inputs["adapter"] / "validation.csv").write_text(VALIDATION.partition("\n")[0])
    (inputs["adapter"] / "validation.json").write_text('{"problem_ids": []}')
    write_report(inputs, tmp_path)
    assert "held out</dt>" not in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "tables.json").read_text())["drift"] == {}


def test_the_page_shows_how_well_the_merged_model_agrees(made: Path) -> None:
    text = read_text(made)
    assert "base + adapter 1e-06 nats on average, 1.5e-05 at most, same top token at 100.0%" in text
    assert "does to the expert 0.002, 0.25 and 75.0%" in text
    assert "100.0% of 1,024 positions (32 prompts, 20 of them held out of the tuning)" in text
    assert json.loads((made / "tables.json").read_text())["parity"] == PARITY


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        (0.4, "Steps with KL(expert ‖ amateur) above 0.4 nats became samples"),
        (None, "Every step became a sample"),
    ],
)
def test_the_page_says_that_first_steps_were_left_out(
    made: Path, tmp_path: Path, threshold: float | None, said: str
) -> None:
    inputs = write_inputs(tmp_path)
    skipping = {"threshold": threshold, "reference": ["skip_first_step"]}
    write_samples(inputs["samples"], **PROVENANCE | skipping)
    write_report(inputs, tmp_path)
    assert f"{said}, but for first steps. A sample's label" in read_text(tmp_path)
    assert "became samples. A sample's label" in read_text(made)
    assert ", no first step" in read_text(tmp_path)
    assert ", no first step" not in read_text(made)


def test_several_responses_are_told_of_by_problem(tmp_path: Path) -> None:
    """Of four problems with three responses the first and the third rise, the last falls; the
    second loses a response and gains one."""
    inputs = write_inputs(tmp_path)
    sides = {"scores_base": "--- +-- +-- +++", "scores": "-++ -+- -++ ++-"}
    for name, marks in sides.items():
        shutil.rmtree(inputs[name])
        conditions = {"n": 3, "temperature": 0.6, "seed": 7}
        sets = {"tuned": marks.replace(" ", "")}
        written_scores.write_scores(inputs[name], "qwen25-math-cot", sets, 3, **conditions)
        scores = pairing.read_scores(inputs[name])
        summary = {"tuned": evaluate.summarise(scores.rows)}
        (inputs[name] / "summary.json").write_text(json.dumps(summary))
    write_report(inputs, tmp_path)
    found = json.loads((tmp_path / "tables.json").read_text())["paired"]["tuned"]
    assert (found["gained"], found["lost"]) == (2, 1)
    text = read_text(tmp_path)
    gained, lost = text.split("Problems that changed All of them")[1].split(
        "A smaller share correct"
    )
    assert "A larger share correct 2 of 2" in gained
    assert lost.startswith(" 1 of 1")
    named = r"tuned/0000\d, response \d of 3"
    assert re.findall(named, gained) == [
        "tuned/00000, response 2 of 3", "tuned/00002, response 2 of 3",
    ]  # fmt: skip
    assert re.findall(named, lost) == ["tuned/00003, response 3 of 3"]
    assert "p is the exact two-sided sign test of these two counts, corrected" in text
    assert "McNemar" not in text
    assert "turned from" not in text


def test_as_many_changed_problems_are_listed_as_the_page_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = write_inputs(tmp_path)
    pairs = page.pair(*(pairing.read_scores(inputs[name]) for name in ("scores_base", "scores")))
    listed = page.examples(pairs, True)
    assert [each["problem_id"] for each in listed] == ["tuned/0", "transfer/1", "tuned/1"]
    chars = [
        len(each["question"] + each["response_base"] + each["response_lightreasoner"])
        for each in listed
    ]
    for n in range(4):
        monkeypatch.setattr(page, "LISTED_CHARS", sum(chars[:n]))
        assert page.examples(pairs, True) == listed[:n]


def test_the_same_inputs_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    out.mkdir()
    write_report(write_inputs(tmp_path), out)
    assert artifacts.digest(out) == artifacts.digest(made)
    assert sorted(path.name for path in (out / "figures").iterdir()) == [
        "accuracy.png", "kl_histogram.png", "loss_curve.png",
    ]  # fmt: skip
    for path in (out / "figures").iterdir():
        assert b"tEXt" not in path.read_bytes()


def test_the_order_of_rows_does_not_count(made: Path, tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path, lambda scores: scores.iloc[::-1])
    base, tuned = (pairing.read_scores(inputs[name]) for name in ("scores_base", "scores"))
    assert page.paired(base, tuned) == json.loads((made / "tables.json").read_text())["paired"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        # a problem that only one model answered
        (lambda s: s.iloc[1:], r"not of the same problems: 1 rows differ, the first is tuned/0"),
        # the same id, another question or gold answer
        (lambda s: s.assign(gold="5"), "12 rows differ"),
        (lambda s: s.assign(question="?"), "12 rows differ"),
        # a set that only one model answered
        (lambda s: s[s["problem_set"] == "tuned"], "first is transfer/0 of transfer"),
        # the same problem twice
        (lambda s: pd.concat([s, s.iloc[:1]]), "appears twice"),
    ],
)
def test_scores_of_other_problems_are_refused(
    tmp_path: Path, edit: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    inputs = write_inputs(tmp_path, edit)
    with pytest.raises(ArtifactError, match=message):
        write_report(inputs, tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_scores_under_other_conditions_are_refused(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    path = inputs["scores"] / "scores.parquet"
    scores = tables.read_table(path, tables.SCORES)
    tables.write_table(scores, tables.SCORES, path, {**CONDITIONS, "max_new_tokens": 32})
    with pytest.raises(ArtifactError, match="different conditions"):
        write_report(inputs, tmp_path)


def test_samples_of_other_steps_are_refused(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    path = inputs["samples"] / "samples.parquet"
    samples = tables.read_table(path, tables.SAMPLES).to_pandas()
    samples["problem_id"] = "elsewhere/" + samples["problem_id"]
    tables.write_table(samples, tables.SAMPLES, path, tables.provenance(path))
    with pytest.raises(ArtifactError, match="was not selected from"):
        write_report(inputs, tmp_path)


def test_samples_that_select_did_not_make_are_refused(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    path = inputs["samples"] / "samples.parquet"
    samples = tables.read_table(path, tables.SAMPLES).to_pandas()
    tables.write_table(samples, tables.SAMPLES, path, {"problems": 3})
    with pytest.raises(ArtifactError, match="were not selected by KL"):
        write_report(inputs, tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("scores/summary.json", None, "no such file"),
        ("scores/summary.json", "{", "not valid JSON"),
        ("scores/summary.json", "[" * 100_000, "not valid JSON"),
        ("scores/summary.json", "[]", "must be an object"),
        ("scores/summary.json", "{}", "not as its stage writes it"),
        (
            "adapter/adapter_config.json",
            "{}",
            "not as its stage writes it",
        ),
        ("adapter/validation.json", '{"problem_ids": 7}', "not as its stage writes it"),
        ("adapter/curve.csv", None, "no such file"),
        ("adapter/curve.csv", "update,loss,learning_rate\n1,x,0.1\n", "not a table of"),
        ("adapter/curve.csv", "a,b\n1,2\n", "not a table of"),
        ("adapter/curve.csv", "", "not a table of"),
    ],
)
def test_damaged_inputs_are_named(
    tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    inputs = write_inputs(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    named = "adapter" if file.startswith("adapter/") and "as its" in message else Path(file).name
    with pytest.raises(ArtifactError, match=rf"{named}: {message}") as caught:
        write_report(inputs, tmp_path)
    assert "\n" not in str(caught.value)


@settings(max_examples=25)
@given(st.lists(st.floats(0, 50, width=32), min_size=1, max_size=30), st.floats(0.001, 60))
def test_the_histogram_counts_every_step_and_no_bin_straddles_the_threshold(
    kl: list[float], threshold: float
) -> None:
    values = pd.Series(kl)
    selected = values > threshold
    axes = figures.kl_histogram(values, selected, threshold, figures.THEMES["light"]).axes[0]
    every, kept = axes.containers
    assert sum(patch.get_height() for patch in every) == len(kl)
    assert sum(patch.get_height() for patch in kept) == selected.sum()
    for patch in every:
        low, high = patch.get_x(), patch.get_x() + patch.get_width()
        assert high <= threshold + 1e-9 or low >= threshold - 1e-9


@pytest.mark.parametrize(("verdicts", "agree"), [("correct", True), ("incorrect", False)])
def test_verdicts_agree_if_the_same_responses_are_correct(verdicts: str, agree: bool) -> None:
    rows = {"strict_base": ["no_answer"], "qwen_base": ["incorrect"]}
    rows |= {"strict_lightreasoner": ["correct"], "qwen_lightreasoner": [verdicts]}
    assert page.verdicts_agree(pd.DataFrame(rows)) is agree


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_figures_stand_the_extremes(accuracy: float) -> None:
    row = {"problems": 1, "accuracy": accuracy, "ci95": [0.0, 1.0]}
    scores = {method: {"a set": row} for method in figures.METHODS}
    theme = figures.THEMES["dark"]
    assert figures.png(figures.accuracy(scores, theme)).startswith(b"\x89PNG")
    one = pd.DataFrame({"update": [1], "loss": [0.5]})
    drawn = [figures.png(figures.loss_curve(one, one, theme)) for _ in range(2)]
    assert drawn[0] == drawn[1] != figures.png(figures.loss_curve(one, one.head(0), theme))
    all_alike = figures.kl_histogram(pd.Series([0.0]), pd.Series([False]), 0.4, theme)
    assert figures.png(all_alike).startswith(b"\x89PNG")


def test_a_changed_template_changes_the_report_stage() -> None:
    names = {path.name for path in fingerprint.code_files("lightreasoner.report.page")}
    assert {"page.py", "page.html.j2", "figures.py", "statistics.py"} <= names
    assert {
        "trajectories.py",
        "hover.py",
        "page.css.j2",
        "page.js",
        "page.trajectories.j2",
    } <= names
    assert not {"decode.py", "config.py", "contrast.py", "explain.py"} & names


def test_making_the_page_loads_no_model_library() -> None:
    code = "import sys, lightreasoner.report; assert not {'torch', 'transformers'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("provenance", "sentence"),
    [
        ({}, "contrast's softmax there (v_C)"),
        ({"threshold": None}, "Every step became a sample."),
        ({"label": "one_hot"}, "the token that the expert wrote: no contrast."),
        ({"label": "expert"}, "own distribution there: no contrast"),
    ],
)
def test_the_page_says_how_samples_were_made(
    tmp_path: Path, provenance: dict[str, object], sentence: str
) -> None:
    inputs = write_inputs(tmp_path)
    path = inputs["samples"] / "samples.parquet"
    samples = tables.read_table(path, tables.SAMPLES)
    tables.write_table(samples, tables.SAMPLES, path, PROVENANCE | provenance)
    out = tmp_path / "made"
    out.mkdir()
    write_report(inputs, out)
    page = " ".join((out / "report.html").read_text(encoding="utf-8").split())
    assert sentence in page.replace("&#39;", "'")


def flat(page: Page) -> str:
    return " ".join(page.text.split())


def test_every_scored_step_opens_its_panel(made: Path) -> None:
    page = Page((made / "report.html").read_text())
    assert page.targets == ["p0-0", "p0-1", "p0-2", "p1-0", "p1-1"]
    assert set(page.targets) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_a_panel_says_what_both_models_would_have_written(made: Path) -> None:
    text = flat(Page((made / "report.html").read_text()))
    panel = text.split("Step 1: ")[1].split("Step 2: ")[0]
    assert panel == (
        "& KL 1 nats; entropy of the expert 0.5, of the amateur 0.75 nats "
        "tokenexpertamateurlabel & written75.0%12.5%75.0% ⟨E2⟩25.0%6.2%25.0% "
        "The amateur's first choice, 1, is not among the stored tokens. "
    )
    assert "0.75 nats; not selected tokenexpertamateur <b> written62.5%50.0%" in text
    assert "tokens that have at least 0.01 of the expert's largest probability" in text
    assert "first of the draw: 1 of 3 steps are samples" in text


def test_the_pull_stands_on_the_page_with_a_warning_where_it_is_small(
    made: Path, tmp_path: Path
) -> None:
    """Two samples. One that says nothing of its pull, an older one, is not warned of."""
    (said,) = re.findall(r"<dt>pull</dt><dd>([^<]*)<", (made / "report.html").read_text())
    assert said.startswith("– nats in sum, – per sample")
    for pulled, shown, warned in (
        (6.0, "6 nats in sum, 3 per sample", False),
        (0.01, "0.01", True),
    ):
        (tmp_path / str(pulled)).mkdir()
        inputs = write_inputs(tmp_path / str(pulled))
        write_samples(inputs["samples"], **PROVENANCE, pull=pulled)
        out = tmp_path / str(pulled) / "report"
        out.mkdir()
        write_report(inputs, out)
        (said,) = re.findall(r"<dt>pull</dt><dd>(.*?)</dd>", (out / "report.html").read_text())
        assert said.startswith(shown)
        assert ("Warning: the labels teach next to nothing: their pull is 0.01" in said) is warned
        found = json.loads((out / "tables.json").read_text())["samples"]
        assert (found["pull"], found["pull_mean"]) == (pulled, pulled / 2)
        assert (found["warning"] is not None) is warned


def test_a_step_has_its_shade_and_a_sample_its_mark(made: Path) -> None:
    text = (made / "report.html").read_text()
    assert '<button class="t" popovertarget="p0-0" title="step 0: KL 0.1 nats">&lt;b&gt;' in text
    assert '<button class="t k2 s" popovertarget="p0-1"' in text
    assert '<button class="t k1" popovertarget="p0-2"' in text
    assert '<button class="t k5 s" popovertarget="p1-1"' in text
    assert '<span class="special">&lt;|end|&gt;</span>' in text


def test_what_was_run_stands_on_the_page(made: Path, tmp_path: Path) -> None:
    text = flat(Page((made / "report.html").read_text())).split("What was run Models ")[1]
    for fact in (
        "expertexpert-digestamateuramateur-digest",
        "styleqwen25-math-cotseed11",
        "alpha0.2beta0.4labelcontrast",
        "r8lora_alpha16target_modulesq_proj, v_projupdates20learning_rate0.001",
        "devicecpu, float32torch2",
        f"model{artifacts.digest(write_inputs(tmp_path)['model'])}",
    ):
        assert fact in text


def test_the_page_begins_with_the_result_and_what_its_inputs_say(made: Path) -> None:
    """2 gained and 1 lost of 4 problems: +25 points, p 1. Two trajectories of `set`."""
    text = read_text(made).split("What LightReasoner changed ")[1]
    assert text.startswith(
        "A change of accuracy on the set tuned is not shown: from 25.0% to 50.0%, +25.0 points "
        "(95% interval -50.0 to +100.0, p 1, n 4, seed 7). "
        "expertexpert-digesamateuramateur-digeproblems2 of setseedstrajectories 11, evaluation 7"
    )


def test_a_runs_own_page_says_which_run_it_was(made: Path) -> None:
    """In place of what the stored page says there; all else is the same."""
    stored = (made / "report.html").read_text(encoding="utf-8")
    facts = {"run": "<b> & co, 2026-11-29 11:40 UTC", "expert": "micro/expert (0123456789ab)"}
    own = head.of_run(stored, facts)
    assert flat(Page(own)).count("run<b> & co, 2026-11-29 11:40 UTCexpertmicro/expert (01") == 1
    assert "expert-diges" not in flat(Page(own)).split("What was run Models")[0]
    assert own.replace(head.html(facts), "") == re.sub(
        r'<dl class="head">.*?</dl>', "", stored, count=1
    )


@pytest.mark.parametrize(
    ("name", "digest", "said"),
    [
        ("micro/expert", "0123456789abcdef.dir", "micro/expert (0123456789ab)"),
        ("/home/me/models/mine/", "0123456789abcdef.dir", "mine (0123456789ab)"),
        (f"Qwen/Qwen3@{'ab' * 20}", f"Qwen/Qwen3@{'ab' * 20}", "Qwen/Qwen3 (abababababab)"),
        ("", f"Qwen/Qwen3@{'ab' * 20}", "Qwen/Qwen3 (abababababab)"),
        ("", "0123456789abcdef.dir", "0123456789ab"),
        ("self:layers:4", f"Qwen/Qwen3@{'ab' * 20}+self:layers:4", "self:layers:4 (abababababab)"),
        ("", "0123456789abcdef.dir+self:layers:4", "self:layers:4 (0123456789ab)"),
        ("microworld", "microworld", "microworld"),
    ],
)
def test_what_has_a_name_is_told_by_name_and_digest(name: str, digest: str, said: str) -> None:
    """The folder that a local model lies in stays private: cards go to the hub."""
    assert head.named(name, digest) == said


def test_a_step_that_was_left_out_has_no_panel(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    write_steps(inputs["steps"], written_steps.STEPS[1:])
    write_report(inputs, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert '<span class="t none" title="step 0: not scored">&lt;b&gt;</span>' in text
    assert "p0-0" not in Page(text).targets


def test_a_page_of_long_trajectories_stays_small(tmp_path: Path) -> None:
    """Ten trajectories of 300 steps, each with 20 stored tokens: six are shown, cut at a bound."""
    inputs = write_inputs(tmp_path)
    ids, stored = [f"set/{number}" for number in range(10)], dict.fromkeys(range(20), (0.05, 0.05))
    rows = [(id_, [0], [5] * 300, "length") for id_ in ids]
    steps = [(id_, step, 1.0, 3.0, 3.0, 5, 5, stored) for id_ in ids for step in range(300)]
    write_steps(inputs["steps"], steps, rows)
    label = dict.fromkeys(range(20), 0.05)
    write_samples(inputs["samples"], [(id_, 0, label, 1.0) for id_ in ids], **PROVENANCE)
    write_tokenizer(inputs["model"], [f"token-{id_}" for id_ in range(20)])
    write_report(inputs, tmp_path)
    read = Page((tmp_path / "report.html").read_text())
    assert len(read.targets) == 6 * page.MAX_STEPS
    assert "The first 128 of 300 steps." in read.text
    assert "of 20 stored tokens." in read.text
    assert (tmp_path / "report.html").stat().st_size < 1.5e6


@pytest.mark.parametrize(
    ("token", "html"),
    [
        (Token(" a\n"), "<u> </u>a<i>⏎</i>"),
        (Token("<script>&"), "&lt;script&gt;&amp;"),
        (Token("⟨U+202E⟩x"), "<i>⟨U+202E⟩</i>x"),
        (Token("⟨<b>⟩"), "<i>⟨&lt;b&gt;⟩</i>"),
        (Token('"', special=True), '<span class="special">&#34;</span>'),
    ],
)
def test_tokens_are_escaped_and_what_cannot_be_seen_is_marked(token: Token, html: str) -> None:
    assert page.token_html(token) == html


@given(st.text())
def test_no_token_leaves_its_place(text: str) -> None:
    """Whatever a model wrote, no tag of its own stands on the page."""
    for html_ in (page.token_html(Token(text)), page.plain_html(Token(text, special=True))):
        assert Page(html_).tags <= {"u", "i", "span"}
        assert html_.count("<") == html_.count(">")
