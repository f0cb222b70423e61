"""Generate: the expert writes one trajectory a problem (paper, section 2.3.1 and eq. 36)."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from lightreasoner import models, problems, prompts, tables
from lightreasoner.decode import decode

if TYPE_CHECKING:
    from lightreasoner.config import Compute, Generate
    from lightreasoner.progress import Watcher


def write_trajectories(
    expert_dir: Path,
    problems_dir: Path,
    config: "Generate",
    compute: "Compute",
    out: Path,
    watcher: "Watcher",
) -> None:
    """Write `trajectories.parquet`: one row a problem, in the problems' order.

    Raises ProblemsError for a prompt that leaves no room in the expert's context.
    """
    read = problems.read(problems_dir / "problems.jsonl")
    tokenizer = models.load_tokenizer(expert_dir)
    prompt_ids = prompts.encode_all(
        read,
        config.style,
        tokenizer,
        config.max_new_tokens,
        models.context_length(expert_dir),
        "generate.max_new_tokens",
    )
    expert = models.load_model(expert_dir, compute.device, compute.dtype)
    completions = decode(
        expert,
        prompt_ids,
        models.stop_ids(expert_dir, tokenizer),
        config.max_new_tokens,
        config.temperature,
        config.seed,
        compute.batch_size,
        lambda done, total: watcher.progress(done, total, "problems"),
    )
    frame = pd.DataFrame(
        {
            "problem_id": [problem.id for problem in read],
            "prompt_ids": prompt_ids,
            "completion_ids": [completion.ids for completion in completions],
            "finish_reason": [completion.finish_reason for completion in completions],
        }
    )
    tables.write(frame, tables.TRAJECTORIES, out / "trajectories.parquet")
