import html.parser
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightreasoner import artifacts, evaluate, figures, fingerprint, pairing, report, tables
from lightreasoner.errors import ArtifactError
from lightreasoner.stages import STAGES

PROVENANCE = {"alpha": 0.2, "threshold": 0.4, "label": "contrast"}
CONDITIONS = {
    "style": "qwen25-math-cot", "max_new_tokens": 64, "n": 1, "temperature": 0.0, "seed": 7,
}  # fmt: skip
VALIDATION = """update,loss,entropy,gold_perplexity
0,1.5,0.9,
10,0.8,0.7,
20,0.7,0.6,
"""
PARITY = {
    "max_logit_difference": 1.5e-5,
    "mean_logit_difference": 1e-6,
    "top1_agreement": 1.0,
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
STEPS = pd.DataFrame(
    {
        "problem_id": ["p0", "p0", "p0", "p1", "p1"],
        "step": [0, 1, 2, 0, 1],
        "kl": [0.1, 1.0, 0.3, 0.0, 2.0],
        "expert_top1": [5, 6, 7, 5, 6],
        "amateur_top1": [5, 1, 7, 5, 2],
    }
)
LABELS = {("p0", 1): [6, 3], ("p1", 1): [6]}


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
    tables.write(scores, tables.SCORES, out / "scores.parquet", CONDITIONS)
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
    for name in ("steps", "samples", "adapter", "model"):
        inputs[name].mkdir()
    steps = STEPS.assign(
        expert_entropy=0.5, amateur_entropy=0.5,
        **{name: [[]] * 5 for name in ("token_ids", "expert_log_probs", "amateur_log_probs")},
    )  # fmt: skip
    tables.write(steps, tables.STEPS, inputs["steps"] / "steps.parquet")
    samples = STEPS[["problem_id", "step", "kl"]].iloc[[1, 4]]
    samples = samples.assign(token_ids=list(LABELS.values()), weights=[[0.5, 0.5], [1.0]])
    tables.write(samples, tables.SAMPLES, inputs["samples"] / "samples.parquet", PROVENANCE)
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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    out = root / "report"
    out.mkdir()
    report.write_report(write_inputs(root), out)
    return out


def test_tables_by_hand(made: Path) -> None:
    """KL: (0.1 + 1.0 + 0.3 + 0.0 + 2.0) / 5 = 0.68; agreeing steps 0.4 / 3; others 3.0 / 2."""
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
            "label": "contrast",
            "trajectories": 2,
            "steps": 5,
            "selected": 2,
            "selected_share": 0.4,
            "mean_kl": 0.68,
            "top1_agreement": 0.6,
            "mean_kl_agreement": 0.4 / 3,
            "mean_kl_disagreement": 1.5,
            "mean_support": 1.5,
            "single_token_share": 0.5,
        }
    )


class Page(html.parser.HTMLParser):
    """Collects tags, the addresses that a page names, and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "srcset", "href", "action")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_escapes_what_models_wrote(made: Path) -> None:
    text = (made / "report.html").read_text()
    page = Page(text)
    assert len(page.addresses) == 6
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe"} & page.tags
    assert not re.search(r"https?://|url\(|@import", re.sub(r"base64,[\w+/=]+", "", text))
    assert "&lt;b&gt;0&lt;/b&gt;" in text
    assert "<b>0</b> \\boxed{4}" in page.text


def test_the_page_shows_gains_and_losses(made: Path) -> None:
    text = " ".join(Page((made / "report.html").read_text()).text.split())
    gained, lost = text.split("Base correct, LightReasoner not")
    assert "3 of 3" in gained.split("Base not correct, LightReasoner correct")[1]
    assert [*re.findall(r"(?:tuned|transfer)/\d", gained)] == ["tuned/0", "transfer/1", "tuned/1"]
    assert re.findall(r"tuned/\d", lost) == ["tuned/2"]
    assert "50.0% [15, 85]" in text.replace(".0,", ",").replace(".0]", "]")


def test_the_page_shows_what_held_out_problems_said(made: Path) -> None:
    """The first and the last reading; no gold solution was there to be read."""
    text = " ".join(Page((made / "report.html").read_text()).text.split())
    assert "2 problems, before and after the tuning: loss 1.5 and 0.7 nats" in text
    assert "entropy 0.9 and 0.6 nats" in text
    assert "gold solutions – and –" in text


def test_a_tuning_that_held_nothing_out_says_nothing_of_it(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    (inputs["adapter"] / "validation.csv").write_text(VALIDATION.partition("\n")[0])
    (inputs["adapter"] / "validation.json").write_text('{"problem_ids": []}')
    report.write_report(inputs, tmp_path)
    assert "held out</dt>" not in (tmp_path / "report.html").read_text()


def test_the_page_shows_how_well_the_merged_model_agrees(made: Path) -> None:
    text = " ".join(Page((made / "report.html").read_text()).text.split())
    assert "differ by at most 1.5e-05, 1e-06 on average" in text
    assert "100.0% of 1,024 positions (32 prompts, 20 of them held out of the tuning)" in text
    assert json.loads((made / "tables.json").read_text())["parity"] == PARITY


def test_the_same_inputs_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    out.mkdir()
    report.write_report(write_inputs(tmp_path), out)
    assert artifacts.digest(out) == artifacts.digest(made)
    assert sorted(path.name for path in (out / "figures").iterdir()) == [
        "accuracy.png", "kl_histogram.png", "loss_curve.png",
    ]  # fmt: skip
    for path in (out / "figures").iterdir():
        assert b"tEXt" not in path.read_bytes()


def test_the_order_of_rows_does_not_count(made: Path, tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path, lambda scores: scores.iloc[::-1])
    base, tuned = (pairing.read_scores(inputs[name]) for name in ("scores_base", "scores"))
    assert report.paired(base, tuned) == json.loads((made / "tables.json").read_text())["paired"]


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
        (lambda s: pd.concat([s, s.iloc[:1]]), "stands twice"),
    ],
)
def test_scores_of_other_problems_are_refused(
    tmp_path: Path, edit: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    inputs = write_inputs(tmp_path, edit)
    with pytest.raises(ArtifactError, match=message):
        report.write_report(inputs, tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_scores_under_other_conditions_are_refused(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    path = inputs["scores"] / "scores.parquet"
    scores = tables.read(path, tables.SCORES)
    tables.write(scores, tables.SCORES, path, {**CONDITIONS, "max_new_tokens": 32})
    with pytest.raises(ArtifactError, match="different conditions"):
        report.write_report(inputs, tmp_path)


def test_samples_of_other_steps_are_refused(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path)
    path = inputs["samples"] / "samples.parquet"
    samples = tables.read(path, tables.SAMPLES).to_pandas().assign(problem_id="elsewhere")
    tables.write(samples, tables.SAMPLES, path, tables.provenance(path))
    with pytest.raises(ArtifactError, match="was not selected from"):
        report.write_report(inputs, tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("scores/summary.json", None, "no such file"),
        ("scores/summary.json", "{", "not valid JSON"),
        ("adapter/curve.csv", None, "no such file"),
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
    with pytest.raises(ArtifactError, match=rf"{Path(file).name}: {message}"):
        report.write_report(inputs, tmp_path)


@pytest.mark.parametrize(
    ("p", "shown"),
    [
        (1.0, "1"),
        (0.0312, "0.031"),
        (0.001, "0.001"),
        (0.00099, "9.9 × 10⁻⁴"),
        (3.14e-28, "3.1 × 10⁻²⁸"),
        (0.0, "< 10⁻³⁰⁰"),
    ],
)
def test_p_values_read_well(p: float, shown: str) -> None:
    assert report.p_value(p) == shown


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 50, width=32), min_size=1, max_size=30), st.integers(0, 30))
def test_the_histogram_counts_every_step(kl: list[float], kept: int) -> None:
    values = pd.Series(kl)
    selected = pd.Series(np.arange(len(kl)) < kept)
    axes = figures.kl_histogram(values, selected, 0.4, figures.THEMES["light"]).axes[0]
    assert sum(patch.get_height() for patch in axes.patches) == pytest.approx(len(kl))


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_figures_stand_the_extremes(accuracy: float) -> None:
    row = {"n": 1, "accuracy": accuracy, "ci95": [0.0, 1.0]}
    scores = {method: {"a set": row} for method in figures.METHODS}
    theme = figures.THEMES["dark"]
    assert figures.png(figures.accuracy(scores, theme)).startswith(b"\x89PNG")
    one = pd.DataFrame({"update": [1], "loss": [0.5]})
    drawn = [figures.png(figures.loss_curve(one, one, theme)) for _ in range(2)]
    assert drawn[0] == drawn[1] != figures.png(figures.loss_curve(one, one.head(0), theme))
    all_alike = figures.kl_histogram(pd.Series([0.0]), pd.Series([False]), 0.4, theme)
    assert figures.png(all_alike).startswith(b"\x89PNG")


def test_a_changed_template_changes_the_report_stage() -> None:
    names = {path.name for path in fingerprint.code_files("lightreasoner.report")}
    assert {"report.py", "report.html.j2", "figures.py", "statistics.py"} <= names
    assert not {"decode.py", "config.py"} & names


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
    samples = tables.read(path, tables.SAMPLES)
    tables.write(samples, tables.SAMPLES, path, PROVENANCE | provenance)
    out = tmp_path / "made"
    out.mkdir()
    report.write_report(inputs, out)
    page = " ".join((out / "report.html").read_text(encoding="utf-8").split())
    assert sentence in page.replace("&#39;", "'")
