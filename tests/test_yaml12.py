"""YAML is read as DVC reads it, keys that come twice are refused, what is written comes back."""

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import ROOT
from hypothesis import example, given
from hypothesis import strategies as st

from lightreasoner import config, yaml12
from lightreasoner.cli import evaluate
from lightreasoner.errors import ConfigError
from lightreasoner.presets import PRESETS

DVC_PYTHON = ROOT / ".venv-dvc" / "bin" / "python"

READ: dict[str, Any] = {
    # numbers of YAML 1.2
    "3e2": 300.0,
    "1e3": 1000.0,
    "1E3": 1000.0,
    "1e+3": 1000.0,
    "1e-5": 1e-5,
    "5.0e-05": 5e-5,
    ".5": 0.5,
    "5.": 5.0,
    "00.5": 0.5,
    "+1": 1,
    "-1": -1,
    "0": 0,
    "0o17": 15,
    "0x1f": 31,
    "0b11": 3,
    "1_000": 1000,
    ".inf": math.inf,
    "-.inf": -math.inf,
    # texts that YAML 1.1 makes something else of
    "1:30": "1:30",
    "190:20:30": "190:20:30",
    "on": "on",
    "off": "off",
    "yes": "yes",
    "no": "no",
    "y": "y",
    # texts anyway
    "0o8": "0o8",
    "1.2.3": "1.2.3",
    "_1": "_1",
    "'0300'": "0300",
    "\ufeffx": "x",
    "[\ufeffx]": ["\ufeffx"],
    # neither
    "~": None,
    "null": None,
    "true": True,
    "True": True,
    "FALSE": False,
    # anchors and merge keys, of which none comes twice
    "{x: &a {b: 1, c: 2}, y: {<<: *a, b: 3}}": {"x": {"b": 1, "c": 2}, "y": {"b": 3, "c": 2}},
    "{a: {b: &b {<<: &x {c: 1}, c: 2}}, d: {<<: *b}}": {"a": {"b": {"c": 2}}, "d": {"c": 2}},
    "[&a [1], *a]": [[1], [1]],
}

MERGES = "b0: &b0 {x: 1, y: 1}\n" + "\n".join(
    f"b{n}: &b{n}\n  <<: [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 12)
)
"""Each mapping merges the one before nine times: 2 * 9**11 keys."""

REFUSED = {
    "a: 1\nb:\n  c: 1\n  c: 2": "line 4, column 3: the key c appears twice",
    "{a: 1, a: 1}": "line 1, column 8: the key a appears twice",
    "x: &a {b: 1}\ny: {<<: *a, b: 2, b: 3}": "line 2, column 19: the key b appears twice",
    "{a: {b: &b {<<: &x {c: 1}, c: 2, c: 3}}, d: {<<: *b}}": "line 1, column 34: the key c",
    "{1: a, 1.0: b}": "line 1, column 8: found duplicate key",
    "n: 0300": "line 1, column 4: 0300 has a leading zero",
    "[-007]": "line 1, column 2: -007 has a leading zero",
    "a: [1": "line 1, column 6: expected ',' or ']'",
    "a: 1\n---\nb: 1": "line 2, column 1: but found another document",
    "a: !!python/object:os.system 1": "line 1, column 4: could not determine a constructor",
    "a: 2024-13-45": "month must be in 1..12",
    "a: \a": "unacceptable character #x0007",
    "[" * 5000: "nested over 100 deep",
}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("text", READ)
def test_scalars_are_those_of_yaml_1_2(text: str) -> None:
    found = yaml12.load(text)
    assert (type(found), found) == (type(READ[text]), READ[text])


@pytest.mark.skipif(not DVC_PYTHON.exists(), reason="needs DVC's environment")
def test_dvc_reads_the_same() -> None:
    code = (
        "import json, sys; from dvc.utils.serialize import parse_yaml\n"
        "texts = json.load(sys.stdin)\n"
        "print(json.dumps([parse_yaml(f'k: {text}', '')['k'] for text in texts]))"
    )
    texts = [text for text in READ if "\ufeff" not in text[:1]]
    said = subprocess.run(
        [DVC_PYTHON, "-c", code],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(said.stdout)
    assert found == [READ[text] for text in texts]
    assert [type(value) for value in found] == [type(READ[text]) for text in texts]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused_is_said_in_a_line_with_its_place(text: str) -> None:
    with pytest.raises(ValueError, match=r"\A.*\Z") as caught:
        yaml12.load(text)
    assert REFUSED[text] in str(caught.value)
    assert "\n" not in str(caught.value)


@example(value={":0": None}, inline=True)
@given(value=VALUES, inline=st.booleans())
def test_what_is_written_comes_back(value: Any, inline: bool) -> None:
    assert yaml12.load(yaml12.dump({"k": value}, inline=inline)) == {"k": value}


@pytest.mark.skipif(not DVC_PYTHON.exists(), reason="needs DVC's environment")
def test_dvc_reads_what_is_written() -> None:
    tree = {"list": [*READ, "", " ", "a: b", "#", "\x85", "\u2028", "√", "\n"], "tiny": 5e-05}
    code = (
        "import json, sys; from dvc.utils.serialize import parse_yaml\n"
        "print(json.dumps(parse_yaml(sys.stdin.read(), '')))"
    )
    said = subprocess.run(
        [DVC_PYTHON, "-c", code],
        input=yaml12.dump(tree),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(said.stdout) == tree


def test_mlflow_reads_what_is_written() -> None:
    """With PyYAML, the file that names a model's environment."""
    tree = {"python": "3.13.0", "build_dependencies": ["pip"], "dependencies": ["-r x.txt"]}
    assert yaml.safe_load(yaml12.dump(tree)) == tree


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(config.dump(PRESETS["microworld"]), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  beta: 0.4\n", "  beta: 0.4\n  beta: 0.9\n", "the key beta appears twice"),
        ("  n_problems: 300\n", "  n_problems: 0300\n", "0300 has a leading zero"),
        ("  n_problems: 300\n", "  n_problems: 1:30\n", "prepare.n_problems: .*, got '1:30'"),
    ],
)
def test_params_say_what_was_written_or_are_refused(
    params_file: Path, old: str, new: str, said: str
) -> None:
    text = params_file.read_text(encoding="utf-8")
    assert old in text
    params_file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=said) as caught:
        config.load(params_file)
    assert len(caught.value.faults) == 1


def test_params_may_begin_with_a_byte_order_mark(params_file: Path) -> None:
    params_file.write_text("\ufeff" + params_file.read_text(encoding="utf-8"), encoding="utf-8")
    assert config.load(params_file) == PRESETS["microworld"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("prepare.n_problems=0300", "0300 has a leading zero"),
        ("prepare.n_problems=1:30", "got '1:30'"),
        ("finetune.target_modules={a: 1, a: 2}", "the key a appears twice"),
        ("evaluate.seed=no", "got 'no'"),
        ("evaluate.seed=false", "must not be true or false"),
    ],
)
def test_overrides_say_what_was_written_or_are_refused(
    params_file: Path, override: str, said: str
) -> None:
    """Also those of the form and the sweep, which `changed` applies."""
    for refused in (
        lambda: config.load(params_file, [override]),
        lambda: config.changed(PRESETS["microworld"], [override]),
    ):
        with pytest.raises(ConfigError, match=said):
            refused()


def test_an_override_may_have_an_exponent(params_file: Path) -> None:
    assert config.load(params_file, ["prepare.n_problems=3e2"]).prepare.n_problems == 300
    changed = config.changed(PRESETS["microworld"], ["finetune.learning_rate=1e-4"])
    assert changed.finetune.learning_rate == 1e-4


def test_a_folder_may_have_any_name(params_file: Path) -> None:
    """JSON's escapes of what lies beyond U+FFFF are two characters to YAML."""
    overrides = evaluate._overrides("√ \U0001f600", {})
    assert config.load(params_file, overrides).evaluate.source == "√ \U0001f600"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 101 + "]" * 101, "nested over 100 deep"),
        ("[" * 100_000, "nested over 100 deep"),
        ("- " * 10_000, "nested over 100 deep"),
        ("- " * 90 + "[" * 90 + "]" * 90, "nested over 100 deep"),
        (MERGES, "merges over 1000 keys"),
        ("!" * 100_000, "could not determine a constructor"),
        ("&a [*a]", "nested over 100 deep"),
        ("1" * 5_000, "over 300 digits"),
        ("-" + "7" * 301, "over 300 digits"),
        ("!!int x", "'x' is not a whole number"),
        ("!!int ''", "not a whole number"),
        ("2001-99-99", "month"),
        ("!!float x", "float"),
        ("!!bool x", "KeyError"),
        ("!!int []", "TypeError"),
        ("!!timestamp x", "timestamp"),
        ("!!python/object/apply:os.system [x]", "could not determine a constructor"),
    ],
)
def test_what_breaks_a_limit_is_refused_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        yaml12.load(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.timeout(20)
def test_a_text_of_aliases_that_stands_for_a_billion_values() -> None:
    """Nine names, each for nine of the one before: 9**9 values in 400 letters."""
    lines = ["a0: &a0 [x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)
    ]
    with pytest.raises(ValueError, match="over 10,000 values"):
        yaml12.load("\n".join(lines))
