"""`lightreasoner explain`: with colours and without, what it shows and what it refuses."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result
from written_steps import write_samples, write_steps
from written_steps import write_tokenizer as write_model

from lightreasoner.cli import app, explain
from lightreasoner.errors import ABSENT
from lightreasoner.report import trajectories
from lightreasoner.report.trajectories import ExplainedTrajectory
from lightreasoner.storage import outputs

# The written token and its neighbours, their KL as blocks, the samples' marks.
FIRST = """\
Q

<b> &⏎
   ▃▃▁
   ^^
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with everything where the stages' commands put it."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / outputs.DATA
    root.mkdir(parents=True)
    write_steps(root / "steps")
    write_samples(root / "samples")
    write_model(root / "model")
    return root


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app.application(), ["explain", *arguments])


def test_without_colour_blocks_and_marks_say_it(data: Path) -> None:
    result = call("p0")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(FIRST)
    assert "\x1b" not in result.stdout
    assert "▃ 0.4 to 1" in result.stdout
    assert "set/p0: 1 of 3 steps are samples (KL over 0.4 nats)" in result.stdout
    assert "pi_E >= 0.01 max pi_E" in result.stdout


def test_the_table_has_each_sample(data: Path) -> None:
    rows = [" ".join(line.split()) for line in call("p0").stdout.splitlines()]
    expert, amateur = "75.0% ␣&, 25.0% ⟨E2⟩", "1 (not stored), 12.5% ␣&, 6.2% ⟨E2⟩"
    assert f"1 ␣& 1.00 {expert} {amateur} {expert}" in rows


def colours(trajectory: ExplainedTrajectory, theme: str, **options: object) -> str:
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=True, color_system="truecolor", **options)  # type: ignore[call-overload]
    for line in explain.response(trajectory.steps, console, theme):
        console.print(line)
    return file.getvalue()


@pytest.mark.parametrize("theme", trajectories.SHADES)
def test_with_colour_a_token_has_its_shade(data: Path, theme: str) -> None:
    scored = trajectories.load_scored(data / "steps", data / "samples", data / "model")
    last = trajectories.trajectory(scored, "set/p1")
    paper, _ = trajectories.SHADES[theme][-1]
    red, green, blue = (int(paper[at : at + 2], 16) for at in (1, 3, 5))
    text = colours(last, theme)
    assert f"48;2;{red};{green};{blue}m<|end|>" in text
    assert "▅" not in text
    assert "^" in colours(last, theme, no_color=True)


def test_lines_are_cut_between_tokens(data: Path) -> None:
    rows = [("set/p0", [0], [5] * 50, "length")]
    steps = [("set/p0", step, 0.0, 0.0, 0.0, 5, 5, {5: (1.0, 1.0)}) for step in range(50)]
    write_steps(data / "steps", steps, rows)
    write_samples(data / "samples", [])
    lines = call("p0").stdout.splitlines()
    assert [lines.count("<b>" * n) for n in (40, 10)] == [1, 1]  # 120 cells a line
    assert "0 of 50 steps are samples" in "\n".join(lines)


def test_what_a_model_wrote_cannot_steer_the_terminal(data: Path) -> None:
    write_model(data / "model", ["Q", "1", "2", "â", "Ĥ¬", "ě[31m[red]", "Ġ&", "Ċ"])
    result = call("p0")
    assert "⟨U+001B⟩[31m[red] &⏎" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["p9"],
            "error: problem 'p9': none of 2 trajectories begins or ends with it; similar: set",
        ),
        (["set"], "error: problem 'set': 2 trajectories begin or end with it: set/p0, set/p1"),
        (
            ["p0", "--steps", "gone"],
            f"error: gone/trajectories.parquet: {ABSENT}",
        ),
        (["p0", "--model", "gone"], "error: gone: no tokenizer.json; give the directory of the"),
    ],
)
def test_mistakes_are_one_line(data: Path, arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1


def test_the_example_of_the_help_names_a_real_option() -> None:
    text = call("--help").stdout
    assert "Example: lightreasoner explain" in text
    assert "--steps" in text
    assert json.dumps(str(outputs.DATA / "steps"))[1:-1] in text.replace("\n", "").replace(" ", "")
