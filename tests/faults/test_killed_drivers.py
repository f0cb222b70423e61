"""`run`, `compare` and `dvc repro` ended while a stage is at work, one stage after the other.

Each next run goes on from there; the last one is left alone, and all is as if none had been ended.
"""

import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path

import dvc_checkout
import ledger
import pytest
from place import CONSOLE, Place
from reference import Reference

from lightreasoner.pipeline.graph import GRAPH

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]
LONG = ("generate", "score", "finetune", "merge", "evaluate_base", "evaluate", "report")
COMPARED = ("generate", "score", "finetune", "merge", "evaluate")
"""Of `compare`, which grades the base first and writes no report."""

KILL = ("SIGKILL", signal.SIGKILL, False)
KILL_ALL = ("SIGKILL of all", signal.SIGKILL, True)
ENDS = [KILL, KILL_ALL, KILL, ("SIGTERM", signal.SIGTERM, False), ("Ctrl-C", signal.SIGINT, True)]
COMPARE = ("compare", "--methods", "lightreasoner,gold")
KNOWN = {
    "accelerator.lock", "compare", "data", "digests.json", "dvc", "latest", "latest.lock", "logs",
    "mlflow", "prefect", "prefect-login", "rates.json", "runs", "store", "work",
}  # fmt: skip
"""What may lie under home, whatever happened."""


def ended_again_and_again(
    undisturbed: Reference,
    place: Place,
    driver: str,
    kills: int,
    *command: str,
    among: Sequence[str] = LONG,
    **more: object,
) -> None:
    """End the command in stage after stage, then let it succeed."""
    chance = ledger.chance(driver, place.folder.parent.name)
    stages = sorted(chance.sample(among, kills), key=[stage.name for stage in GRAPH].index)
    ends = chance.sample(ENDS, kills)
    with contextlib.ExitStack() as trials:
        for name, (fault, number, group) in zip(stages, ends, strict=True):
            if f"{name}/{undisturbed.key(name)}" in place.stored():
                continue  # the end before this one came late, when this stage had been made, too
            trial = trials.enter_context(ledger.trial(fault, f"{driver}: {name}"))
            said = place.said()
            program = place.start(*command, **more)
            # What the one before was at may lie there: before its first word it is not at work, and
            # Python, which is starting, says much at a Ctrl-C.
            while place.said() == said and program.wait(0.02) is None:
                pass
            assert place.is_at_work(program, undisturbed.key(name)), place.said()
            program.wait(chance.uniform(0, undisturbed.seen[name].seconds))
            begun = any((place.home / "work").glob(f"{undisturbed.key(name)}/shards/*"))
            program.send(number, group)
            assert program.wait(60) is not None
            assert place.is_left_alone(90), (fault, name, place.processes())
            trial.repeated = int(begun)
        place.start(*command, **more).succeeds()
        assert place.is_left_alone(), place.processes()
        assert "Traceback" not in place.said(), place.said()
        assert undisturbed.stored(among).items() <= place.stored().items()
        assert [*(place.home / "work").iterdir()] == []
        assert {path.name for path in place.home.iterdir()} <= KNOWN
        assert place.unfinished() == []
        made = place.pieces()
        twice = {name: number for name, number in made.items() if number > 1}
        assert sum(twice.values()) - len(twice) <= kills, twice


@pytest.mark.parametrize("chain", range(2))
def test_run(undisturbed: Reference, tmp_path: Path, chain: int) -> None:
    place = Place(tmp_path / "place").make(undisturbed.params)
    ended_again_and_again(undisturbed, place, "run", 3, *CONSOLE, "run")
    assert (place.home / "latest" / "report.json").is_file()


def test_compare(undisturbed: Reference, tmp_path: Path) -> None:
    place = Place(tmp_path / "place").make(undisturbed.params)
    ended_again_and_again(undisturbed, place, "compare", 2, *CONSOLE, *COMPARE, among=COMPARED)
    assert (place.home / "compare" / "compare.json").is_file()


@pytest.mark.skipif(not dvc_checkout.DVC.is_file(), reason="needs .venv/bin/dvc")
def test_dvc_repro(undisturbed: Reference, tmp_path: Path) -> None:
    checkout = dvc_checkout.make(tmp_path / "place", undisturbed.params)
    environment = dvc_checkout.environment(checkout)
    own = {name: environment[name] for name in ("DVC_SITE_CACHE_DIR", *dvc_checkout.SAME)}
    place = Place(checkout)
    command = (str(dvc_checkout.DVC), "repro")
    ended_again_and_again(undisturbed, place, "dvc repro", 3, *command, **own)
    assert dvc_checkout.dvc(checkout, "status") == "Data and pipelines are up to date.\n"
