"""Versions of the sample set: a git revision's, as `dvc get` takes it from DVC's cache or remote.

A version is what a commit's dvc.lock says; `gto register samples` gives it a number, as a git tag
such as samples@v0.0.1 (docs/how-to/dvc.md).
"""

import contextlib
import functools
from pathlib import Path

from flows.dvc import dvcfile, program
from flows.dvc.program import DvcError
from lightreasoner.errors import ArtifactError

SAMPLES = dvcfile.data("samples")


class VersionError(ArtifactError):
    """A revision is not there, or its sample set cannot be fetched."""


def directory(name: str, checkout: Path, scratch: Path) -> Path:
    """A directory as it is, else the sample set of a revision, put below `scratch`.

    Raises VersionError, which names what is missing, and DvcError where DVC is not there.
    """
    if (checkout / name).is_dir():
        return checkout / name
    named = [] if name.startswith("-") else [f"{name}^{{commit}}"]  # else an option of git's
    commit = program.git(checkout, "rev-parse", "--verify", "--quiet", *named)
    if commit is None:
        raise VersionError(
            f"{name!r} is neither a sample set's directory nor a git revision here; `git tag` "
            "lists the versions"
        )
    wanted = ["get", ".", SAMPLES, "--rev", commit.strip(), "--force", "--out"]
    return _from_cache(wanted, checkout, scratch) or _from_remote(name, wanted, checkout, scratch)


def _from_cache(wanted: list[str], checkout: Path, scratch: Path) -> Path | None:
    """The sample set from DVC's cache; None if it is not there.

    The cache is given by its whole path, as DVC 3 misreads a relative one in a revision's settings,
    and as the remote, too: these settings take the place of those of the revision.
    """
    settings, out = scratch / "config", scratch / "cached"
    scratch.mkdir()
    cache = _cache(checkout)
    settings.write_text(
        f'[cache]\n    dir = "{cache}"\n[core]\n    remote = cache\n'
        f'[\'remote "cache"\']\n    url = "{cache}"\n',
        encoding="utf-8",
    )
    try:
        program.dvc(checkout, *wanted, str(out), "--config", str(settings))
    except DvcError:
        return None
    return out


@functools.cache
def _cache(checkout: Path) -> str:
    """Where DVC's cache lies; DVC takes two seconds to say."""
    return program.dvc(checkout, "cache", "dir").strip()


def _from_remote(revision: str, wanted: list[str], checkout: Path, scratch: Path) -> Path:
    """The sample set from the default remote of today, which the revision may not know.

    Raises VersionError.
    """
    missing = f"revision {revision}: its sample set is not in DVC's cache"
    remote, out = "", scratch / "fetched"
    with contextlib.suppress(DvcError):
        remote = program.dvc(checkout, "config", "core.remote").strip()
    if not remote:
        raise VersionError(
            f"{missing}, and no remote is set; name a revision whose results were committed (`git "
            "log dvc.lock`), or set the remote of whoever made it (`dvc remote add --default`)"
        )
    try:
        program.dvc(checkout, *wanted, str(out), "--remote", remote)
    except DvcError as error:
        raise VersionError(
            f"{missing}, nor can it be fetched from the remote {remote} ({error}); name a revision "
            "whose results were committed (`git log dvc.lock`), or `dvc push` it where it was made"
        ) from error
    return out
