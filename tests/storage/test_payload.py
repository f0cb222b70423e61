"""JSON of payloads, damaged."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightreasoner.errors import ArtifactError
from lightreasoner.storage import payload


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("{"), "not valid JSON"),
        (lambda path: path.write_text("[" * 100_000), "nested over 100 deep"),
        (lambda path: path.write_text('{"a": ' + "9" * 5_000 + "}"), "5,000 digits"),
        (lambda path: path.write_bytes(b"\xff"), "not UTF-8"),
        (lambda path: path.write_text("[" + "1," * 100_000 + "1]"), "must be an object, not [1, 1"),
        (os.mkfifo, "a named pipe"),
        (lambda path: None, "no such file; run the stage"),
    ],
)
def test_a_file_that_is_no_object(tmp_path: Path, make: Callable[[Path], Any], said: str) -> None:
    make(tmp_path / "it.json")
    with pytest.raises(ArtifactError, match=said.replace("[", r"\[")) as caught:
        payload.read_json(tmp_path / "it.json")
    assert str(caught.value).startswith(str(tmp_path / "it.json"))
    assert len(str(caught.value)) < len(str(tmp_path)) + 300


@pytest.mark.parametrize(
    "look",
    [
        lambda tree: tree["gone"],
        lambda tree: tree["list"]["gone"],
        lambda tree: tree["list"][7],
        lambda tree: tree["text"] + 1,
        lambda tree: tree["text"].items(),
        lambda tree: float(tree["text"]),
    ],
)
def test_what_is_not_as_its_stage_writes_it(tmp_path: Path, look: Callable[[Any], Any]) -> None:
    with (
        pytest.raises(ArtifactError, match="not as its stage writes it") as caught,
        payload.expected(tmp_path),
    ):
        look({"list": [], "text": "a\nb" * 1_000})
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < len(str(tmp_path)) + 300
