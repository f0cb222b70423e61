"""Removing what nobody needs any more from a store.

A result stays while something names it (`Needed`), while it was used lately, or while what stays
was made from it; so does half-done work that was written to lately. Each goes as a whole, by one
rename, so a kill at any moment leaves whole results. What was removed is computed anew, to the same
bytes, by whoever asks for it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lightreasoner.pipeline import contents
from lightreasoner.pipeline.contents import Entry
from lightreasoner.storage import artifacts, aside, in_use, places

LATELY, FEEDS = "used lately", "what another was made from"


@dataclass(frozen=True)
class Needed:
    """What stays: fingerprints and payloads' digests, with who needs them."""

    keys: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def add(self, who: str, keys: Iterable[str] = (), digests: Iterable[str] = ()) -> None:
        """Note what somebody needs; who needed it first is named."""
        for known, names in ((self.keys, keys), (self.digests, digests)):
            for name in names:
                known.setdefault(name, who)


@dataclass(frozen=True)
class Plan:
    """What goes, why the others stay, and what killed processes left beside their places."""

    goes: list[Entry]
    stays: dict[str, str]  # by path
    left: list[Path]

    def paths(self) -> list[Path]:
        """All that goes."""
        return [*(each.path for each in self.goes), *self.left]


def plan(home: Path, needed: Needed, before: float) -> Plan:
    """What may go of what was last used `before`, in seconds since 1970."""
    results, work = contents.results(home), contents.work(home)
    stored = {each.key for each in results if each.digest}
    stays = {}
    for entry in results:
        who = needed.keys.get(entry.key) or needed.digests.get(entry.digest or "")
        if who or entry.used >= before:
            stays[entry.path] = who or LATELY
    # What is stored needs no work any more: its process was killed before it could remove it.
    stays |= {each.path: LATELY for each in work if each.used >= before and each.key not in stored}
    _add_what_feeds(results, work, stays)
    goes = [each for each in (*results, *work) if each.path not in stays]
    left = [path for path in aside.below(home) if aside.remove_abandoned(path, dry_run=True)]
    return Plan(goes, {str(path): who for path, who in stays.items()}, left)


def _add_what_feeds(results: list[Entry], work: list[Entry], stays: dict[Path, str]) -> None:
    """Add the results that those which stay were made from, and so on."""
    by_digest: dict[str, list[Entry]] = {}
    for entry in results:
        by_digest.setdefault(entry.digest or "", []).append(entry)
    waiting = [each for each in (*results, *work) if each.path in stays]
    for entry in waiting:
        for digest in entry.inputs.values():
            more = [each for each in by_digest.get(digest, ()) if each.path not in stays]
            stays |= {each.path: FEEDS for each in more}
            waiting += more


def carry_out(home: Path, planned: Plan) -> None:
    """Remove what goes, and the locks of what is not there; for who is alone (in_use.py)."""
    for entry in planned.goes:
        remove(home, entry)
    for path in planned.left:
        aside.remove_abandoned(path)
    known = {each.key for each in (*contents.results(home), *contents.work(home))}
    for lock in (home / "store" / "locks").glob("*"):
        if lock.name not in known and lock.name != in_use.NAME:
            lock.unlink(missing_ok=True)


def remove(home: Path, entry: Entry) -> None:
    """Rename a result, or work, out of its place, then remove it. Raises ArtifactError."""
    try:
        with aside.beside(places.folder(home, "work") / entry.key) as bin_:
            entry.path.rename(bin_ / "old")
            artifacts.sync(entry.path.parent)
    except OSError as error:
        raise artifacts.unwritable(error, entry.path) from error


def counts(stays: Mapping[str, str]) -> dict[str, int]:
    """How many stay, by why."""
    found: dict[str, int] = {}
    for who in stays.values():
        found[who] = found.get(who, 0) + 1
    return dict(sorted(found.items()))
