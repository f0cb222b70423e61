"""A run, published to a real DVC, pushed to a remote, pulled elsewhere, and experimented with.

Everything runs as a user runs it: programs in a checkout of its own. Minutes.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import dvc_checkout
import pytest
from dvc_checkout import call, commit, dvc, git

from lightreasoner import config
from lightreasoner.config import Params

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not dvc_checkout.DVC.is_file(), reason="needs .venv/bin/dvc"),
]
CONSOLE = "from flows.cli.console import main; main()"
CLEAN = "Data and pipelines are up to date.\n"
GTO = dvc_checkout.ROOT / ".venv-dvc" / "bin" / "gto"


def lightreasoner(checkout: Path, *arguments: str) -> str:
    return call(checkout, sys.executable, "-c", CONSOLE, *arguments)


def stored(checkout: Path) -> set[Path]:
    return set((checkout / ".lightreasoner" / "store").rglob("manifest.json"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, tiny_params: Params) -> Path:
    """A checkout whose remote is set and in which a run with another beta has been published."""
    root = tmp_path_factory.mktemp("dvc")
    made = dvc_checkout.make(root / "checkout", tiny_params)
    dvc(made, "remote", "add", "--default", "backup", str(root / "remote"))
    commit(made, "remote")
    lightreasoner(made, "run", "--set", "select.beta=0.01")
    said = lightreasoner(made, "publish")
    assert "params.yaml: select.beta=0.01\n" in said
    return made


def test_a_published_run_leaves_nothing_to_do(checkout: Path) -> None:
    before = stored(checkout)
    assert dvc(checkout, "status") == CLEAN
    said = dvc(checkout, "repro")
    assert "Running stage" not in said
    assert said.count("didn't change, skipping") == 10
    assert stored(checkout) == before
    made = json.loads(
        (checkout / ".lightreasoner/data/registered/registered_model.json").read_text("utf-8")
    )
    assert (made["name"], made["version"]) == ("tiny", "1")
    assert "M params.yaml" in git(checkout, "status", "--porcelain")


def test_a_stage_that_runs_again_finds_the_version_that_was_registered(checkout: Path) -> None:
    said = dvc(checkout, "repro", "--single-item", "--force", "register")
    assert "register: tiny version 1 " in said
    assert dvc(checkout, "status") == CLEAN
    commit(checkout, "beta 0.01")


def test_versions_are_pushed_pulled_and_compared(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "tag", "--annotate", "--message", "first", "samples@v1.0.0")
    dvc(checkout, "exp", "run", "--set-param", "select.beta=0.02")
    commit(checkout, "beta 0.02")
    git(checkout, "tag", "--annotate", "--message", "second", "samples@v2.0.0")
    dvc(checkout, "push", "--all-tags")

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(checkout), str(clone))
    dvc(clone, "pull")
    assert dvc(clone, "status") == CLEAN
    assert "Running stage" not in dvc(clone, "repro")
    assert not (clone / ".lightreasoner" / "store").exists()

    of_tags = lightreasoner(clone, "samples", "diff", "samples@v1.0.0", "samples@v2.0.0")
    assert re.search(r"beta +0\.01 +0\.02", of_tags)
    data = ".lightreasoner/data/samples"
    with_directory = lightreasoner(clone, "samples", "diff", "samples@v1.0.0", data)
    assert with_directory.partition("\n")[2] == of_tags.partition("\n")[2]


def test_a_lock_from_elsewhere_whose_results_are_not_in_this_store(
    checkout: Path, tmp_path: Path
) -> None:
    """DVC goes by its lock and the files, the registry by the store."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(checkout), str(clone))
    dvc(clone, "pull")
    with pytest.raises(AssertionError) as error:
        dvc(clone, "repro", "--single-item", "--force", "register")
    assert "no result of prepare for these parameters, by this code; run `dvc repro -f` first" in (
        str(error.value)
    )
    assert "register: tiny version 1 " in dvc(clone, "repro", "--force")


def test_a_version_that_nobody_has(checkout: Path) -> None:
    """The remote is of today: the revision before it was set knows none."""
    remote, away = checkout.parent / "remote", checkout.parent / "away"
    remote.rename(away)
    cache = checkout / ".lightreasoner" / "dvc" / "cache"
    cache.rename(cache.with_name("kept"))
    try:
        with pytest.raises(AssertionError) as error:
            lightreasoner(checkout, "samples", "diff", "samples@v1.0.0", "samples@v1.0.0")
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        cache.with_name("kept").rename(cache)
        away.rename(remote)
    assert "error: revision samples@v1.0.0: its sample set " in str(error.value)
    assert "is not in DVC's cache, nor can it be fetched from the remote backup (" in str(
        error.value
    )


def test_gto_gives_the_next_version(checkout: Path) -> None:
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "no change")
    assert "samples@v2.0.1" in call(checkout, str(GTO), "register", "samples")
    assert "tiny" not in git(checkout, "tag")


def test_experiments_queue_metrics_and_plots(checkout: Path) -> None:
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "before")
    dvc(checkout, "exp", "run", "--queue", "--name", "later", "--set-param", "select.beta=0.03")
    dvc(checkout, "exp", "run", "--run-all")
    assert "later" in dvc(checkout, "exp", "list", "--name-only")
    params = json.loads(dvc(checkout, "params", "diff", "HEAD", "later", "--json"))
    assert params["params.yaml"]["select.beta"]["new"] == 0.03
    metrics = json.loads(dvc(checkout, "metrics", "show", "--json"))
    (shown,) = next(iter(metrics.values()))["data"].values()
    assert set(shown["data"]) == {"small", "samples"}
    assert "samples.selected" in dvc(checkout, "metrics", "diff", "HEAD", "later", "--all")
    dvc(checkout, "plots", "diff", "HEAD", "later")
    page = (checkout / "dvc_plots" / "index.html").read_text(encoding="utf-8")
    for curve in ("curve", "validation"):
        assert f"vegaEmbed('#_lightreasoner_data_adapter_{curve}_csv'" in page
    assert page.count("<img") == 6
    assert 'src="http' not in page
    assert "dvc_plots" not in git(checkout, "status", "--porcelain")


def test_published_again_after_the_experiments(checkout: Path, tiny_params: Params) -> None:
    """The run's results are in place again, whatever lay there."""
    before = stored(checkout)
    lightreasoner(checkout, "publish")
    assert dvc(checkout, "status") == CLEAN
    assert stored(checkout) == before
    now = config.load(checkout / "params.yaml")
    assert config.differences(now, tiny_params) == ["select.beta=0.01"]
