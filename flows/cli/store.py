"""`lightreasoner store gc`: what all tools still need stays in the store, the rest goes."""

import contextlib
import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import environment
from flows.dvc import program
from flows.results import records
from flows.servers import local
from lightreasoner import untrusted
from lightreasoner.cli.output import print_json
from lightreasoner.errors import ArtifactError, ConfigError
from lightreasoner.formatting import byte_count
from lightreasoner.storage import artifacts, digests, in_use
from lightreasoner.untrusted import printable_line, shown

SECONDS = {"h": 3600, "d": 86400, "w": 604800}
DIGEST = re.compile(r"md5: ([0-9a-f]{32}(?:\.dir)?)\n")
AGE = re.compile("([0-9]{1,6})([hdw])")


def gc(
    keep_runs: Annotated[
        int, typer.Option(min=0, metavar="N", help="Keep what the newest N runs came to.")
    ] = 10,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Keep what was used in this time: 12h, 30d, 8w.")
    ] = "30d",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")] = False,
) -> None:
    """Remove results that nobody needs any more.

    What stays: results of the newest runs, of registered versions, of the dvc.lock here, of folders
    under .lightreasoner/data, what was used lately, and what any of these was made from. Half-done
    work, Prefect's runs that have ended and MLflow's deleted ones go once they are as old. Waits
    for nobody: while a run uses the store it refuses. What was removed is computed anew if asked
    for.

    Example: lightreasoner store gc --keep-runs 5 --older-than 30d --dry-run
    """
    before = time.time() - _age(older_than)
    home = environment.make(environment.home())
    digests.keep(home)
    local.connect(home)
    local.check_prefect_database()
    if dry_run:
        found = _clean(home, keep_runs, before, dry_run)
    else:
        with in_use.alone(home):
            found = _clean(home, keep_runs, before, dry_run)
    if json_:
        print_json(found)
    else:
        typer.echo("\n".join(_lines(found)))


def _age(text: str) -> int:
    """Seconds. Raises ConfigError."""
    found = AGE.fullmatch(text)
    if found is None:
        raise ConfigError(
            [f"--older-than {shown(text)}: must be a number of hours, days or weeks: 12h, 30d, 8w"]
        )
    return int(found[1]) * SECONDS[found[2]]


def _clean(home: Path, keep_runs: int, before: float, dry_run: bool) -> dict[str, Any]:
    """Find what may go, and remove it unless `dry_run`; what became of it, as a tree."""
    from flows.servers import prefect_history
    from lightreasoner.pipeline import cleaning, contents
    from tasks.registry import needs
    from tasks.tracking import deleted, mlflow_runs

    local.look(home)
    uri = environment.database(home)
    versions = needs.of_versions({uri, mlflow_runs.registry()})
    known = records.newest_first(home)
    runs = [each for at, each in enumerate(known) if at < keep_runs or each.finished >= before]
    needed = cleaning.Needed()
    needed.add("registered", versions.keys, versions.digests)
    for run in runs:
        needed.add("a run", run.fingerprints.values(), run.digests.values())
    needed.add("dvc.lock", digests=_locked())
    needed.add("in place", digests=_in_place(home))
    planned = cleaning.plan(home, needed, before)
    in_mlflow = deleted.find(uri, before, versions.runs, versions.models)
    database = environment.prefect_database()
    own = database if isinstance(database, Path) else home / "none"  # others may share a server's
    in_prefect = prefect_history.ended(own, before, {each.prefect for each in runs})
    found: dict[str, Any] = {
        "dry_run": dry_run,
        "removed": [each.as_tree() for each in planned.goes],
        "unfinished": list(map(str, planned.left)),
        "flow_runs": in_prefect,
        "mlflow": {"runs": list(in_mlflow.runs), "models": list(in_mlflow.models)},
        "bytes": contents.freed([*planned.paths(), *in_mlflow.folders()]),
        "kept": cleaning.counts(planned.stays),
    }
    if not dry_run:
        cleaning.carry_out(home, planned)
        deleted.remove(uri, in_mlflow)
        if own.exists():
            prefect_history.remove(in_prefect)
        for file in (own, Path(uri.removeprefix("sqlite:///"))):
            prefect_history.shrink(file)
    return found


def _locked() -> set[str]:
    """All digests in the dvc.lock of this folder, of this code's checkout and its git worktrees.

    Raises ArtifactError for one that cannot be read: what it needs is not known.
    """
    said = program.git(environment.ROOT, "worktree", "list", "--porcelain") or ""
    trees = [line.partition(" ")[2] for line in said.splitlines() if line.startswith("worktree ")]
    found: set[str] = set()
    for folder in {Path.cwd(), environment.ROOT, *map(Path, trees)}:
        with contextlib.suppress(FileNotFoundError):
            found |= set(DIGEST.findall(untrusted.read_text(folder / "dvc.lock", ArtifactError)))
    return found


def _in_place(home: Path) -> set[str]:
    """Digests of the folders that commands put results in, and replace by other results of the
    store alone."""
    from lightreasoner.pipeline import contents

    found = set()
    for path in contents.placed(home):
        with contextlib.suppress(ArtifactError):  # what cannot be read is no result
            found.add(artifacts.digest(path))
    return found


def _lines(found: dict[str, Any]) -> list[str]:
    """A line for each thing that goes, then what is freed and what stays."""
    lines = [
        f"{each['stage']}  {each['key'][:12]}  {byte_count(each['bytes'])}, "
        f"last used {time.strftime('%Y-%m-%d', time.localtime(each['used']))}"
        for each in found["removed"]
    ]
    lines += [f"left by a killed process: {path}" for path in found["unfinished"]]
    lines += [f"MLflow: {kind[:-1]} {id_}" for kind, ids in found["mlflow"].items() for id_ in ids]
    lines += [f"Prefect: run {id_}" for id_ in found["flow_runs"]]
    how = "would be removed" if found["dry_run"] else "removed"
    lines.append(f"{len(lines)} {how}, {byte_count(found['bytes'])} of the disk")
    kept = ", ".join(f"{count} {who}" for who, count in found["kept"].items())
    lines.append(f"stays: {kept or 'nothing'}")
    return list(map(printable_line, lines))
