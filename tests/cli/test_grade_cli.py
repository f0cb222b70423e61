"""`lightreasoner grade`, through the real command line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import json_lines
import pytest
from checkout import ROOT, SHARED
from command_line import call, faults

GSM8K = {"question": "2 + 2?", "answer": "2 + 2 = 4\n#### 4"}
MATH = {"problem": "Half?", "solution": r"So \boxed{\frac{1}{2}}."}


def write(path: Path, *rows: Any) -> Path:
    return json_lines.write(path, rows)


def test_adds_both_verdicts_and_keeps_the_rest(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "benchmark": "gsm8k", "record": GSM8K, "response": "The answer is 400."},
        {"benchmark": "math", "record": MATH, "response": r"\boxed{50\%}", "more": {"a": ["√", 1]}},
        {"benchmark": "mine", "record": {"question": "q", "answer": "7"}, "response": "no idea"},
    ]
    out = tmp_path / "new" / "out.jsonl"
    result = call("grade", str(write(tmp_path / "in.jsonl", *rows)), str(out))
    assert result.exit_code == 0, result.stderr
    added = [
        {"gold": "4", "pred": "400", "qwen": "correct", "strict": "wrong"},
        {"gold": r"\frac{1}{2}", "pred": "50", "qwen": "wrong", "strict": "correct"},
        {"gold": "7", "pred": "", "qwen": "unparsed", "strict": "unparsed"},
    ]
    assert json_lines.read(out) == [{**row, **more} for row, more in zip(rows, added, strict=True)]
    assert "gsm8k strict: n 1, correct 0, wrong 1, unparsed 0, timeout 0" in result.stdout


def test_another_file_is_not_replaced(tmp_path: Path) -> None:
    """Nor are the responses themselves; what `grade` wrote may be, also by itself."""
    row = {"benchmark": "gsm8k", "record": GSM8K, "response": "4"}
    source = write(tmp_path / "in.jsonl", row)
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("mine", encoding="utf-8")
    for out in (source, thesis):
        before = out.read_bytes()
        (line,) = faults(call("grade", str(source), str(out)))
        assert line.startswith(f"{out}: is there, and no earlier result of this command; name ")
        assert out.read_bytes() == before
    for source_, *more in ((source, "--overwrite"), (thesis,)):
        assert call("grade", str(source_), str(thesis), *more).exit_code == 0
        assert json_lines.read(thesis)[0]["strict"] == "correct"


def test_a_strangers_escapes_do_not_reach_the_terminal(tmp_path: Path) -> None:
    row = {"benchmark": "gsm\x1b]0;title\x07", "record": {"question": "q", "answer": "4"}}
    file = write(tmp_path / "in.jsonl", {**row, "response": "4"})
    result = call("grade", str(file), str(tmp_path / "out.jsonl"))
    assert result.exit_code == 0, result.stderr
    assert r"gsm\x1b]0;title\x07 strict: n 1" in result.stdout


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"benchmark": "gsm8k", "record": GSM8K}, "response must be text, there is none"),
        ({"benchmark": "gsm8k", "record": "x", "response": "4"}, "record must be an object"),
        (
            {"benchmark": 3, "record": GSM8K, "response": "4"},
            "benchmark must be text, there is int",
        ),
        (
            {"benchmark": "math", "record": {"x": 1}, "response": "4"},
            "problem and solution",
        ),
        (
            {"benchmark": "math", "record": {"problem": "q", "solution": "no"}, "response": ""},
            "gold",
        ),
        ([1], "a list, not an object"),
    ],
)
def test_a_broken_line_is_named_before_anything_is_graded(
    tmp_path: Path, row: Any, fault: str
) -> None:
    good = {"benchmark": "gsm8k", "record": GSM8K, "response": "4"}
    out = tmp_path / "out.jsonl"
    (line,) = faults(call("grade", str(write(tmp_path / "in.jsonl", good, row)), str(out)))
    assert line.startswith(f"{tmp_path / 'in.jsonl'}:2: ")
    assert fault in line
    assert not out.exists()


def test_nothing_to_grade_is_an_error(tmp_path: Path) -> None:
    (line,) = faults(call("grade", str(write(tmp_path / "in.jsonl")), str(tmp_path / "out.jsonl")))
    assert "no responses in the file" in line
    (line,) = faults(call("grade", str(tmp_path / "none.jsonl"), str(tmp_path / "out.jsonl")))
    assert "none.jsonl" in line


@pytest.mark.slow
def test_a_strangers_folder_runs_nothing(tmp_path: Path) -> None:
    """Python would import its modules in place of those that it has itself."""
    for name in ("random", "calendar", "pebble", "sympy"):
        (tmp_path / f"{name}.py").write_text("open('run', 'w')", encoding="utf-8")
    row = {"benchmark": "gsm8k", "record": GSM8K, "response": "4"}
    write(tmp_path / "in.jsonl", row)
    code = "from flows.cli.console import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "grade", "in.jsonl", "out.jsonl"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LIGHTREASONER_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
def test_agrees_with_the_official_verdict_on_recorded_responses(tmp_path: Path) -> None:
    files = [file for file in SHARED.glob("parity/*.jsonl") if "prompts" not in file.name]
    if not files:
        pytest.skip(f"no records in {SHARED}/parity")
    rows = [row for file in sorted(files) for row in json_lines.read(file)]
    out = tmp_path / "out.jsonl"
    assert call("grade", str(write(tmp_path / "in.jsonl", *rows)), str(out)).exit_code == 0
    graded = [row for row in json_lines.read(out) if row["qwen"] != "timeout"]
    assert len(graded) >= len(rows) - 3
    for row in graded:
        found = (row["gold"], row["pred"] or None, row["qwen"] == "correct")
        official = (row["official_gold"], row["official_pred"] or None, row["official_correct"])
        assert found == official
