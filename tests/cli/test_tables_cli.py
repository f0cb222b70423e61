"""Every table that the terminal shows fits 80 columns; those of `runs` are in flows/test_runs.py.

Commands that need a trained model are shown through the function that prints their result.
"""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import narrow
import pytest
import stored_pipeline
from command_line import call
from rich.console import Console
from written_scores import write_scores
from written_steps import write_samples, write_steps
from written_steps import write_tokenizer as write_model

from flows.results import report_json, terminal
from lightreasoner import formatting
from lightreasoner.evaluation.gains import Asked
from lightreasoner.experiments import pair, table1

SETS = ("tuned", "transfer", "chain_sum")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder, and a home in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTREASONER_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    "command",
    [
        "power",
        "power --benchmarks",
        "plan",
        "store ls",
        "samples stats --steps steps --samples samples",
        "samples diff samples others",
        "explain p0 --steps steps --samples samples --model model",
    ],
)
def test_a_commands_tables_fit(
    command: str, tmp_path: Path, tiny_expert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("preset", "microworld").exit_code == 0
    stored_pipeline.write(tmp_path / "home", tiny_expert)
    write_steps(tmp_path / "steps")
    write_model(tmp_path / "model")
    for name, beta in (("samples", 0.4), ("others", 0.5)):
        write_samples(tmp_path / name, beta=beta)
        shutil.copy(tmp_path / "steps" / "trajectories.parquet", tmp_path / name)

    def show() -> str:
        result = call(*command.split())
        assert result.exit_code == 0, result.output
        return result.stdout

    narrow.check(show, monkeypatch)


def shown(print_it: Callable[[Console], None]) -> Callable[[], str]:
    """What goes to a console, as text."""

    def show() -> str:
        file = io.StringIO()
        print_it(Console(file=file))
        return file.getvalue()

    return show


def test_a_runs_tables_fit(
    tmp_path: Path, tiny_expert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: Any = {
        name: SimpleNamespace(outcome=outcome, seconds=1.25)
        for name, outcome in stored_pipeline.write(tmp_path / "home", tiny_expert).items()
    }
    report = report_json.report_tree(runs, None)
    gate = {"verdict": "kept", "reason": "None."}
    report["registered_model"] = {"name": "m", "alias": "best", "version": "1", "gate": gate}
    narrow.check(shown(lambda console: terminal.show_run(report, console, {})), monkeypatch)


@pytest.mark.parametrize("styles", [("cot", "cot"), ("cot", "qwen25-math-cot")])
def test_table1_fits(
    styles: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, tuned = map(Asked, styles)
    cells = {(model, asked) for model in ("base", "tuned") for asked in (start, tuned)}
    marks = {"base": "+--!---~-l" * 6, "tuned": "+++-+++~++" * 6}
    scores: Any = {
        (model, asked): write_scores(
            tmp_path / f"{model}-{asked.style}", asked.style, dict.fromkeys(SETS, marks[model])
        )
        for model, asked in sorted(cells)
    }
    found = table1.table1(scores, start, tuned, "qwen2.5-math-1.5b")
    notes = table1.notes(found)
    show = shown(lambda console: terminal.show_table1(found, console, tmp_path, notes))
    narrow.check(show, monkeypatch)


SCORE = "76.4% (72.5-79.9)"
WIDE = {
    formatting.EVALUATION_HEADINGS: ("chain_sum", "1,319", SCORE, SCORE, "10.0%", "3.1%", "0.1%"),
    pair.HEADINGS: (
        "chain_sum", "1,319", "strict", SCORE, SCORE, "+62.6 (+58.4 to +67.0)", "3.1 × 10⁻²⁸",
        "10.1% / 12.3%",
    ),
    pair.TEACHING: ("microworld/amateur", "12,345", "1,234", "12.3%", "1,234", "0.123"),
    ("method", "tuned (strict, n 500)", "chain_sum (strict, n 500)"): (
        "LightReasoner", *[f"{SCORE}\n+62.6 (+58.4 to +67.0), p 3.1 × 10⁻²⁸"] * 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("headings", WIDE, ids=lambda headings: headings[0])
def test_a_wide_row_fits(headings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    table = formatting.rich_table(headings, [WIDE[headings]] * 2)
    narrow.check(shown(lambda console: formatting.print_table(table, console)), monkeypatch)
