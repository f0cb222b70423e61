"""Prepare: draw the problems that the expert is to solve, and count how their answers were read."""

from typing import TYPE_CHECKING

from lightreasoner.data import problems, sources
from lightreasoner.data.reading import Reading, Tally
from lightreasoner.storage.artifacts import Inputs, Workspace

if TYPE_CHECKING:
    from lightreasoner.config import Prepare
    from lightreasoner.progress import Watcher


def write(inputs: Inputs, config: "Prepare", work: Workspace, watcher: "Watcher") -> None:
    """Write `problems.jsonl`. Raises ProblemsError for a source that cannot be read."""
    tally, reading = Tally(), Reading("prepare", config.columns, needs="")
    drawn = sources.draw_problems(
        config.source, config.problem_set, "train", config.n_problems, config.seed, tally, reading
    )
    problems.write_problems(drawn, work.out / "problems.jsonl")
    for how, count in tally.items():
        watcher.metric(f"gold_answers/{how}", count, 0)
    watcher.progress(len(drawn), len(drawn), "problems")
