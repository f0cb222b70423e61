"""`store gc` killed at one of its changes to the disk.

What is left is whole, and what is gone is made again to the same bytes.
"""

import signal
from pathlib import Path

import ledger
import pytest
from place import Place, link
from reference import NAMES, Reference

from lightreasoner.pipeline.graph import STAGES
from lightreasoner.pipeline.store import Store
from lightreasoner.storage import artifacts

pytestmark = pytest.mark.timeout(900)
MOST = 60
"""Changes; a whole `gc` of these results is more."""


@pytest.mark.parametrize(
    "number",
    [pytest.param(n, marks=pytest.mark.nightly if n else pytest.mark.slow) for n in range(8)],
)
def test_killed_at_a_change_of_the_disk(
    undisturbed: Reference, tmp_path: Path, number: int
) -> None:
    """The results of all stages are there; what select reads is in place, and so is needed."""
    stage, change = STAGES["select"], ledger.chance("gc", number).randint(1, MOST)
    with ledger.trial("SIGKILL at a change of the disk", "store gc") as trial:
        place = undisturbed.place(tmp_path / "place", stage)
        for name in NAMES:
            stored = Place(undisturbed.folder / name).home / "store" / name
            link(stored, place.home / "store" / name)
        wanted = undisturbed.stored(NAMES)
        assert place.stored() == wanted
        clean = ("store", "gc", "--keep-runs", "0", "--older-than", "0h")
        assert place.forked(*clean, FAULTS_KILL_AT=change).wait() in (0, -signal.SIGKILL)
        check_whole(place, wanted)
        place.forked(*clean).succeeds()
        check_whole(place, wanted)
        assert {key.partition("/")[0] for key in place.stored()} == {"prepare", "generate", "score"}
        assert place.unfinished() == []
        place.fork(stage).succeeds()
        assert artifacts.digest(place.out(stage)) == undisturbed.seen["select"].digest
        trial.repeated = 0


def check_whole(place: Place, wanted: dict[str, str]) -> None:
    """All that is left in the store is as it was made, to the last byte."""
    left = place.stored()
    assert left.items() <= wanted.items()
    for result in left:
        name, _, key = result.partition("/")
        assert Store(place.home).stored(STAGES[name], key) is not None
    assert {path.parent.name for path in (place.home / "store").glob("*/*/payload")} == {
        result.partition("/")[2] for result in left
    }
