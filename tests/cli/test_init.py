"""`lightreasoner init`: a project from nothing, and nothing lost."""

from pathlib import Path

import pytest
import yaml
from checkout import ROOT
from command_line import call, faults

from flows import environment
from flows.dvc import dvcfile
from lightreasoner import config
from lightreasoner.presets import PRESETS

FILES = {"params.yaml", "dvc.yaml", "prefect.yaml", ".gitignore"}


def test_a_project_is_written_with_the_defaults(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "project"
    result = call("init", str(folder))
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in folder.iterdir()} == FILES
    assert set(environment.PROJECT) < FILES
    assert config.load(folder / "params.yaml") == PRESETS["microworld"]
    text = (folder / "dvc.yaml").read_text(encoding="utf-8")
    assert text == dvcfile.dvc_yaml(in_checkout=False)
    ignored = (folder / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert ".lightreasoner/" in ignored
    deployments = yaml.safe_load((folder / "prefect.yaml").read_text(encoding="utf-8"))
    assert deployments == yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(FILES))
def test_nothing_is_replaced(tmp_path: Path, name: str) -> None:
    """Also a link to nowhere is kept, and nothing is written beside it."""
    (tmp_path / name).symlink_to("nowhere")
    assert faults(call("init", str(tmp_path))) == [
        f"{tmp_path}: has {name} already; name another folder"
    ]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    (line,) = faults(call("init", str(tmp_path / "taken")))
    assert line == f"{tmp_path / 'taken'}: file exists"
