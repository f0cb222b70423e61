"""Results to and from a shared place: a directory here; S3 in tests/flows/test_shared_stores.py."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stored_pipeline
from checkout import PATHS
from command_line import call, faults

from lightreasoner.errors import ArtifactError, ConfigError, DiskFullError
from lightreasoner.pipeline import remote
from lightreasoner.pipeline.graph import GRAPH, STAGES
from lightreasoner.pipeline.remote import Remote
from lightreasoner.pipeline.store import Store, write_manifest
from lightreasoner.presets import PRESETS
from lightreasoner.storage import artifacts

ALL = [stage.name for stage in GRAPH]
Told = list[tuple[str, bool]]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a finished run's results, a result of each stage."""
    home = tmp_path_factory.mktemp("full")
    stored_pipeline.write_keyed(home, PRESETS["microworld"])
    return home


@pytest.fixture
def place(full: Path, tmp_path: Path) -> Remote:
    """A place that has all of them."""
    made = Remote(str(tmp_path / "place"))
    assert all(is_there for _, is_there in made.push(full, ALL))
    return made


def entries(home: Path) -> dict[str, bytes]:
    """All files of a store's results."""
    store = home / "store"
    return {
        file.relative_to(store).as_posix(): file.read_bytes()
        for file in artifacts.files_under(store)
        if "locks" not in file.parts
    }


def pull(place: Remote, home: Path, *stages: str) -> Told:
    return list(place.pull(home, stages or ALL))


def test_what_comes_back_is_what_was_sent(full: Path, place: Remote, tmp_path: Path) -> None:
    told = pull(place, tmp_path)
    assert len(told) == len(ALL)
    assert all(is_there and "  fetched, " in line for line, is_there in told)
    assert entries(tmp_path) == entries(full)
    assert not list((tmp_path / "work").iterdir())
    payloads = [*(tmp_path / "store").glob("*/*/payload/*")]
    assert {file.stat().st_mode & 0o777 for file in payloads if file.is_file()} == {0o444}
    stored_pipeline_again = stored_pipeline.write_keyed(tmp_path, PRESETS["microworld"])
    assert all(outcome.cached for outcome in stored_pipeline_again.values())


def test_sent_and_fetched_again_nothing_moves(full: Path, place: Remote, tmp_path: Path) -> None:
    pull(place, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in Path(place.root).rglob("*")}
    for told in (list(place.push(full, ALL)), pull(place, tmp_path)):
        assert [line.partition("  ")[2] for line, _ in told] == ["is there"] * len(ALL)
        assert all(is_there for _, is_there in told)
    assert {path: path.stat().st_mtime_ns for path in Path(place.root).rglob("*")} == before


def test_only_the_named_stages(full: Path, tmp_path: Path) -> None:
    place = Remote(str(tmp_path / "place"))
    (line,) = [line for line, _ in place.push(full, ["evaluate"])]
    assert line.startswith("evaluate ")
    assert pull(place, tmp_path / "home", "report") == []
    assert len(pull(place, tmp_path / "home")) == 1


def test_a_push_that_was_cut_short_goes_on(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file in turn is the last before the end; no manifest names what is not there."""
    place, put, left = Remote(str(tmp_path / "place")), Remote._put, [0]

    def some(self: Remote, file: Path, at: str) -> None:
        if not left[0]:
            half = file.read_bytes()[: file.stat().st_size // 2]
            Path(at).parent.mkdir(parents=True, exist_ok=True)
            Path(at).write_bytes(half)
            raise KeyboardInterrupt
        left[0] -= 1
        put(self, file, at)

    monkeypatch.setattr(Remote, "_put", some)
    for _ in range(40):
        try:
            told = list(place.push(full, ["finetune", "evaluate"]))
            break
        except KeyboardInterrupt:
            fetched = pull(place, tmp_path / "home", "finetune", "evaluate")
            assert all(is_there or "damaged there" in line for line, is_there in fetched)
            left[0] = 1
    else:
        pytest.fail("it never ended")
    assert all(is_there for _, is_there in told)
    assert all(is_there for _, is_there in pull(place, tmp_path / "home"))


def test_a_pull_that_was_killed_goes_on(full: Path, place: Remote, tmp_path: Path) -> None:
    """By kill -9 while it fetches: what came before is not fetched again, and no entry is half."""
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from lightreasoner.pipeline.remote import Remote\n"
        "get, left = Remote._get, [1]\n"
        "def some(self, place, file):\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    left[0] -= 1\n"
        "    return get(self, place, file)\n"
        "Remote._get = some\n"
        "list(Remote(sys.argv[1]).pull(Path(sys.argv[2]), ['report']))\n"
    )
    words = [sys.executable, "-c", code, place.url, str(tmp_path / "home")]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": PATHS})
    assert done.returncode == -9
    assert not list((tmp_path / "home" / "store").glob("report/*"))
    (kept,) = (tmp_path / "home" / "work").glob("*/pulled/*")
    ((line, is_there),) = pull(place, tmp_path / "home", "report")
    assert is_there
    sizes = {file.name: file.stat().st_size for file in Path(place.root, "files").iterdir()}
    key = line.split()[1]
    manifest = json.loads((full / "store" / "report" / key / "manifest.json").read_text("utf-8"))
    wanted = {*manifest["sha256"].values(), manifest["curves"]} - {kept.name}
    assert line.endswith(f"fetched, {sum(sizes[each] for each in wanted):,} bytes")


def test_damage_here_is_not_sent(full: Path, tmp_path: Path) -> None:
    shutil.copytree(full / "store", tmp_path / "home" / "store")
    (payload,) = (tmp_path / "home" / "store").glob("select/*/payload")
    (payload / "key.txt").write_text("other", encoding="utf-8")
    place = Remote(str(tmp_path / "place"))
    ((line, is_there),) = place.push(tmp_path / "home", ["select"])
    assert not is_there
    assert line.endswith("is damaged here, and not sent; run its stage again")
    assert not Path(place.root).exists()


def test_what_is_gone_there_is_sent_again(full: Path, place: Remote, tmp_path: Path) -> None:
    (mark,) = Path(place.root, "entries", "select").iterdir()
    remove_file(Path(place.root), mark)
    ((line, is_there),) = place.push(full, ["select"])
    assert is_there
    assert line.endswith("sent, 32 bytes")
    assert pull(place, tmp_path / "home", "select")[0][1]


def test_damage_here_is_replaced_by_what_is_there(
    full: Path, place: Remote, tmp_path: Path
) -> None:
    pull(place, tmp_path, "select")
    (entry,) = (tmp_path / "store" / "select").iterdir()
    (entry / "payload" / "key.txt").unlink()
    ((line, is_there),) = pull(place, tmp_path, "select")
    assert is_there
    assert "fetched" in line
    assert Store(tmp_path).stored(STAGES["select"], entry.name)


def change_file(place: Path, mark: Path) -> str:
    """One byte of a payload."""
    sums = json.loads(mark.read_text(encoding="utf-8"))["sha256"]
    file = place / "files" / sums["key.txt"]
    file.write_bytes(b"x" * file.stat().st_size)
    return "key.txt is damaged there; remove files/"


def remove_file(place: Path, mark: Path) -> str:
    sums = json.loads(mark.read_text(encoding="utf-8"))["sha256"]
    (place / "files" / sums["key.txt"]).unlink()
    return " is gone; push it again from where it is"


def change_manifest(place: Path, mark: Path) -> str:
    mark.write_text(mark.read_text("utf-8").replace('"cpu"', '"cuda"'), encoding="utf-8")
    return "its manifest is damaged there (it was changed)"


def write_noise(place: Path, mark: Path) -> str:
    mark.write_bytes(b"\xff" * 100)
    return "its manifest is damaged there ('utf-8' codec"


def nest_deep(place: Path, mark: Path) -> str:
    mark.write_text("[" * 5000 + "]" * 5000, encoding="utf-8")
    return "its manifest is damaged there (nested over 100 deep)"


def make_huge(place: Path, mark: Path) -> str:
    os.truncate(mark, remote.MANIFEST_BYTES + 1)
    return "its manifest has 16,777,217 bytes; at most 16,777,216"


def of_another_stage(place: Path, mark: Path) -> str:
    (other,) = (place / "entries" / "score").iterdir()
    text = json.loads(other.read_text(encoding="utf-8"))
    return sealed(mark, {**text, "fingerprint": mark.stem}, "(of another stage)")


def sealed(mark: Path, manifest: dict[str, Any], said: str) -> str:
    """Whoever can write there can seal a manifest, too."""
    scratch = mark.parents[2] / "scratch"
    scratch.mkdir()
    (scratch / "metrics.jsonl").write_bytes(b"")
    del manifest["seal"]
    write_manifest(scratch, manifest)
    shutil.move(scratch / "manifest.json", mark)
    return said


def with_file(name: str, said: str) -> Callable[[Path, Path], str]:
    def spoil(place: Path, mark: Path) -> str:
        manifest = json.loads(mark.read_text(encoding="utf-8"))
        content = b"mine"
        sha256 = hashlib.sha256(content).hexdigest()
        (place / "files" / sha256).write_bytes(content)
        manifest["sha256"][name] = sha256
        return sealed(mark, manifest, said)

    return spoil


def of_another_sum(place: Path, mark: Path) -> str:
    manifest = json.loads(mark.read_text(encoding="utf-8"))
    manifest["sha256"]["key.txt"] = "../../entries/x"
    return sealed(mark, manifest, "'../../entries/x' is no sha256; remove it there")


def without_files(place: Path, mark: Path) -> str:
    manifest = json.loads(mark.read_text(encoding="utf-8"))
    return sealed(mark, {**manifest, "sha256": {}}, "its manifest names no files; an earlier")


@pytest.mark.parametrize(
    "spoil",
    [
        change_file,
        remove_file,
        change_manifest,
        write_noise,
        nest_deep,
        make_huge,
        of_another_stage,
        of_another_sum,
        without_files,
        with_file("../../../evil.json", "../../../evil.json is no file of a result; remove it"),
        with_file("/tmp/evil.json", "/tmp/evil.json is no file of a result"),
        with_file("a/./b.json", "a/./b.json is no file of a result"),
        with_file("evil.pkl", "evil.pkl is no file of a result"),
        with_file("evil.bin", "evil.bin is no file of a result"),
        with_file("e\x1b[2Jvil.json", "'e\\x1b[2Jvil.json' is no file of a result"),
        with_file(f"{'a' * 300}.json", "cannot be written (File name too long)"),
        with_file("key.txt/b.json", "cannot be written (File exists)"),
        with_file("more.json", "its payload is not what the manifest says; remove it there"),
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_what_a_stranger_changed_does_not_enter_the_store(
    spoil: Callable[[Path, Path], str], place: Remote, tmp_path: Path
) -> None:
    (mark,) = Path(place.root, "entries", "select").iterdir()
    said = spoil(Path(place.root), mark)
    ((line, is_there),) = pull(place, tmp_path / "home", "select")
    assert not is_there
    assert line.startswith(f"select {mark.stem}  is not taken: ")
    assert said in line
    assert not list((tmp_path / "home" / "store").glob("select/*"))
    assert not [*tmp_path.rglob("evil*")]
    assert not Path("/tmp/evil.json").exists()
    rest = [stage for stage in ALL if stage != "select"]
    assert all(is_there for _, is_there in pull(place, tmp_path / "home", *rest))


def test_other_names_there_are_passed_over(place: Remote, tmp_path: Path) -> None:
    folder = Path(place.root, "entries", "select")
    for name in ("README.json", "..json", "0" * 31 + ".json", "0" * 32 + ".json.part"):
        (folder / name).write_text("{}", encoding="utf-8")
    assert len(pull(place, tmp_path / "home", "select")) == 1


def test_a_pipe_there_is_not_waited_for(place: Remote, tmp_path: Path) -> None:
    (mark,) = Path(place.root, "entries", "select").iterdir()
    sums = json.loads(mark.read_text(encoding="utf-8"))["sha256"]
    file = Path(place.root, "files", sums["key.txt"])
    file.unlink()
    os.mkfifo(file)
    ((line, is_there),) = pull(place, tmp_path / "home", "select")
    assert not is_there
    assert "is no file; remove it there" in line


def test_more_than_the_disk_holds_is_refused_before_it_comes(
    place: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFullError, match=r"no space for .* bytes; make room$"):
        pull(place, tmp_path / "home")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sftp://u:secret@host/x", "REMOTE: holds a password; leave it to the settings of its"),
        ("simplecache::s3://k:secret@b", "REMOTE: holds a password; leave it to the settings of"),
        ("s3:/bucket/store", "REMOTE 's3:/bucket/store': must read SCHEME://..., or be a dir"),
        ("nosuch://x", "REMOTE 'nosuch://x': Protocol not known: nosuch; pip install -e"),
    ],
)
def test_a_place_that_cannot_be(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        Remote(url)
    assert str(error.value).startswith(said)
    assert "secret" not in str(error.value)


def test_a_place_that_is_away_is_one_line(full: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = Remote(str(tmp_path / "file" / "below"))
    with pytest.raises(ArtifactError, match=r"NotADirectoryError: .*mend it, and say this again$"):
        list(place.push(full, ALL))


def test_the_commands(full: Path, tmp_path: Path) -> None:
    place, home = str(tmp_path / "place"), str(tmp_path / "home")
    sent = call("store", "push", place, "evaluate-base", "report", "--home", str(full))
    assert (sent.exit_code, len(sent.stdout.splitlines())) == (0, 2), sent.output
    assert call("store", "pull", place, "--home", home).exit_code == 0
    assert "no results of these" in call("store", "pull", place, "select", "--home", home).stdout
    for mark in (tmp_path / "place").glob("entries/report/*"):
        mark.write_text("{}", encoding="utf-8")
    shutil.rmtree(tmp_path / "home")
    again = call("store", "pull", place, "--home", home)
    assert again.exit_code == 1
    assert "report" in again.stdout
    (fault,) = faults(call("store", "pull", place, "nix"))
    assert fault.startswith("no stage nix; there are prepare, ")
