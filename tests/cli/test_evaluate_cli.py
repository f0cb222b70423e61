"""`lightreasoner prompts`, through the real command line."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT, SHARED
from command_line import call, faults
from test_benchmarks import DEMOS, MATH, MMLU, put

from lightreasoner.data import demos
from lightreasoner.inference import prompts

SETS = ("asdiv", "gsm8k", "minerva_math", "mmlu_stem", "olympiadbench", "svamp")


def prompt_lines(*arguments: str) -> list[dict[str, Any]]:
    result = call("prompts", *arguments)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout_bytes.decode().split("\n") if line]


def test_each_record_is_a_line_in_the_files_order(tmp_path: Path) -> None:
    rows = [{"question": f"√{n}?", "answer": f"#### {n},000.0"} for n in range(3)]
    source = put(tmp_path, "gsm8k", *rows)
    found = prompt_lines("--benchmark", "gsm8k", "--data", source)
    assert [(row["idx"], row["gold"]) for row in found] == [(n, f"{n},000") for n in range(3)]
    assert "user\n√2?<|im_end|>" in found[2]["prompt"]
    assert "√2?".encode() in call("prompts", "--benchmark", "gsm8k", "--data", source).stdout_bytes
    limited = prompt_lines(
        "--benchmark", "gsm8k", "--data", source, "--limit", "2", "--style", "cot"
    )
    assert [row["prompt"] for row in limited] == [f"Question: √{n}?\nAnswer:" for n in range(2)]


def test_demos_keep_their_bytes(tmp_path: Path) -> None:
    """Form feeds and carriage returns are part of the toolkit's demos."""
    source = put(tmp_path, "mmlu_stem", MMLU)
    (tmp_path / "mmlu_stem" / "demos.json").write_text(json.dumps(DEMOS), encoding="utf-8")
    (found,) = prompt_lines("--benchmark", "mmlu_stem", "--data", source)
    assert found["gold"] == "C"
    assert "q0\rx\na0\fy\n\nq1\rx\na1\fy\n\n" in found["prompt"]


def test_chat_renders_the_models_template(tmp_path: Path, tiny_expert: Path) -> None:
    source = put(tmp_path, "math", MATH)
    chat = ("--benchmark", "math", "--data", source, "--style", "chat")
    (found,) = prompt_lines(*chat, "--model", str(tiny_expert))
    assert found["prompt"].endswith("What is $1+1$?<|im_end|>\n<|im_start|>assistant\n")
    assert found["gold"] == r"\frac{4}{2}"
    assert faults(call("prompts", *chat)) == [
        "style chat uses a model's own chat template; give --model DIR"
    ]
    (line,) = faults(call("prompts", *chat, "--model", str(tmp_path)))
    assert "no config.json" in line


def test_the_micro_worlds_prompts_are_as_many_as_asked_for() -> None:
    drawn = ("--benchmark", "tuned", "--data", "microworld")
    assert len(prompt_lines(*drawn, "--limit", "2")) == 2
    assert "say how many (n_problems or --limit)" in faults(call("prompts", *drawn))[0]


def test_a_model_without_a_chat_template_is_named(tmp_path: Path, tiny_expert: Path) -> None:
    from transformers import AutoTokenizer

    for file in tiny_expert.iterdir():
        if "template" not in file.name:
            shutil.copyfile(file, tmp_path / file.name)
    tokenizer = AutoTokenizer.from_pretrained(tiny_expert)
    tokenizer.chat_template = None
    (tmp_path / "tokenizer_config.json").unlink()
    tokenizer.save_pretrained(tmp_path)
    data = put(tmp_path, "math", MATH)
    chat = ("--benchmark", "math", "--data", data, "--style", "chat", "--model", str(tmp_path))
    (line,) = faults(call("prompts", *chat))
    assert line == (
        f"style chat needs the model's chat template, but {tmp_path} has none; "
        "use one of qwen25-math-cot, cot, none"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--benchmark", "aime", "--data", "{}"), "has no aime/test.jsonl"),
        (("--benchmark", "math", "--data", "{}/gone"), "is neither a file, a directory"),
        (("--benchmark", "math", "--data", "{}/gone.jsonl"), "gone.jsonl: no such file"),
        (
            ("--benchmark", "math", "--data", "{}", "--style", "cod"),
            "no prompt style 'cod'; there are qwen25-math-cot, cot, none, chat, authors",
        ),
        (("--benchmark", "aime", "--data", "hub"), "hub has no set 'aime'"),
    ],
)
def test_mistakes_are_one_line_each(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    source = put(tmp_path, "math", MATH)
    (line,) = faults(call("prompts", *(part.format(source) for part in arguments)))
    assert message in line


def test_the_fixed_styles_need_no_model_library(tmp_path: Path) -> None:
    source = put(tmp_path, "math", MATH)
    code = (
        "import sys; from lightreasoner.cli import app\n"
        f"app.application()(['prompts', '--benchmark', 'math', '--data', {source!r}], "
        "standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'datasets', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.skipif(not (SHARED / "parity").is_dir(), reason="needs the toolkit's files")
@pytest.mark.parametrize("name", SETS)
def test_the_output_is_the_toolkits_to_the_byte(name: str) -> None:
    """Of both fixed styles, every record whose digest is known."""
    text = (SHARED / "parity" / "prompts_and_golds.jsonl").read_text(encoding="utf-8")
    expected = [row for row in map(json.loads, text.splitlines()) if row["benchmark"] == name]
    for style, key in ("qwen25-math-cot", "sha_qwen25"), ("cot", "sha_cot"):
        printed = prompt_lines(
            "--benchmark", name, "--data", str(SHARED / "benchmarks"), "--style", style
        )
        assert [row["idx"] for row in printed] == list(range(len(printed)))
        found = [printed[row["idx"]] for row in expected]
        assert [row["gold"] for row in found] == [row["gold"] for row in expected]
        digests = [hashlib.sha256(row["prompt"].encode()).hexdigest() for row in found]
        assert digests == [row[key] for row in expected]


@pytest.mark.skipif(not (SHARED / "benchmarks").is_dir(), reason="needs the toolkit's files")
def test_demos_of_the_toolkit_hold_control_characters() -> None:
    """What the byte-for-byte test above rests on: the demos would differ if these were lost."""
    shown = demos.own(str(SHARED / "benchmarks"), "mmlu_stem")
    prompt = prompts.render_prompt("q", "cot", None, shown)  # type: ignore[arg-type]
    assert "\f" in prompt
    assert "\r" in prompt
