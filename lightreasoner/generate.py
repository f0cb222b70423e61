"""Generate: the expert writes trajectories, one a problem or several (section 2.3.1, eq. 36).

A shard is a batch of the decoder, so that a restart decodes each batch in the company that it had.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from lightreasoner import artifacts, models, problems, prompts, tables
from lightreasoner.artifacts import Artifact
from lightreasoner.decode import Completion, decode, draw_seed, fitting_batch_size
from lightreasoner.fingerprint import running_code
from lightreasoner.shards import Shards, shard_size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from lightreasoner.config import Compute, Generate
    from lightreasoner.progress import Watcher
    from lightreasoner.stages import Workspace


def write_trajectories(
    expert: Artifact,
    problems_dir: Path,
    config: "Generate",
    compute: "Compute",
    work: "Workspace",
    watcher: "Watcher",
) -> None:
    """Write `trajectories.parquet`: `config.n` rows a problem, in the problems' order.

    The first has the problem's id, the others `<id>#<k>`; each draws from its id's own seed.

    Raises ProblemsError for a prompt that leaves no room in the expert's context, ModelError for
    logits that are not finite.
    """
    read = problems.read(problems_dir / "problems.jsonl")
    tokenizer = models.load_tokenizer(expert.path)
    encoded = prompts.encode_all(
        read,
        config.style,
        tokenizer,
        config.max_new_tokens,
        models.context_length(expert.path),
        "generate.max_new_tokens",
    )
    ids = [problems.trajectory_id(problem.id, k) for problem in read for k in range(config.n)]
    prompt_ids = [prompt for prompt in encoded for _ in range(config.n)]
    stop_ids = models.stop_ids(expert.path, tokenizer)
    model = models.load_model(expert.path, compute.device, compute.dtype)
    longest = max(map(len, prompt_ids)) + config.max_new_tokens
    size = batch_size(model, len(ids), longest, compute)
    rate = _Rate(watcher)

    def piece(rows: range) -> pa.Table:
        chosen, asked = ids[rows.start : rows.stop], prompt_ids[rows.start : rows.stop]
        completions = decode(
            model,
            asked,
            stop_ids,
            config.max_new_tokens,
            config.temperature,
            [draw_seed(config.seed, id_) for id_ in chosen],
            len(rows),
        )
        rate.add(sum(len(completion.ids) for completion in completions), rows.stop)
        return _table(chosen, asked, completions)

    shards = Shards(work.scratch, tables.TRAJECTORIES, len(ids), size)
    trajectories = shards.compute(
        piece, lambda done: watcher.progress(done, len(ids), "trajectories")
    )
    provenance = {
        "expert": expert.digest,
        "tokenizer": artifacts.file_md5(expert.path / "tokenizer.json"),
        "stop_ids": sorted(stop_ids),
        **config.model_dump(mode="json"),
        "code": running_code("lightreasoner.generate"),
    }
    tables.write_pieces(
        trajectories, tables.TRAJECTORIES, work.out / "trajectories.parquet", provenance
    )


def batch_size(
    model: "PreTrainedModel", trajectories: int, longest: int, compute: "Compute"
) -> int:
    """How many trajectories, the longest of so many tokens, are a shard and decoded together."""
    flop = 2.0 * model.num_parameters() * longest
    return compute.batch_size or min(
        shard_size(trajectories, flop, compute.device), fitting_batch_size(model, longest)
    )


def _table(ids: list[str], prompt_ids: list[list[int]], completions: list[Completion]) -> pa.Table:
    return pa.table(
        [
            ids,
            prompt_ids,
            [completion.ids for completion in completions],
            [completion.finish_reason for completion in completions],
        ],
        schema=tables.TRAJECTORIES,
    )


class _Rate:
    """Tells new tokens a second, a point a shard."""

    def __init__(self, watcher: "Watcher"):
        self.watcher, self.since = watcher, time.perf_counter()

    def add(self, tokens: int, done: int) -> None:
        """`tokens` more were written; `done` trajectories are finished."""
        now = time.perf_counter()
        self.watcher.metric("tokens_per_second", tokens / (now - self.since), done)
        self.since = now
