"""vLLM as an engine of the stages: the same tables as in process, resumed, never wrong.

A stand-in writes what decoding in process writes; vLLM itself is in test_vllm.py.
"""

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import standin_vllm
from json_lines import write as write_lines
from standin_vllm import VERSION, Json, Standin, choice, standing_in

from lightreasoner.config import Compute, Evaluate, Generate
from lightreasoner.data import problems
from lightreasoner.data.problems import Problem
from lightreasoner.errors import EndpointError
from lightreasoner.evaluation import evaluate
from lightreasoner.inference import loading
from lightreasoner.inference.decode import decode
from lightreasoner.inference.transformers_engine import stop_word_ends
from lightreasoner.progress import Silent
from lightreasoner.sampling import generate
from lightreasoner.serving import vllm_engine
from lightreasoner.storage import artifacts, tables
from lightreasoner.storage.artifacts import Workspace

CPU = Compute(device="cpu", dtype="float32", batch_size=4)
SOME = [Problem(f"p{n}", "x" * (9 - n), "1", "") for n in range(9)]


def asking(*servers: Standin, **more: Any) -> Compute:
    """By endpoints."""
    return Compute.model_validate(
        CPU.model_dump()
        | {"engine": "vllm", "endpoints": [server.url for server in servers]}
        | {"endpoint_version": VERSION, "endpoint_dtype": "float32"}
        | more
    )


@contextmanager
def serving(model: Path, style: str = "", **changes: Any) -> Iterator[Standin]:
    """A stand-in that writes what the model does, one prompt at a time."""
    loaded = loading.load_model(model, "cpu", "float32")
    is_over = stop_word_ends(style, loading.load_tokenizer(model))
    lock = threading.Lock()

    def answer(asked: Json) -> Json:
        with lock:
            (found,) = decode(
                loaded, [asked["prompt"]], set(asked["stop_token_ids"]), asked["max_tokens"],
                is_over=is_over,
            )  # fmt: skip
        return choice(asked) | {"token_ids": found.ids}

    digest = artifacts.digest(model)
    with standing_in(**({"model": digest, "answer": answer} | changes)) as server:
        yield server


def trajectories(model: Path, place: Path, compute: Compute, **config: Any) -> list[Json]:
    out = place / "out"
    for folder in (out, place / "problems"):
        folder.mkdir(parents=True, exist_ok=True)
    problems.write_problems(SOME, place / "problems" / "problems.jsonl")
    inputs = {"expert": artifacts.of(model), "problems": artifacts.of(place / "problems")}
    work = Workspace(out, place / "shards", compute)
    generate.write(inputs, Generate(max_new_tokens=8, **config), work, Silent())
    path = out / "trajectories.parquet"
    said = f"vLLM {VERSION}, float32{', endpoints' if compute.endpoints else ''}"
    engine = tables.provenance(path).get("engine")
    assert engine == (None if compute.engine == "transformers" else said)
    return tables.read_table(path, tables.TRAJECTORIES).to_pylist()


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01)
    monkeypatch.setattr(vllm_engine._Servers, "size", 4)


def test_trajectories_are_those_of_decoding_in_process(tiny_expert: Path, tmp_path: Path) -> None:
    """Two servers share the work."""
    with serving(tiny_expert) as one, serving(tiny_expert) as two:
        found = trajectories(tiny_expert, tmp_path / "a", asking(one, two))
        assert len(one.completions()) + len(two.completions()) == len(SOME)
        assert min(len(one.completions()), len(two.completions())) >= 1
    assert found == trajectories(tiny_expert, tmp_path / "b", CPU)


@pytest.mark.parametrize("style", ["qwen25-math-cot", "cot"])
def test_scores_are_those_of_decoding_in_process(
    tiny_expert: Path, tmp_path: Path, style: Any
) -> None:
    """Words and all; only the engine's name differs."""
    rows = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(9)]
    (tmp_path / "easy").mkdir()
    write_lines(tmp_path / "easy" / "test.jsonl", rows)
    config = Evaluate(
        source=str(tmp_path), problem_sets=("easy",), max_new_tokens=8, style=style, seed=1
    )
    found = []
    with serving(tiny_expert, style) as server:
        for compute in (CPU, asking(server)):
            out = tmp_path / compute.engine
            out.mkdir()
            work = Workspace(out, tmp_path / f"{compute.engine}-shards", compute)
            evaluate.write({"model": artifacts.of(tiny_expert)}, config, work, Silent())
            path = out / "scores.parquet"
            found.append(
                (tables.read_table(path, tables.SCORES), (out / "summary.json").read_text())
            )
            engine = tables.provenance(path)["engine"]
            assert engine == f"vLLM {VERSION}, float32, endpoints" or compute is CPU
        assert all(
            asked.get("stop") == (["\n\nQuestion:"] if style == "cot" else None)
            for asked, _ in server.asked
        )
    assert found[0] == found[1]


def test_each_draw_has_its_seed(tiny_expert: Path, tmp_path: Path) -> None:
    with serving(tiny_expert, answer=choice) as server:
        found = trajectories(tiny_expert, tmp_path, asking(server), n=3, temperature=0.5)
        seeds = {asked["seed"] for asked in server.completions()}
    assert len(seeds) == len(found) == 27


def test_what_a_lost_server_left_is_gone_on_from(tiny_expert: Path, tmp_path: Path) -> None:
    """The first answers the four first prompts, then nothing; the next is asked for the rest."""
    lost = threading.Event()

    def until_lost(answer: Any) -> Any:
        def limited(asked: Json) -> Json | None:
            if server.first_answered(4):
                lost.set()
            return None if lost.is_set() else answer(asked)

        return limited

    with serving(tiny_expert) as server:
        server.answer = until_lost(server.answer)
        with pytest.raises(EndpointError, match=r"endpoint http.*cannot be reached") as error:
            trajectories(tiny_expert, tmp_path / "a", asking(server, batch_size=1))
        assert "\n" not in str(error.value)
    with serving(tiny_expert) as server:
        found = trajectories(tiny_expert, tmp_path / "a", asking(server))
        asked_again = len(server.completions())
    assert asked_again == len(SOME) - 4
    assert found == trajectories(tiny_expert, tmp_path / "b", CPU)


def test_one_wrong_answer_ends_the_stage_and_nothing_of_it_is_kept(
    tiny_expert: Path, tmp_path: Path
) -> None:
    with serving(tiny_expert) as server:
        right, calls = server.answer, itertools.count(1)

        def once_wrong(asked: Json) -> Json | None:
            made = right(asked)
            return made and (made | {"token_ids": [259]} if next(calls) == 6 else made)

        server.answer = once_wrong
        with pytest.raises(EndpointError, match="wrote the token 259; the model has 259"):
            trajectories(tiny_expert, tmp_path / "a", asking(server, batch_size=1))
        server.answer = right
        found = trajectories(tiny_expert, tmp_path / "a", asking(server))
    assert found == trajectories(tiny_expert, tmp_path / "b", CPU)


def test_another_models_server_is_refused_before_anything_is_asked(
    tiny_expert: Path, tiny_amateur: Path, tmp_path: Path
) -> None:
    with serving(tiny_amateur) as server:
        with pytest.raises(EndpointError, match=r"serves \w+\.dir, not \w+\.dir; start it with"):
            trajectories(tiny_expert, tmp_path, asking(server))
        assert not server.asked


def test_endpoints_of_other_stages_models_are_passed_over(
    tiny_expert: Path, tiny_amateur: Path, tmp_path: Path
) -> None:
    with serving(tiny_amateur) as other, serving(tiny_expert) as server:
        trajectories(tiny_expert, tmp_path, asking(other, server))
        assert not other.asked
        assert len(server.completions()) == len(SOME)


def test_as_many_are_under_way_as_keep_a_server_busy(tiny_expert: Path, tmp_path: Path) -> None:
    """Two for each of its places, also across shards."""
    lock, now, most = threading.Lock(), 0, 0
    full = threading.Barrier(6)

    def answer(asked: Json) -> Json:
        nonlocal now, most
        if "logprobs" not in asked:
            with lock:
                now, most = now + 1, max(most, now + 1)
                waits = len(server.completions()) <= 6
            if waits:
                full.wait(20)
            with lock:
                now -= 1
        return choice(asked)

    with serving(tiny_expert, answer=answer) as server:
        trajectories(tiny_expert, tmp_path, asking(server, batch_size=3))
    assert most == 6


FILES = """
import resource
from lightreasoner.serving.vllm_engine import connections
resource.setrlimit(resource.RLIMIT_NOFILE, (200, {hard}))
print(connections(500), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("hard", "said"), [(1000, "500 628"), (300, "172 300")])
def test_connections_are_as_many_as_files_may_be_open(hard: int, said: str) -> None:
    """The usual limit is 1,024, and a GPU's server takes 2,048 prompts."""
    command = [sys.executable, "-c", FILES.format(hard=hard)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == said


def test_the_key_comes_from_a_file_and_is_never_shown(tiny_expert: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-777\n", encoding="utf-8")
    with serving(tiny_expert, answer=choice) as server:
        compute = asking(server, endpoint_key_file=str(tmp_path / "key"))
        trajectories(tiny_expert, tmp_path / "a", compute)
        assert {headers["Authorization"] for _, headers in server.asked} == {"Bearer sk-777"}
        assert "sk-777" not in json.dumps(compute.model_dump())
        server.answer = lambda asked: choice(asked) | {"token_ids": "sk-777"}
        with pytest.raises(EndpointError) as error:
            trajectories(tiny_expert, tmp_path / "b", compute)
    assert "sk-777" not in str(error.value)


def test_a_server_of_our_own_that_dies_is_named_and_its_shards_are_kept(
    tiny_expert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies once four prompts are answered, which make a shard."""
    monkeypatch.setenv("LIGHTREASONER_VLLM_PYTHON", str(standin_vllm.python(tmp_path)))
    monkeypatch.setenv("STANDIN_PIDS", str(tmp_path / "pids"))
    monkeypatch.setenv("STANDIN", "dies")
    own = CPU.model_copy(update={"engine": "vllm", "batch_size": 1})
    with pytest.raises(EndpointError) as error:
        trajectories(tiny_expert, tmp_path / "a", own)
    assert "the server ended (exit status 1): 'RuntimeError: out of luck'; " in str(error.value)
    monkeypatch.setenv("STANDIN", "")
    found = trajectories(tiny_expert, tmp_path / "a", own)
    assert [row["problem_id"] for row in found] == [problem.id for problem in SOME]
    assert (tmp_path / "pids.asked").read_text().count("\n") == 1 + len(SOME) - 4
