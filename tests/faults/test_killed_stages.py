"""Single stages ended from outside; the same command again goes on and ends with the same bytes.

Some are killed at a moment, some just before one of their changes to the disk, which takes
microseconds that no moment would meet.
"""

import itertools
import signal
from pathlib import Path

import ledger
import pytest
from place import CONSOLE, PURE, Place, Program
from recovery import recovers
from reference import NAMES, Reference

from lightreasoner.cli.options import command_name
from lightreasoner.pipeline.graph import STAGES, Stage

QUICK = ("generate", "finetune")
pytestmark = pytest.mark.timeout(900)


def tries(nightly: int, slow: int = 1, quick: tuple[str, ...] = QUICK) -> list[object]:
    """(stage, number) for each try of every stage; the first ones of some are for CI, too."""
    return [
        pytest.param(name, number, marks=_mark(name in quick and number < slow))
        for name in NAMES
        for number in range(nightly)
    ]


def _mark(is_for_ci: bool) -> pytest.MarkDecorator:
    return pytest.mark.slow if is_for_ci else pytest.mark.nightly


def interrupted(
    undisturbed: Reference, folder: Path, stage: Stage, *names: object
) -> tuple[Place, Program]:
    """The stage at work in a new place, at a random moment; another try if it has ended by then."""
    moments = ledger.chance(*names, stage.name)
    for number in itertools.count():
        place = undisturbed.place(folder / str(number), stage)
        program = place.fork(stage)
        if program.wait(moments.uniform(0, undisturbed.seen[stage.name].seconds)) is None:
            return place, program
        assert number < 20
    raise AssertionError


@pytest.mark.parametrize(("name", "number"), tries(6))
def test_killed_at_a_moment(undisturbed: Reference, tmp_path: Path, name: str, number: int) -> None:
    """The process alone, or all that it has started as well."""
    stage = STAGES[name]
    with ledger.trial("SIGKILL at a moment", name) as trial:
        place, program = interrupted(undisturbed, tmp_path, stage, "moment", number)
        program.send(signal.SIGKILL, group=number % 2 == 1)
        program.wait()
        recovers(undisturbed, place, stage, trial)


@pytest.mark.parametrize(("name", "number"), tries(5, slow=2))
def test_killed_before_a_change_of_the_disk(
    undisturbed: Reference, tmp_path: Path, name: str, number: int
) -> None:
    stage, chance = STAGES[name], ledger.chance("change", name, number)
    with ledger.trial("SIGKILL at a change of the disk", name) as trial:
        for again in itertools.count():
            place = undisturbed.place(tmp_path / str(again), stage)
            change = chance.randint(1, undisturbed.seen[name].changes)
            if (status := place.fork(stage, FAULTS_KILL_AT=change).wait()) == -signal.SIGKILL:
                break
            # Whether digests of large files are kept depends on the second in which these were
            # written: it made fewer changes than the undisturbed one, and ended.
            assert status == 0, place.said()
            assert again < 20
        recovers(undisturbed, place, stage, trial)


ENDS = {
    "SIGTERM": (signal.SIGTERM, False, 143),
    "SIGHUP": (signal.SIGHUP, True, 129),
    "Ctrl-C": (signal.SIGINT, True, 130),
}


@pytest.mark.parametrize("fault", ENDS)
@pytest.mark.parametrize(("name", "number"), tries(1, quick=("finetune",)))
def test_told_to_end(
    undisturbed: Reference, tmp_path: Path, name: str, number: int, fault: str
) -> None:
    stage, (signalled, group, status) = STAGES[name], ENDS[fault]
    with ledger.trial(fault, name) as trial:
        place, program = interrupted(undisturbed, tmp_path, stage, fault, number)
        program.send(signalled, group)
        ended = program.wait(60)
        # A command that has not run a line of its own yet ends by the signal itself.
        is_early = (
            ended == -signalled and not place.said() and not place.has_begun(undisturbed.key(name))
        )
        assert is_early or ended in (status, 0), place.said()
        assert "Traceback" not in place.said(), place.said()
        recovers(undisturbed, place, stage, trial)


@pytest.mark.nightly
@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize(
    "command", [CONSOLE, PURE], ids=["lightreasoner", "python -m lightreasoner"]
)
def test_the_real_command_is_killed(
    undisturbed: Reference, tmp_path: Path, command: list[str], number: int
) -> None:
    """Nothing forked: while it loads, or while it works."""
    chance = ledger.chance("real", *command, number)
    name = chance.choice(NAMES)
    stage = STAGES[name]
    with ledger.trial("SIGKILL of the real command", name) as trial:
        place = undisturbed.place(tmp_path / "place", stage)
        program = place.start(*command, command_name(stage))
        if number % 2:
            program.wait(chance.uniform(0, 1))
        elif place.is_at_work(program, undisturbed.key(name)):
            program.wait(chance.uniform(0, undisturbed.seen[name].seconds / 2))
        program.send(signal.SIGKILL)
        if program.wait() == 0:
            pytest.skip("it had ended before it was killed")
        recovers(undisturbed, place, stage, trial)
