"""Shell completion: what is offered, in bash and zsh, and what it may not import."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows import environment
from lightreasoner.cli import completion
from lightreasoner.presets import NAMES

CONSOLE = "from flows.cli.console import main; main()"
TIMED = f"""
import sys
try:
    {CONSOLE}
finally:
    heavy = {{"torch", "transformers", "prefect", "mlflow", "pandas", "datasets"}}
    assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""


def lightreasoner(*arguments: str, **variables: str) -> str:
    """What the console script prints."""
    environ = {**os.environ, "PYTHONPATH": str(environment.ROOT), **variables}
    command = [sys.executable, "-c", TIMED, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert "AssertionError" not in done.stderr, done.stderr
    return done.stdout


def offered(*words: str) -> list[str]:
    """What bash is offered for the last word; no heavy package may be imported."""
    typed = "\n".join(["lightreasoner", *words])
    return lightreasoner(
        _LIGHTREASONER_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(len(words))
    ).splitlines()


def test_bash_is_offered_commands_options_and_values() -> None:
    assert offered("ev") == ["evaluate-base", "evaluate"]
    assert "--params" in offered("run", "--p")
    assert offered("preset", "micro") == ["microworld"]
    assert offered("run", "--set", "select.b") == ["select.beta="]


def test_zsh_is_offered_the_same() -> None:
    said = lightreasoner(
        _LIGHTREASONER_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="lightreasoner preset micro"
    )
    assert "microworld" in said


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shells_script_is_shown_and_parses(shell: str, tmp_path: Path) -> None:
    # Else typer takes the shell that it finds among its parents, whatever is asked for.
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = lightreasoner("--show-completion", shell, **named)
    assert re.search(rf"complete_{shell}", script)
    if shutil.which(shell):
        (tmp_path / "script").write_text(script, encoding="utf-8")
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_help_imports_nothing_heavy() -> None:
    assert "The pipeline:" in lightreasoner("--help")


def test_values() -> None:
    assert completion.presets("") == list(NAMES)
    assert completion.styles("qwen") == ["qwen25-math-cot"]
    assert completion.benchmarks("gsm8k,mine") == ["gsm8k,minerva_math"]
    assert "chain_sum" in completion.benchmarks("")
    assert completion.benchmarks("math") == ["math", "math500"]
    assert completion.methods("sft,go") == ["sft,gold"]
    assert "sft" not in completion.methods("sft,")
    assert completion.parameters("compute.dtype=f") == ["compute.dtype=float32"]
    assert completion.parameters("compute.gradient_checkpointing=") == [
        "compute.gradient_checkpointing=true",
        "compute.gradient_checkpointing=false",
    ]
    assert completion.parameters("nope.nope=") == []
