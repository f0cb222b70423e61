"""`lightreasoner store`: what results there are, and those of a place that machines share.

flows/cli/store.py adds `gc`, which asks MLflow what is needed.
"""

import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from lightreasoner.cli.options import Home
from lightreasoner.cli.output import print_json
from lightreasoner.errors import ConfigError
from lightreasoner.formatting import NONE, byte_count, print_table, rich_table
from lightreasoner.pipeline.graph import STAGES
from lightreasoner.storage import outputs
from lightreasoner.storage.outputs import HOME
from lightreasoner.untrusted import listed, printable_line

Place = Annotated[
    str, typer.Argument(metavar="REMOTE", help="A directory, or a URL such as s3://bucket/store.")
]
Stages = Annotated[
    list[str] | None, typer.Argument(metavar="[STAGE]...", help="Only of these; all by default.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")]


def application(gc: Callable[..., None] | None = None) -> typer.Typer:
    """The group of commands; `gc` is one of them where it is given."""
    app = typer.Typer(
        help="See, clean and share results.", no_args_is_help=True, rich_markup_mode=None
    )
    commands: list[Callable[..., None]] = [ls, du, show, *([gc] if gc else []), push, pull]
    for command in commands:
        app.command()(command)
    return app


def ls(stages: Stages = None, json_: Json = False, home: Home = HOME) -> None:
    """List results, and half-done work.

    A line per result, the one last used first: its stage, its key, the size of its files, when it
    was last made or taken, the seconds that it took.

    Example: lightreasoner store ls merge
    """
    from lightreasoner.pipeline import contents

    chosen = _known(stages) if stages else None
    entries = contents.results(home) + ([] if chosen else contents.work(home))
    found = [each.as_tree() for each in entries if not chosen or each.stage in chosen]
    if json_:
        print_json(found)
        return
    headings = ("stage", "key", "size", "last used", "seconds")
    print_table(rich_table(headings, [_row(each) for each in found]))


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    seconds = NONE if found["seconds"] is None else f"{found['seconds']:,.1f}"
    size = byte_count(found["bytes"])
    return found["stage"], found["key"][:12], size, _day(found["used"]), seconds


def du(json_: Json = False, home: Home = HOME) -> None:
    """Show how much of the disk each part of home takes.

    A file that several parts share by hard link counts once, the store's first.

    Example: lightreasoner store du
    """
    from lightreasoner.pipeline import contents

    parts = contents.disk_use(home)
    if json_:
        print_json({**parts, "total": sum(parts.values())})
        return
    for name, size in [*parts.items(), ("total", sum(parts.values()))]:
        typer.echo(f"{byte_count(size):>10}  {printable_line(name)}")


def show(
    key: Annotated[str, typer.Argument(metavar="KEY", help="A result's key, or how it begins.")],
    json_: Json = False,
    home: Home = HOME,
) -> None:
    """Show what a result was made from, and its files.

    For every input the result of the store that is the same.

    Example: lightreasoner store show 1a2b3c
    """
    from lightreasoner.pipeline import contents

    entry = contents.named(home, key)
    known = {each.digest: f"{each.stage} {each.key[:12]}" for each in contents.results(home)}
    files = {
        file.relative_to(entry.path).as_posix(): file.lstat().st_size
        for file in sorted(entry.path.rglob("*"))
        if not file.is_dir()
    }
    if json_:
        print_json({**entry.as_tree(), "manifest": entry.manifest, "files": files})
        return
    state = "" if entry.digest else "  damaged: its stage makes it again"
    lines = [f"{entry.stage}  {entry.key}{state}", f"  {entry.path}"]
    lines.append(f"  {byte_count(entry.size)}, last used {_day(entry.used)}")
    if entry.digest:
        said = entry.manifest
        lines.append(
            f"  made {_day(said['started'])} in {said['seconds']:,.1f} s on {said['device']}"
        )
        lines.append(f"  digest {entry.digest}")
    lines += [f"  from {name}: {known.get(of, of)}" for name, of in entry.inputs.items()]
    lines += [f"  {name}: {value}" for name, value in entry.manifest.get("config", {}).items()]
    lines += [f"  {byte_count(size):>10}  {name}" for name, size in files.items()]
    typer.echo("\n".join(map(printable_line, lines)))


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def push(remote: Place, stages: Stages = None, home: Home = HOME) -> None:
    """Send results that REMOTE has not.

    A line per result. What is there stays as it is; what was cut short goes on. Exit status 1 if
    one could not be sent.

    Example: lightreasoner store push s3://bucket/store evaluate report
    """
    from lightreasoner.pipeline.remote import Remote

    _tell(Remote(remote).push(outputs.own(home), _known(stages)))


def pull(remote: Place, stages: Stages = None, home: Home = HOME) -> None:
    """Fetch results that the store has not.

    A line per result, which is taken when all its digests are right. Exit status 1 if one is not.

    Example: lightreasoner store pull s3://bucket/store evaluate report
    """
    from lightreasoner.pipeline.remote import Remote

    _tell(Remote(remote).pull(outputs.own(home), _known(stages)))


def _known(stages: list[str] | None) -> list[str]:
    """The stages by these names, with `-` or `_` in them. Raises ConfigError."""
    names = [name.replace("-", "_") for name in stages or STAGES]
    if unknown := [name for name in names if name not in STAGES]:
        raise ConfigError([f"no stage {listed(unknown)}; there are {', '.join(STAGES)}"])
    return names


def _tell(found: Iterator[tuple[str, bool]]) -> None:
    """Print a line for each result. Exit status 1 unless all are right."""
    results = []
    for line, is_there in found:
        typer.echo(printable_line(line))
        results.append(is_there)
    if not results:
        typer.echo("no results of these stages")
    if not all(results):
        raise typer.Exit(1)
