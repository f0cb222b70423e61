"""The engine that asks vLLM: a server of the stage's own, or named ones.

All requests of a stage wait in one line, of which as many are under way as keep every server busy;
shards become whole in their order.
"""

import asyncio
import contextlib
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lightreasoner import untrusted
from lightreasoner.errors import EndpointError
from lightreasoner.inference.engine import Completion
from lightreasoner.inference.vocabulary import vocabulary_size
from lightreasoner.serving import vllm_server
from lightreasoner.serving.vllm_endpoint import Asked, TokenEndpoint
from lightreasoner.storage.artifacts import Artifact, Workspace
from lightreasoner.storage.shards import Piece

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from lightreasoner.inference.worker_pool import Crew
    from lightreasoner.progress import Watcher

ROWS = {"cpu": 64, "cuda": 1024}
"""Prompts that a copy of the model writes at once, where compute.batch_size does not say."""

SHARD = 128
"""Prompts per shard."""

DAY = 86_400.0
"""Seconds: that an answer takes long is no sign, where all are asked at once."""

LOOK = 0.5
"""Seconds between two looks at the process of a server of our own."""

OTHER_FILES = 128
"""How many files a process may have open beside its connections."""

PATIENCE = 5.0
"""Seconds to learn that it ended, which says more than that it does not answer."""


@contextlib.contextmanager
def crew(
    model: Artifact,
    asked: Asked,
    table: Callable[[range, list[Completion]], pa.Table],
    work: Workspace,
    watcher: "Watcher",
) -> Iterator["Crew"]:
    """A crew (worker_pool.py) of vLLM's servers, which serve the model under its digest's name.

    Endpoints that serve other models, of other stages, are passed over. `table` makes a piece of
    completions. Raises EndpointError for a server that does not start,
    that serves another model or version, or whose answers cannot be right.
    """
    compute = work.compute
    rows = compute.batch_size or ROWS[compute.device]
    copies = compute.gpus // compute.gpus_per_model
    version = compute.endpoint_version or vllm_server.installed_version(compute.device)
    n = max(1, len(compute.endpoints))
    at_once = max(1, connections(2 * rows * copies * n) // n)

    def server(url: str, **reached: Any) -> TokenEndpoint:
        return TokenEndpoint(
            url, model.digest, asked.max_new_tokens, asked.temperature, asked.stop_words,
            at_once, timeout=DAY, asked=asked, version=version,
            size=vocabulary_size(model.path), directory=model.path, **reached,
        )  # fmt: skip

    if compute.endpoints:
        key = _key(compute.endpoint_key_file)
        named = [server(url, api_key=key) for url in compute.endpoints]
        serving = [each for each in named if each.serves()] or named[:1]
        yield _Servers([each.connect() for each in serving], table)
        return
    tokens = max(map(len, asked.prompts)) + asked.max_new_tokens
    log = work.scratch.with_name("vllm.log")
    own = vllm_server.serving(model.path, model.digest, rows, tokens, compute, log, watcher)
    with own as (socket, fault):
        yield _Servers([server("http://vllm/v1", socket=socket).connect()], table, fault)


def connections(wanted: int) -> int:
    """So many, or as many as this process may open; its limit of open files is raised for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft < needed and soft != resource.RLIM_INFINITY:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(wanted, soft - OTHER_FILES))
    return wanted


def _key(file: str | None) -> str | None:
    if file is None:
        return None
    return untrusted.read_text(Path(file), EndpointError, untrusted.SETTINGS_BYTES).strip()


class _Servers:
    """Servers of one model as a crew."""

    size = SHARD

    def __init__(
        self,
        servers: Sequence[TokenEndpoint],
        table: Callable[[range, list[Completion]], pa.Table],
        fault: vllm_server.Fault | None = None,
    ):
        self.servers, self.table, self.fault = servers, table, fault

    def pieces(self, ranges: Sequence[range]) -> Iterator[Piece]:
        """The piece of each range, in order. Raises EndpointError for the first that fails."""
        with asyncio.Runner() as runner:
            line = _Line(self.servers, ranges, self.fault, runner.get_loop())
            try:
                for inputs in ranges:
                    yield inputs, self.table(inputs, runner.run(line.whole(inputs)))
            finally:
                runner.run(line.end())


class _Line:
    """Requests that wait in the order of their rows, and the places where servers take them."""

    def __init__(
        self,
        servers: Sequence[TokenEndpoint],
        ranges: Sequence[range],
        fault: vllm_server.Fault | None,
        loop: asyncio.AbstractEventLoop,
    ):
        self.busy = Counter[str]()
        self.clients = [(server, server.client()) for server in servers]
        self.free = asyncio.Queue[tuple[TokenEndpoint, "AsyncOpenAI"]]()
        for _ in range(servers[0].concurrency):  # servers take turns
            for place in self.clients:
                self.free.put_nowait(place)
        self.asking = {
            inputs: [loop.create_task(self._ask(row)) for row in inputs] for inputs in ranges
        }
        self.ended = [loop.create_task(_look(fault))] if fault else []
        self.watches: list[asyncio.Future[None]] = [*self.ended]
        for server, client in self.clients:
            self.watches.append(loop.create_task(server.watch(client, self.busy)))

    async def _ask(self, row: int) -> Completion:
        server, client = await self.free.get()
        self.busy[server.url] += 1
        try:
            return await server.complete(client, row)
        finally:
            self.busy[server.url] -= 1
            self.free.put_nowait((server, client))

    async def whole(self, inputs: range) -> list[Completion]:
        """A range's completions. Raises EndpointError for the first that fails, or a server."""
        found: asyncio.Future[list[Completion]] = asyncio.gather(*self.asking[inputs])
        found.add_done_callback(lambda future: future.cancelled() or future.exception())
        waited: list[asyncio.Future[Any]] = [found, *self.watches]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if found.done() and not found.exception():
            return found.result()
        if self.ended and found.done():
            await asyncio.wait(self.ended, timeout=PATIENCE)
        for watch in self.watches:
            if watch.done():
                await watch
        return await found

    async def end(self) -> None:
        """Ask nothing more."""
        tasks: list[asyncio.Future[Any]] = [*self.watches]
        tasks += [*(task for each in self.asking.values() for task in each)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, client in self.clients:
            await client.close()


async def _look(fault: vllm_server.Fault) -> None:
    """Raise what ended the server's process, once it does."""
    while not (error := fault()):
        await asyncio.sleep(LOOK)
    raise error
