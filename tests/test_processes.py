"""Processes of our own: in a group of their own, deaf to the current folder."""

import os
from pathlib import Path

import pytest

from lightreasoner import processes


def test_no_module_of_the_current_folder_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python would take its `random`, which many modules import, in place of its own."""
    (tmp_path / "random.py").write_text("open('run', 'w')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    process = processes.start("lightreasoner.inference.chat_templates")
    assert os.getpgid(process.pid) == process.pid  # no Ctrl-C of a terminal reaches it
    said, _ = process.communicate(b'["{{ messages[0].content }}", {}, [[{"content": "a"}]], 9]\n')
    assert (process.returncode, said) == (0, b'{"texts": ["a"]}\n')
    assert not (tmp_path / "run").exists()


def test_a_process_has_the_variables_it_is_given(tmp_path: Path) -> None:
    """Of PYTHONPATH Python itself takes notice."""
    (tmp_path / "ours.py").write_text("print('here')", encoding="utf-8")
    process = processes.start("ours", PYTHONPATH=str(tmp_path))
    assert process.communicate()[0] == b"here\n"
