"""What a store holds: for people, and for machines."""

import json
from pathlib import Path

import pytest
from command_line import call

from lightreasoner.pipeline import contents
from lightreasoner.pipeline.graph import GRAPH
from lightreasoner.pipeline.store import INPUTS, Outcome
from lightreasoner.storage import artifacts


def key(outcome: Outcome) -> str:
    return str(outcome.manifest["fingerprint"])


@pytest.mark.parametrize("said", ["", "{", "[1]", '{"problems": {}}'])
def test_work_whose_notes_are_damaged_is_work(tmp_path: Path, said: str) -> None:
    work = tmp_path / "work" / ("1" * 32)
    work.mkdir(parents=True)
    (work / INPUTS).write_text(said)
    (found,) = contents.work(tmp_path)
    assert found.stage == contents.WORK


def test_files_that_others_share_free_nothing(tmp_path: Path, made: dict[str, Outcome]) -> None:
    entry = made["finetune"].artifact.path.parent
    alone = contents.freed([entry])
    artifacts.place(made["finetune"].artifact, tmp_path / "data" / "adapter")
    files = sum(file.stat().st_blocks for file in artifacts.files_under(entry / "payload"))
    assert contents.freed([entry]) == alone - contents.BLOCK * files
    use = contents.disk_use(tmp_path)
    folders = [tmp_path / "data", tmp_path / "data" / "adapter"]
    assert use["data"] == contents.BLOCK * sum(folder.stat().st_blocks for folder in folders)
    assert use["store/finetune"] >= contents.BLOCK * files


def test_ls_du_and_show(tmp_path: Path, made: dict[str, Outcome]) -> None:
    """For machines they say the same in bytes; a result of which much is not known, too."""
    home = ("--home", str(tmp_path))
    found = json.loads(call("store", "ls", "--json", *home).stdout)
    assert {each["key"] for each in found} == set(map(key, made.values()))
    entry = made["merge"].artifact.path.parent
    (size,) = [each["bytes"] for each in found if each["stage"] == "merge"]
    assert size == sum(file.stat().st_size for file in artifacts.files_under(entry))
    lines = call("store", "ls", "evaluate-base", *home).stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["evaluate_base", key(made["evaluate_base"])[:12]]
    ]
    assert max(map(len, lines)) <= 80
    use = json.loads(call("store", "du", "--json", *home).stdout)
    assert use["total"] == sum(size for name, size in use.items() if name != "total")
    assert {f"store/{stage.name}" for stage in GRAPH} <= use.keys()
    shown = call("store", "show", key(made["score"])[:10], *home).stdout
    assert f"from trajectories: generate {key(made['generate'])[:12]}" in shown
    assert "payload/steps.parquet" in shown
    manifest = json.loads(call("store", "show", key(made["score"]), "--json", *home).stdout)
    assert manifest["manifest"] == made["score"].manifest
    (made["score"].artifact.path.parent / "manifest.json").write_text("{}")
    assert "damaged" in call("store", "show", key(made["score"]), *home).stdout


@pytest.mark.parametrize(("given", "said"), [("", "begins 9 results"), ("zz", "no result 'zz'")])
def test_a_key_names_one_result(
    given: str, said: str, tmp_path: Path, made: dict[str, Outcome]
) -> None:
    assert said in call("store", "show", given, "--home", str(tmp_path)).stderr
