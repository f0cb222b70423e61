"""Fuzz: params.yaml's text, `--set`, and the options that hold several values."""

from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
import yaml
from command_line import call
from fuzzing import ODD_NUMBERS, ODD_TEXTS, check_line, cope, damaged, damaged_tree, odd_value

from lightreasoner import config, yaml12
from lightreasoner.presets import PRESETS

PARAMS = PRESETS["microworld"]
TEXT = config.dump(PARAMS).encode()
SHORT = yaml12.dump(PARAMS.model_dump(mode="json"), inline=True).encode()
PARAMETERS = sorted(config.fields())
NUMBERS = [
    name
    for name, field in sorted(config.fields().items())
    if {int, float} & {field.annotation, *get_args(field.annotation)}
]

BOMB = "[&a [1], " + ", ".join(
    f"&{name} [{', '.join([f'*{before}'] * 9)}]"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
) + "]"  # fmt: skip
MERGES = "b0: &b0 {x: 1, y: 1, z: 1}\n" + "\n".join(
    f"b{n}: &b{n}\n  <<: [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 12)
)
VALUES = (
    *ODD_TEXTS, "!!int ''", "!!bool x", "!!set {a}", "!!omap [a: 1]", "!!binary YQ==", "!x y", BOMB,
    "!" * 100_000, "0" * 50_000, "? [a]\n: b", '"\\ud83d"', '"a\\u0000b"', '"a\\nb"', ".nan",
    ".inf", "-.inf", "[" * 400 + "]" * 400, f"[{'a, ' * 5_000}]", "{1: 2, null: 3}", "'",
    "<<: 1", "=",
)  # fmt: skip


def load(folder: Path, content: bytes, *overrides: str) -> config.Params:
    (folder / "params.yaml").write_bytes(content)
    return config.load(folder / "params.yaml", overrides)


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_bad_override_is_told_in_a_line(value: str) -> None:
    """As a text, a number, and one of several."""
    for name in ("prepare.source", "finetune.r", "evaluate.problem_sets"):
        cope(lambda name=name: config.changed(PARAMS, [f"{name}={value}"]))  # type: ignore[misc]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0", b"\xff\xfe", b"- 1", b"a", b"select: [", f"a: {BOMB}".encode(), MERGES.encode(),
        b"? {a: b}\n: c", b"1: 2\n", "\n".join(f"k{n}: 1" for n in range(1_000)).encode(),
        b"k" * 100_000 + b": 1", b'"a\\nb": 1', b"select: {'\\x1b[31m': 1}", b"x" * (1 << 21),
    ],
)  # fmt: skip
def test_a_bad_file_is_told_in_a_line(tmp_path: Path, content: bytes) -> None:
    assert cope(lambda: load(tmp_path, content))


@pytest.mark.parametrize("parameter", NUMBERS)
def test_every_number_has_its_limit(parameter: str) -> None:
    """None takes what would keep a machine busy for ever, nor a number that torch cannot hold."""
    for number in (2**64, 10**12, -1, -1e300, 1e300, float("nan"), float("inf")):
        assert cope(lambda number=number: config.changed(PARAMS, [f"{parameter}={number}"]))  # type: ignore[misc]


def test_all_odd_values_of_a_parameter(fuzz: Any) -> None:
    def make(rng: Random) -> list[str]:
        value = repr(rng.choice(ODD_NUMBERS)) if rng.random() < 0.4 else rng.choice(VALUES)
        name = rng.choice(PARAMETERS) if rng.random() < 0.95 else rng.choice(ODD_TEXTS)
        return [f"{name}={value}"] if rng.random() < 0.98 else [value]

    fuzz(make, lambda overrides: config.changed(PARAMS, overrides), quick=60)


def test_odd_trees(fuzz: Any) -> None:
    """What a form's record or an older report may hold."""
    tree = PARAMS.model_dump(mode="json")
    fuzz(lambda rng: damaged_tree(rng, tree), lambda tree: config.parse(tree, "test"), quick=80)


def test_damaged_files(fuzz: Any, tmp_path: Path) -> None:
    def make(rng: Random) -> bytes:
        if rng.random() < 0.5:
            tree = damaged_tree(rng, PARAMS.model_dump(mode="json"))
            return yaml.dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")
        return damaged(rng, rng.choice([TEXT, SHORT, SHORT]))

    fuzz(make, lambda content: load(tmp_path, content), quick=10)


@pytest.mark.parametrize(
    "option", ["--betas", "--alphas", "--methods", "--later-amateur", "--limit", "--port"]
)
def test_options_that_are_no_parameters(option: str, tmp_path: Path) -> None:
    """They are refused before a server starts or a model is read."""
    command = {
        "--betas": ["sweep", "--betas"],
        "--alphas": ["sweep", "--alphas"],
        "--methods": ["compare", "--methods"],
        "--later-amateur": ["rounds", "--later-amateur"],
        "--limit": ["prompts", "--benchmark", "gsm8k", "--data", str(tmp_path), "--limit"],
        "--port": ["up", "--prefect-port"],
    }[option]
    (tmp_path / "params.yaml").write_bytes(TEXT)
    given = ["--params", str(tmp_path / "params.yaml")] if option != "--limit" else []
    for value in ("nan", "1e999", "a\nb", "x1," * 2_000):
        result = call(*command, value, *given)
        assert result.exit_code == 2, (value[:20], result.output[:500])
        lines = result.stderr.removeprefix("Usage: ").splitlines()
        for line in lines:
            check_line(line or "-")


def test_odd_values_are_made() -> None:
    """The generator makes values of every kind."""
    rng = Random(0)
    kinds = {type(odd_value(rng)) for _ in range(300)}
    assert kinds >= {str, int, float, bool, list, dict, type(None)}
