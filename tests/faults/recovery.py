"""What must hold after any fault: the same command again ends as if there had been none."""

from ledger import Trial
from place import Place
from reference import Reference, look

from lightreasoner.pipeline.graph import Stage


def recovers(
    undisturbed: Reference,
    place: Place,
    stage: Stage,
    trial: Trial,
    again: bool = False,
    **more: object,
) -> None:
    """No process is left, the next run succeeds with the bytes of an undisturbed one, has made at
    most one shard again, and leaves nothing else behind.

    `again`: what was there was damaged, and all of it may be made again. `more` goes into the next
    run's environment.
    """
    assert place.is_left_alone(), place.processes()
    before, is_begun = place.pieces(), any((place.home / "work").glob("*/shards/*"))
    place.fork(stage, **more).succeeds()
    ends_as(undisturbed, place, stage)
    if again:
        return
    made, wanted = place.pieces(), undisturbed.pieces(stage.name)
    assert made.keys() == wanted.keys()
    trial.repeated = max((made - wanted).total(), int(is_begun and made != before))
    assert trial.repeated <= 1, made


def ends_as(undisturbed: Reference, place: Place, stage: Stage) -> None:
    """The stage's result and all that lies under home are those of an undisturbed run."""
    now, wanted = look(place, stage), undisturbed.seen[stage.name]
    assert now.digest == wanted.digest
    assert now.listing == wanted.listing, sorted({*now.listing} ^ {*wanted.listing})
    assert place.is_left_alone(), place.processes()
