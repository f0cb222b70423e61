"""Places: an earlier result is replaced, another's file never."""

from pathlib import Path

import pytest

from lightreasoner.errors import ArtifactError
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.storage import artifacts, outputs
from lightreasoner.storage.artifacts import Artifact


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")


def result(text: str, name: str = "problems.jsonl") -> Artifact:
    """A payload of one file."""
    path = Path("payloads", text)
    path.mkdir(parents=True)
    (path / name).write_text(text, encoding="utf-8")
    return artifacts.of(path)


def check(out: Path, output: str = "problems") -> None:
    outputs.check(out, output, Path("home"))


def put(text: str, out: Path) -> None:
    outputs.put(result(text), "problems", out, Path("home"))


@pytest.mark.parametrize("out", [Path("a/b"), outputs.DATA / "problems"])
def test_a_result_is_replaced_by_the_next(out: Path) -> None:
    put("one", out)
    put("two", out)
    assert (out / "problems.jsonl").read_text(encoding="utf-8") == "two"


def test_an_empty_directory_is_free() -> None:
    Path("a/b").mkdir(parents=True)
    check(Path("a"))
    outputs.check_empty(Path("a"))


@pytest.mark.parametrize("name", ["thesis.txt", "b/c/thesis.txt", ".git/config"])
@pytest.mark.parametrize("out", [Path("a"), outputs.DATA / "problems"])
def test_a_file_beside_a_result_is_named(out: Path, name: str) -> None:
    put("one", out)
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).touch()
    with pytest.raises(ArtifactError) as caught:
        put("two", out)
    assert str(caught.value) == f"{out}: holds other files ({name}); choose a new directory"
    assert (out / name).exists()


def test_a_file_of_a_results_name_is_not_one() -> None:
    """A folder of the user's own problems, or a result that was edited since."""
    Path("a").mkdir()
    Path("a/problems.jsonl").touch()
    put("one", Path("b"))
    Path("b/problems.jsonl").unlink()  # else the store's is edited, too
    Path("b/problems.jsonl").write_text("mine", encoding="utf-8")
    for out in (Path("a"), Path("b")):
        with pytest.raises(ArtifactError, match=r"holds other files \(problems.jsonl\)"):
            check(out)


def test_links_are_files() -> None:
    Path("home").mkdir()
    Path("a").mkdir()
    Path("a/b").symlink_to(Path("home").absolute(), target_is_directory=True)
    Path("gone").symlink_to("nowhere")
    with pytest.raises(ArtifactError, match=r"a: holds other files \(b\)"):
        check(Path("a"))
    with pytest.raises(ArtifactError, match="gone: is a file; choose a new directory"):
        check(Path("gone"))


def test_many_files_are_not_all_named() -> None:
    Path("a").mkdir()
    for number in range(5):
        Path("a", f"{number}.txt").touch()
    with pytest.raises(ArtifactError, match=r"a: holds other files \((\d.txt, ){3}\.\.\.\)"):
        check(Path("a"))
    with pytest.raises(ArtifactError, match="holds other files"):
        outputs.check_empty(Path("a"))


@pytest.mark.parametrize("out", [".", ".."])
def test_the_current_folder_stays(out: str) -> None:
    with pytest.raises(ArtifactError, match="is the current folder, or holds it"):
        check(Path(out))


def test_every_stages_files_are_known() -> None:
    assert outputs.FILES.keys() == {stage.output for stage in STAGES.values()}
