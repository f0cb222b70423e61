"""vLLM itself, where `make setup-vllm` made its environment: the texts of decoding in process.

Minutes: each server takes half a minute of both cores to start.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tiny_models import write_model
from transformers import AutoModelForCausalLM

from lightreasoner.config import Compute
from lightreasoner.data import microworld
from lightreasoner.errors import EndpointError
from lightreasoner.inference import loading, prompts
from lightreasoner.inference.decode import decode
from lightreasoner.inference.engine import Completion
from lightreasoner.inference.transformers_engine import stop_word_ends
from lightreasoner.inference.vocabulary import vocabulary_size
from lightreasoner.progress import Silent
from lightreasoner.serving import vllm_engine, vllm_server
from lightreasoner.serving.vllm_endpoint import Asked, TokenEndpoint
from lightreasoner.storage import artifacts

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not vllm_server.python().exists(), reason="no vLLM: make setup-vllm"),
]
EXPERT = loading.MICROWORLD / "expert"
CPU = Compute(device="cpu", dtype="float32", engine="vllm")
QUESTIONS = [
    problem.question
    for name, n in (("tuned", 12), ("transfer", 6), ("chain_sum", 6))
    for problem in microworld.draw(name, "evaluate", n, seed=3)  # type: ignore[arg-type]
]
NEAR_TIE = 1e-3
"""Nats. Float32 sums in another order move a logit by 1e-5 at most; a wrong prompt or a lost stop
word moves the first difference to a token that is nats away."""

LIMIT = 96


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a server of the micro-world's expert."""
    place = tmp_path_factory.mktemp("vllm")
    with vllm_server.serving(EXPERT, "m", 32, 512, CPU, place / "log", Silent()) as (door, _):
        yield door


def asked(style: Any, temperature: float = 0.0, seed: int = 0) -> Asked:
    tokenizer = loading.load_tokenizer(EXPERT)
    return Asked(
        prompts.encode_prompts(QUESTIONS, style, tokenizer),
        [seed + row for row in range(len(QUESTIONS))],
        loading.stop_ids(EXPERT, tokenizer),
        LIMIT,
        temperature,
        prompts.STOP_WORDS.get(style, ()),
        stop_word_ends(style, tokenizer),
    )


def written(served: Path, asked: Asked) -> list[Completion]:
    server = TokenEndpoint(
        "http://vllm/v1", "m", LIMIT, asked.temperature, asked.stop_words, 64, socket=served,
        asked=asked, version=vllm_server.installed_version(), size=vocabulary_size(EXPERT),
        directory=EXPERT,
    ).connect()  # fmt: skip
    found: list[Completion] = []
    crew = vllm_engine._Servers([server], lambda _, completions: found.extend(completions))
    list(crew.pieces([range(7), range(7, len(asked.prompts))]))
    return found


@pytest.mark.parametrize("style", ["qwen25-math-cot", "cot"])
def test_it_writes_what_decoding_in_process_writes(served: Path, style: Any) -> None:
    """But for near-ties, looked at one by one; counts and ends too, also at a stop word."""
    wanted = asked(style)
    found = written(served, wanted)
    expert = loading.load_model(EXPERT, "cpu", "float32")
    here = decode(expert, list(wanted.prompts), wanted.stop_ids, LIMIT, is_over=wanted.is_over)
    for prompt, theirs, ours in zip(wanted.prompts, found, here, strict=True):
        if theirs != ours:
            same = next(
                n
                for n, pair in enumerate(zip(theirs.ids, ours.ids, strict=False))
                if pair[0] != pair[1]
            )
            with torch.no_grad():
                logits = expert(torch.tensor([prompt + ours.ids[:same]])).logits[0, -1]
            best, second = logits.log_softmax(-1).topk(2).values.tolist()
            assert best - second < NEAR_TIE
    assert sum(theirs == ours for theirs, ours in zip(found, here, strict=True)) >= 20


def test_draws_are_their_seeds(served: Path) -> None:
    first, again, other = (
        written(served, asked("qwen25-math-cot", 1.0, seed)) for seed in (5, 5, 1000)
    )
    same = [a.ids == b.ids for a, b in zip(first, again, strict=True)]
    assert sum(same) >= len(same) - 2  # sums in another batch move a draw's edge
    assert sum(a.ids == b.ids for a, b in zip(first, other, strict=True)) < len(same) - 2


def test_it_listens_on_this_machine_alone(served: Path) -> None:
    """The socket for requests; torch's own ports between its processes on loopback."""
    guards = [each for each in psutil.Process().children() if "vllm_guard" in str(each.cmdline())]
    family = [each for guard in guards for each in guard.children(recursive=True)]
    assert len(family) >= 3
    heard = [
        c.laddr.ip for each in family for c in each.net_connections("inet") if c.status == "LISTEN"
    ]
    assert {*heard} <= {"127.0.0.1", "::1"}


def test_another_models_name_is_refused(served: Path) -> None:
    with pytest.raises(EndpointError, match="serves m, not other; start it with"):
        TokenEndpoint(
            "http://vllm/v1", "other", 8, 0.0, (), socket=served, asked=asked("cot"),
            version=vllm_server.installed_version(), size=99, directory=EXPERT,
        ).connect()  # fmt: skip


STAGE = """
import sys, time
from pathlib import Path
from lightreasoner.config import Compute
from lightreasoner.inference import loading
from lightreasoner.serving import vllm_server
from lightreasoner.progress import Silent
cpu = Compute(device="cpu", dtype="float32", engine="vllm")
expert = loading.MICROWORLD / "expert"
with vllm_server.serving(expert, "m", 4, 64, cpu, Path(sys.argv[1], "log"), Silent()):
    print("up", flush=True)
    time.sleep(600)
"""


def test_all_its_processes_end_with_a_killed_stage(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STAGE, tmp_path], stdout=subprocess.PIPE) as stage:
        assert stage.stdout is not None
        assert stage.stdout.readline() == b"up\n"
        family = psutil.Process(stage.pid).children(recursive=True)
        assert len(family) >= 4
        stage.kill()
    _, left = psutil.wait_procs(family, timeout=30)
    assert not left


def test_a_model_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    """Before anything else is asked."""
    from lightreasoner.storage.artifacts import Workspace

    broken = write_model(tmp_path / "broken", seed=4, hidden=64, layers=1)
    model = AutoModelForCausalLM.from_pretrained(broken)
    model.model.norm.weight.data[0] = float("nan")
    model.save_pretrained(broken)
    work = Workspace(tmp_path / "out", tmp_path / "shards", CPU)
    wanted = Asked([[3, 4]], [0], {256}, 4, 0.0)
    serving = vllm_engine.crew(artifacts.of(broken), wanted, lambda *_: None, work, Silent())
    with pytest.raises(EndpointError), serving:
        pass
