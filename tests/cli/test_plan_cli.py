"""`lightreasoner plan`: what it prints, for people and for machines, and how it refuses."""

import json
from pathlib import Path

import pytest
import yaml
from command_line import call, faults
from test_plan import H200, huge

from lightreasoner.config import Params

CARD = ("--rate", str(H200))


@pytest.fixture
def workspace(tmp_path: Path, tiny_params: Params, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTREASONER_HOME", str(tmp_path / "home"))
    tree = tiny_params.model_dump(mode="json")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return tmp_path


def test_the_papers_job_fits_eighty_columns(workspace: Path) -> None:
    call("preset", "qwen2.5-math-7b", "--overwrite")
    card = ("--set", "compute.device=cuda", "--set", "compute.dtype=bfloat16")
    result = call("plan", *CARD, *card, "--home", "home")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == [
        "stage",
        "state",
        "problems",
        "tokens",
        "(at",
        "most)",
        "FLOP",
        "bytes",
    ]
    assert any(line.startswith("evaluate_base  to do    13,499") for line in lines)
    assert "all to do" in result.stdout
    assert "Qwen/Qwen2.5-Math-7B@" in result.stdout


def test_machines_get_json(workspace: Path) -> None:
    result = call("plan", "--json", "--rate", str(H200), "--home", "home")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert list(found) == ["stages", "rate", "disks", "hub", "notes", "refusal"]
    fields = ["stage", "state", "problems", "tokens", "flop", "bytes", "seconds", "bound", "memory"]
    assert {tuple(row) for row in found["stages"]} == {tuple(fields)}
    assert found["rate"] == json.loads(H200.read_text())
    assert found["disks"][0].keys() == {"place", "least", "expected", "free"}
    assert found["refusal"] is None


def test_what_cannot_run_is_shown_and_refused(workspace: Path, tiny_expert: Path) -> None:
    """`run` says the same, before any server starts."""
    expert = f"models.expert={huge(tiny_expert, workspace / 'huge')}"
    planned = call("plan", "--set", expert, "--home", "home")
    assert planned.exit_code == 2
    assert "\nevaluate_base  to do " in planned.stdout
    (line,) = planned.stderr.splitlines()
    assert line.startswith("error: finetune: needs at least ")
    assert faults(call("run", "--set", expert)) == [line.removeprefix("error: ")]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--measure", *CARD), "--measure, --rate: measure this device or give a file, not both"),
        (("--rate", "none.json"), "--rate none.json: no such file; `lightreasoner plan --json` "),
        (("--set", "models.expert=nowhere"), "model 'nowhere' is neither a directory nor owner/"),
        (("--set", "generate.n=0"), "--set: generate.n must be >= 1, got 0"),
    ],
)
def test_mistakes_are_one_line(workspace: Path, arguments: tuple[str, ...], fault: str) -> None:
    (line,) = faults(call("plan", *arguments, "--home", "home"))
    assert line.startswith(fault)
