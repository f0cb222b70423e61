"""Places: a result of the store is replaced, another file never."""

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lightreasoner.errors import ArtifactError
from lightreasoner.storage import artifacts, outputs
from lightreasoner.storage.artifacts import Artifact

HOME = Path("home")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")


def result(text: str) -> Artifact:
    """A payload of one file, as the store has it."""
    entry = HOME / "store" / "prepare" / text
    (entry / "payload").mkdir(parents=True)
    (entry / "payload" / "problems.jsonl").write_text(text, encoding="utf-8")
    made = artifacts.of(entry / "payload")
    (entry / "manifest.json").write_text(f'{{\n "digest": "{made.digest}"\n}}', encoding="utf-8")
    return made


def put(text: str, out: Path) -> None:
    outputs.put(result(text), out, HOME)


@pytest.mark.parametrize("out", [Path("a/b"), outputs.DATA / "problems"])
def test_a_result_is_replaced_by_the_next(out: Path) -> None:
    put("one", out)
    put("two", out)
    assert (out / "problems.jsonl").read_text(encoding="utf-8") == "two"


def test_an_empty_directory_is_free() -> None:
    Path("a/b").mkdir(parents=True)
    outputs.check(Path("a"), HOME)
    outputs.check_new(Path("a"))


@pytest.mark.parametrize("name", ["thesis.txt", "b/c/thesis.txt", ".git/config"])
@pytest.mark.parametrize("out", [Path("a"), outputs.DATA / "problems"])
def test_a_file_beside_a_result_is_kept(out: Path, name: str) -> None:
    put("one", out)
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).touch()
    with pytest.raises(ArtifactError, match="holds other files") as caught:
        put("two", out)
    assert name in str(caught.value)
    assert (out / name).exists()


def test_what_the_store_does_not_have_is_kept_unless_told_otherwise() -> None:
    """A folder of the user's own problems; a result that was edited since, or is gone there."""
    Path("a").mkdir()
    Path("a/problems.jsonl").touch()
    put("one", Path("b"))
    Path("b/problems.jsonl").unlink()  # else the store's is edited, too
    Path("b/problems.jsonl").write_text("mine", encoding="utf-8")
    put("two", Path("c"))
    shutil.rmtree(HOME / "store" / "prepare" / "two")
    new = result("three")
    for out in (Path("a"), Path("b"), Path("c")):
        with pytest.raises(ArtifactError, match=r"holds other files \(problems.jsonl\); .* --over"):
            outputs.put(new, out, HOME)
        outputs.put(new, out, HOME, overwrite=True)
        assert (out / "problems.jsonl").read_text(encoding="utf-8") == "three"


@pytest.mark.parametrize("overwrite", [False, True])
def test_links_are_files_and_a_file_is_no_place(overwrite: bool) -> None:
    Path("other").mkdir()
    Path("a").mkdir()
    Path("a/b").symlink_to(Path("other").absolute(), target_is_directory=True)
    Path("gone").symlink_to("nowhere")
    with pytest.raises(ArtifactError, match=r"a: holds other files \(b\)"):
        outputs.check(Path("a"), HOME)
    with pytest.raises(ArtifactError, match="gone: is a file; choose a new directory"):
        outputs.check(Path("gone"), HOME, overwrite)


def test_many_files_are_not_all_named() -> None:
    Path("a").mkdir()
    for number in range(5):
        Path("a", f"{number}.txt").touch()
    for check in (outputs.check_new, lambda out: outputs.check(out, HOME)):
        with pytest.raises(ArtifactError, match=r"a: holds other files \((\d.txt, ){3}\.\.\.\)"):
            check(Path("a"))


@pytest.mark.parametrize("out", [".", "..", "home"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_current_folder_and_home_stay(out: str, overwrite: bool) -> None:
    with pytest.raises(ArtifactError, match="holds the current folder, or home; choose"):
        outputs.check(Path(out), HOME, overwrite)


def test_what_is_damaged_in_the_store_is_passed_over() -> None:
    """A manifest that a disk has spoilt is another entry's; the next run makes it again."""
    put("one", Path("a"))
    for name in ("aaa", "zzz"):
        (HOME / "store" / "prepare" / name).mkdir()
    (HOME / "store" / "prepare" / "aaa" / "manifest.json").write_bytes(b"\xff\xfe")
    (HOME / "store" / "prepare" / "zzz" / "manifest.json").mkdir()
    put("two", Path("a"))
    assert Path("a/problems.jsonl").read_text(encoding="utf-8") == "two"
    Path("b").mkdir()
    Path("b/problems.jsonl").touch()
    with pytest.raises(ArtifactError, match="holds other files"):
        put("three", Path("b"))


@pytest.mark.timeout(30)
def test_a_manifest_that_is_a_fifo_is_passed_over() -> None:
    """Opening one for reading waits for a writer."""
    put("one", Path("a"))
    (HOME / "store" / "prepare" / "aaa").mkdir()
    os.mkfifo(HOME / "store" / "prepare" / "aaa" / "manifest.json")
    put("two", Path("a"))


@pytest.mark.parametrize("name", ["a", "link/a"])
def test_who_looks_at_a_place_waits_for_who_replaces_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment nothing is there; what comes next is a result, not somebody's files."""
    put("one", Path("a"))
    Path("link").symlink_to(".")
    two, is_away, looks = result("two"), threading.Event(), list[bool]()

    def slowly(new: Path, out: Path, old: Path) -> None:
        out.rename(old)
        is_away.set()
        time.sleep(0.5)
        new.rename(out)

    monkeypatch.setattr(artifacts, "swap", slowly)
    monkeypatch.setattr(outputs, "check_new", lambda out, _: looks.append(out.exists()))
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(outputs.put, two, Path("a"), HOME)
        assert is_away.wait(5)
        outputs.check(Path(name), HOME)
        other.result()
    assert looks == []
    assert Path("a/problems.jsonl").read_text(encoding="utf-8") == "two"


def test_a_link_to_nowhere_is_a_file() -> None:
    Path("a").mkdir()
    Path("a/b").symlink_to("nowhere")
    with pytest.raises(ArtifactError, match=r"a: holds other files \(b\)"):
        outputs.check(Path("a"), HOME)


@pytest.mark.parametrize("out", ["store", "store/prepare/one", "mlflow", "prefect/ui", "runs"])
def test_what_home_keeps_stays(out: str) -> None:
    put("one", Path("a"))
    for overwrite in (False, True):
        with pytest.raises(ArtifactError, match=f"home/{out}: is kept by home; choose a new"):
            outputs.check(HOME / out, HOME, overwrite)


def test_a_file_is_replaced_if_it_is_an_earlier_result() -> None:
    """Of one line, of several, of one object over several lines; an empty file is free."""
    line = '{"gold": "4", "pred": "4", "more": [1]}'
    for text in ("", line, f"{line}\n", f"{line}\nnot read\n", line.replace(", ", ",\n")):
        Path("out").write_text(text, encoding="utf-8")
        outputs.check_file(Path("out"), ("gold", "pred"))
    Path("link").symlink_to("out")
    for new in ("link", "new", "folder/new"):
        outputs.check_file(Path(new), ("gold",))


@pytest.mark.parametrize(
    "text",
    [
        "thesis",
        '{"gold": "4"}\n',
        '["gold", "pred"]',
        "\n",
        "\x00",
        '{"gold": {"pred": 1}}',
        "[" * 9999,
    ],
)
def test_another_file_is_kept_unless_told_otherwise(text: str) -> None:
    Path("out").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match="out: is there, and no earlier result of this command"):
        outputs.check_file(Path("out"), ("gold", "pred"))
    outputs.check_file(Path("out"), ("gold", "pred"), overwrite=True)


def test_what_is_no_file_is_never_replaced() -> None:
    os.mkfifo("pipe")
    Path("gone").symlink_to("nowhere")
    for name in ("pipe", "/dev/null", "."):
        for overwrite in (False, True):
            with pytest.raises(ArtifactError, match="is a directory or a device; name a file"):
                outputs.check_file(Path(name), (), overwrite)
    with pytest.raises(ArtifactError, match="gone: is there"):
        outputs.check_file(Path("gone"), ())
