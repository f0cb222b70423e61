"""The same stage several times at once: computed once, and each run ends well."""

from pathlib import Path

import ledger
import pytest
from recovery import ends_as
from reference import NAMES, Reference

from lightreasoner.pipeline.graph import STAGES

pytestmark = pytest.mark.timeout(900)
CASES = [
    *[
        pytest.param(n, 2, marks=pytest.mark.slow if n == "score" else pytest.mark.nightly)
        for n in NAMES
    ],
    *[
        pytest.param(name, 10, marks=pytest.mark.nightly)
        for name in ("prepare", "generate", "merge")
    ],
]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_several_at_once(undisturbed: Reference, tmp_path: Path, name: str, number: int) -> None:
    """All want their result at the same place, too."""
    stage = STAGES[name]
    with ledger.trial(f"{number} at once", name) as trial:
        place = undisturbed.place(tmp_path / "place", stage)
        for program in [place.fork(stage) for _ in range(number)]:
            program.succeeds()
        ends_as(undisturbed, place, stage)
        trial.repeated = (place.pieces() - undisturbed.pieces(name)).total()
        assert trial.repeated == 0
        assert place.said().count(f"{stage.name}: computed in ") == 1
        assert place.said().count(f"{stage.name}: cached ") == number - 1
