"""Generate: the expert writes trajectories, one per problem or several (section 2.3.1, eq. 36).

A shard is decoded by itself, so that a restart decodes each prompt in the company that it had.
"""

import statistics
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from lightreasoner.data import problems
from lightreasoner.inference import loading, prompts
from lightreasoner.inference.batching import shard_prompts
from lightreasoner.inference.decode import decode
from lightreasoner.inference.drawing import draw_seed
from lightreasoner.inference.engine import Completion
from lightreasoner.inference.worker_pool import crew
from lightreasoner.serving import vllm_engine
from lightreasoner.serving.identity import identity
from lightreasoner.serving.vllm_endpoint import Asked
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Inputs, Workspace
from lightreasoner.storage.fingerprint import running_code
from lightreasoner.storage.shards import Piece, Shards

if TYPE_CHECKING:
    from lightreasoner.config import Compute, Generate
    from lightreasoner.progress import Watcher


def write(inputs: Inputs, config: "Generate", work: Workspace, watcher: "Watcher") -> None:
    """Write `trajectories.parquet`: `config.n` rows per problem, in the problems' order.

    The first has the problem's id, the others `<id>#<k>`; each draws from its id's own seed.

    Raises ProblemsError for a prompt that leaves no room in the expert's context, ModelError for
    logits that are not finite, EndpointError for what goes wrong with vLLM.
    """
    expert, compute = inputs["expert"], work.compute
    read = problems.read_problems(inputs["problems"].path / "problems.jsonl")
    tokenizer = loading.load_tokenizer(expert.path)
    encoded = prompts.encode_all(
        read,
        config.style,
        tokenizer,
        config.max_new_tokens,
        loading.context_length(expert.path),
        "generate.max_new_tokens",
    )
    ids = [problems.trajectory_id(problem.id, k) for problem in read for k in range(config.n)]
    prompt_ids = [prompt for prompt in encoded for _ in range(config.n)]
    stop_ids = loading.stop_ids(expert.path, tokenizer)
    provenance = {
        "expert": expert.digest,
        "tokenizer": artifacts.digest(expert.path / "tokenizer.json"),
        "stop_ids": sorted(stop_ids),
        **config.model_dump(mode="json"),
        "code": running_code("lightreasoner.sampling.generate"),
    }
    if compute.engine == "transformers":
        make = partial(_Writer, expert.path, ids, prompt_ids, stop_ids, config, compute)
        writing = crew(make, compute)
    else:
        provenance["engine"] = identity(compute)
        seeds = [draw_seed(config.seed, id_) for id_ in ids]
        asked = Asked(prompt_ids, seeds, stop_ids, config.max_new_tokens, config.temperature)
        table = partial(_table, ids, prompt_ids)
        writing = vllm_engine.crew(expert, asked, table, work, watcher)
    with writing as writers:
        shards = Shards(work.scratch, tables.TRAJECTORIES, len(ids), writers.size)
        trajectories = shards.compute(
            lambda ranges: _timed(writers.pieces(ranges), watcher),
            lambda done: watcher.progress(done, len(ids), "trajectories"),
        )
        tables.write_pieces(
            trajectories, tables.TRAJECTORIES, work.out / "trajectories.parquet", provenance
        )


class _Writer:
    """The expert, writing trajectories of the prompts `prompt_ids`, which `ids` name."""

    def __init__(
        self,
        expert: Path,
        ids: list[str],
        prompt_ids: list[list[int]],
        stop_ids: set[int],
        config: "Generate",
        compute: "Compute",
    ):
        self.ids, self.prompt_ids = ids, prompt_ids
        self.stop_ids, self.config = stop_ids, config
        self.model = loading.load_model(expert, compute.device, compute.dtype)
        tokens = statistics.fmean(map(len, prompt_ids)) + config.max_new_tokens
        self.size = shard_prompts(self.model, round(tokens), len(ids), compute)
        self.batch_size = compute.batch_size

    def __call__(self, rows: range) -> pa.Table:
        """The rows of trajectories.parquet."""
        ids = self.ids[rows.start : rows.stop]
        completions = decode(
            self.model,
            self.prompt_ids[rows.start : rows.stop],
            self.stop_ids,
            self.config.max_new_tokens,
            self.config.temperature,
            [draw_seed(self.config.seed, id_) for id_ in ids],
            self.batch_size,
        )
        return _table(self.ids, self.prompt_ids, rows, completions)


def _table(
    ids: list[str], prompt_ids: list[list[int]], rows: range, completions: list[Completion]
) -> pa.Table:
    return pa.table(
        [
            ids[rows.start : rows.stop],
            prompt_ids[rows.start : rows.stop],
            [completion.ids for completion in completions],
            [completion.finish_reason for completion in completions],
        ],
        schema=tables.TRAJECTORIES,
    )


def _timed(pieces: Iterable[Piece], watcher: "Watcher") -> Iterator[Piece]:
    """The same pieces; reports new tokens per second, a point per shard."""
    since = time.perf_counter()
    for rows, table in pieces:
        now = time.perf_counter()
        tokens = pc.sum(pc.list_value_length(table["completion_ids"])).as_py()
        watcher.metric("tokens_per_second", tokens / (now - since), rows.stop)
        since = now
        yield rows, table
