"""Versions of the sample set: a git revision's, by its dvc.lock, from DVC's cache or remote.

A version is what a commit's dvc.lock says; `gto register samples` gives it a number, as a git tag
such as samples@v0.0.1 (docs/how-to/dvc.md).
"""

import functools
import json
import shutil
from pathlib import Path

from flows.dvc import dvcfile, program
from flows.dvc.program import DvcError
from lightreasoner import yaml12
from lightreasoner.errors import ArtifactError
from lightreasoner.storage import artifacts

SAMPLES = dvcfile.data("samples")


class VersionError(ArtifactError):
    """A revision is not there, or has no sample set."""


def directory(name: str, checkout: Path, scratch: Path) -> Path:
    """A directory as it is, else the sample set of a revision, put at `scratch`.

    Raises VersionError, which names what is missing.
    """
    if (checkout / name).is_dir():
        return checkout / name
    digest = digest_at(name, checkout)
    if not _from_cache(digest, checkout, scratch):
        _from_remote(name, digest, checkout, scratch)
    return scratch


def digest_at(revision: str, checkout: Path) -> str:
    """The sample set's digest in the revision's dvc.lock. Raises VersionError."""
    commit = _git(checkout, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if commit is None:
        raise VersionError(
            f"{revision!r} is neither a sample set's directory nor a git revision here; `git tag` "
            "lists the versions"
        )
    text = _git(checkout, "show", f"{commit.strip()}:./dvc.lock")
    if text is None:
        raise VersionError(
            f"revision {revision}: has no dvc.lock; name one whose results were committed "
            "(`git log dvc.lock`)"
        )
    try:
        stages = (yaml12.load(text) or {}).get("stages", {})
    except (ValueError, AttributeError):
        raise VersionError(
            f"revision {revision}: its dvc.lock is not DVC's; name another one"
        ) from None
    for stage in stages.values():
        for out in stage.get("outs", []):
            if out["path"] == SAMPLES:
                return str(out["md5"])
    raise VersionError(f"revision {revision}: its dvc.lock has no {SAMPLES}; name another one")


def _git(checkout: Path, *arguments: str) -> str | None:
    """As `dvcprogram.git`; a revision that begins with a dash is none."""
    return None if arguments[-1].startswith("-") else program.git(checkout, *arguments)


def _from_cache(digest: str, checkout: Path, out: Path) -> bool:
    """Whether DVC's cache has it, which is then at `out`.

    DVC 3 keeps a file at files/md5/<2 digits>/<30 digits>, a directory's listing likewise.
    """
    files = _cache(checkout) / "files" / "md5"
    try:
        listing = json.loads((files / digest[:2] / digest[2:]).read_text(encoding="utf-8"))
        for entry in listing:
            target = out / entry["relpath"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files / entry["md5"][:2] / entry["md5"][2:], target)
    except (OSError, ValueError, KeyError, TypeError):
        shutil.rmtree(out, ignore_errors=True)
        return False
    return artifacts.digest(out) == digest


@functools.cache
def _cache(checkout: Path) -> Path:
    """Where DVC's cache lies; DVC takes two seconds to say."""
    return Path(program.dvc(checkout, "cache", "dir").strip())


def _remote(checkout: Path) -> str:
    """The default remote's name; "" without one."""
    try:
        return program.dvc(checkout, "config", "core.remote").strip()
    except DvcError:
        return ""


def _from_remote(revision: str, digest: str, checkout: Path, out: Path) -> None:
    """Put the sample set from the default remote of today, which the revision may not know, at
    `out`. Raises VersionError.
    """
    shutil.rmtree(out, ignore_errors=True)
    missing = f"revision {revision}: its sample set {digest} is not in DVC's cache"
    remote = _remote(checkout)
    if not remote:
        raise VersionError(
            f"{missing}, and no remote is set; set that of whoever has it (`dvc remote add "
            "--default`) and `dvc pull`, or name a revision that was published here; made anew "
            "with another number of threads, it has another digest"
        )
    commit = str(program.git(checkout, "rev-parse", f"{revision}^{{commit}}")).strip()
    wanted = [".", SAMPLES, "--rev", commit, "--remote", remote, "--out", str(out)]
    try:
        program.dvc(checkout, "get", *wanted)
    except DvcError as error:
        raise VersionError(
            f"{missing}, nor can it be had from the remote {remote} ({error}); `dvc push` it where "
            "it was made, with its revision checked out"
        ) from error
