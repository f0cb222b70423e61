"""`lightreasoner evaluate`, through the real command line: in process, by a server, killed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import call, faults
from test_openai_engine import completion, scripted, served_models, status

from lightreasoner.config import dump
from lightreasoner.data import microworld
from lightreasoner.inference import loading
from lightreasoner.presets import PRESETS
from lightreasoner.storage import tables

EXPERT = loading.MICROWORLD / "expert"
N = 6


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A current folder with params.yaml and two of the micro-world's sets as files; their place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(dump(PRESETS["microworld"]), encoding="utf-8")
    for name in ("tuned", "transfer"):
        (tmp_path / "sets" / name).mkdir(parents=True)
        rows = [
            json.dumps({"question": problem.question, "answer": problem.answer}) + "\n"
            for problem in microworld.draw(name, "evaluate", N, seed=5)  # type: ignore[arg-type]
        ]
        (tmp_path / "sets" / name / "test.jsonl").write_text("".join(rows), encoding="utf-8")
    return str(tmp_path / "sets")


def arguments(data: str, *more: str) -> list[str]:
    limit = ("--set", "evaluate.max_new_tokens=96", "--home", "home", "--out", "out")
    chosen = ("--data", data, "--benchmarks", "tuned,transfer")
    return ["evaluate", "--model", str(EXPERT), *chosen, *limit, *more]


def scores(out: str = "out") -> pd.DataFrame:
    return tables.read_table(Path(out) / "scores.parquet", tables.SCORES).to_pandas()


def test_writes_scores_and_says_how_it_went(data: str) -> None:
    result = call(*arguments(data))
    assert result.exit_code == 0, result.stderr
    found = scores()
    assert list(found["problem_set"]) == ["tuned"] * N + ["transfer"] * N
    right = int((found["strict"] == "correct")[:N].sum())
    row = next(line for line in result.stdout.splitlines() if line.startswith("tuned"))
    assert row.split()[1:3] == [str(N), f"{right / N:.1%}"]
    provenance = tables.provenance(Path("out/scores.parquet"))
    assert (provenance["style"], provenance["max_new_tokens"]) == ("qwen25-math-cot", 96)
    assert call(*arguments(data)).stdout.startswith("evaluate: cached  ")
    told = json.loads(call(*arguments(data, "--json")).stdout)
    assert (told["out"], told["scores"]["tuned"]["accuracy"]) == ("out", right / N)


def test_options_stand_for_parameters(data: str) -> None:
    """With --data the section begins as the paper has it, not as in params.yaml (500, 128)."""
    result = call(*arguments(data, "--limit", "2", "--style", "cot", "--set", "evaluate.seed=9"))
    assert result.exit_code == 0, result.stderr
    assert len(scores()) == 4
    assert scores()["prompt"].str.endswith("Answer:").all()
    provenance = tables.provenance(Path("out/scores.parquet"))
    assert (provenance["style"], provenance["seed"], provenance["n"]) == ("cot", 9, 1)


def test_the_result_of_another_model_has_its_own_place(data: str) -> None:
    words = arguments(data, "--limit", "1")
    at = words.index("--out")
    result = call(*words[:at], *words[at + 2 :])
    assert result.exit_code == 0, result.stderr
    (made,) = Path("home/evaluations").iterdir()
    assert made.name.startswith("expert-")
    assert len(scores(str(made))) == 2
    other = [*words[:at], *words[at + 2 :], "--benchmarks", "tuned"]
    assert call(*other).exit_code == 0
    assert len(list(Path("home/evaluations").iterdir())) == 2


def test_a_server_answers_as_the_model_does_in_process(data: str, served: str) -> None:
    """All twelve texts agree; a float32 near-tie could part them on another machine."""
    assert call(*arguments(data)).exit_code == 0
    here = scores()
    asking = ("--endpoint", served, "--concurrency", "2", "--out", "there")
    result = call(*arguments(data, *asking))
    assert result.exit_code == 0, result.stderr
    there = scores("there")
    equal = here["response"] == there["response"]
    assert equal.sum() >= len(here) - 1
    same = ["strict", "qwen", "extracted", "pred", "tokens", "finish_reason"]
    pd.testing.assert_frame_equal(here.loc[equal, same], there.loc[equal, same])
    assert tables.provenance(Path("there/scores.parquet"))["engine"].startswith(served)
    assert not Path("home/work").exists() or not list(Path("home/work").iterdir())


def test_a_server_that_dies_costs_no_answer_it_gave(data: str) -> None:
    """One request at a time, eight a batch: the first batch is kept, the rest is asked again."""
    models_served = served_models("m")
    asking = ("--concurrency", "1", "--out", "there")
    with scripted(models_served, *[completion(r"\boxed{1}")] * 9, status(400)) as server:
        (line,) = faults(call(*arguments(data, *asking, "--endpoint", server.url)))
        assert line.startswith(f"endpoint {server.url}: answered 400")
        server.script[:] = [completion(r"\boxed{2}")]
        server.script.insert(0, models_served)
        server.asked.clear()
        result = call(*arguments(data, *asking, "--endpoint", server.url))
        assert result.exit_code == 0, result.stderr
        assert len(server.asked) == 1 + 2 * N - 8
    assert sorted(scores("there")["extracted"]) == ["1"] * 8 + ["2"] * (2 * N - 8)


def test_a_servers_answers_replace_earlier_ones_if_told_to(data: str) -> None:
    """The store does not have them."""
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("x")
    with scripted(served_models("m"), completion(r"\boxed{1}")) as server:
        asking = arguments(data, "--limit", "1", "--endpoint", server.url)
        (line,) = faults(call(*asking, "--out", "mine"))
        assert line.startswith("mine: holds other files (thesis.txt); choose a new directory, or ")
        assert len(server.asked) == 1
        for answer in ("1", "2"):
            server.script[:] = [served_models("m"), completion(rf"\boxed{{{answer}}}")]
            server.asked.clear()
            result = call(*asking, *(["--overwrite"] if answer == "2" else []))
            assert result.exit_code == 0, result.stderr
            assert set(scores()["extracted"]) == {answer}
        server.asked.clear()
        (line,) = faults(call(*asking))
        assert line.startswith("out: holds other files (")
        assert len(server.asked) == 1
        in_its_own_place = [each for each in asking if each not in ("--out", "out")]
        for answer in ("3", "4"):
            server.script[:] = [served_models("m"), completion(rf"\boxed{{{answer}}}")]
            server.asked.clear()
            result = call(*in_its_own_place)
            assert result.exit_code == 0, result.stderr


@pytest.mark.slow
def test_two_at_once_ask_a_server_in_turn(data: str) -> None:
    """Both have all answers, and the second asks for its own after the first has its result."""
    with scripted(served_models("m"), *[completion(r"\boxed{1}")]) as server:
        asking = arguments(data, "--limit", "2", "--endpoint", server.url, "--served-model", "m")
        server.script[:] = [lambda handler: answer(handler)]

        def answer(handler: Any) -> None:
            (completion(r"\boxed{1}") if handler.asked else served_models("m"))(handler)

        command = [sys.executable, "-m", "lightreasoner", *asking]
        running = [subprocess.Popen([*command, "--out", name]) for name in ("a", "b")]
        assert [process.wait() for process in running] == [0, 0]
    assert scores("a").equals(scores("b"))


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (("--style", "cod"), "no prompt style 'cod'; there are qwen25-math-cot, cot"),
        (("--benchmarks", "tuned,aime"), "has no aime/test.jsonl"),
        (("--model", "nobody/nothing"), "is neither a directory nor owner/name@commit"),
        (("--limit", "99"), "99 problems wanted, only 6 there"),
        (("--set", "evaluate.n=2"), "n 2 at temperature 0 would write the same response"),
        (("--endpoint", "http://127.0.0.1:9/v1"), "cannot be reached"),
        (("--endpoint", "127.0.0.1:9"), "the url must be http://HOST:PORT/v1"),
        (("--endpoint", "http://127.0.0.1:9/v1", "--api-key-file", "none"), "none"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_asked(
    data: str, more: tuple[str, ...], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lightreasoner.inference.loading.load_model", lambda *_: pytest.fail("loaded")
    )
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.01)
    (line,) = faults(call(*arguments(data, *more)))
    assert fault in line


@pytest.mark.nightly
def test_killed_at_any_moment_it_ends_with_the_same_bytes(data: str, tmp_path: Path) -> None:
    """SIGKILL after 1, 2, ... finished shards of four; none of them is generated again."""
    words = arguments(data, "--set", "compute.batch_size=1")
    assert call(*words).exit_code == 0
    whole = Path("out/scores.parquet").read_bytes()
    again = [word if word != "home" else "home2" for word in words]
    shards = tmp_path / "home2" / "work"
    kept: dict[str, int] = {}
    for finished in range(1, 2 * N // 4):
        process = subprocess.Popen([sys.executable, "-m", "lightreasoner", *again])
        while process.poll() is None and len(pieces(shards)) < finished:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert kept.items() <= pieces(shards).items()
        kept = pieces(shards)
        assert len(kept) >= finished
    result = call(*again)
    assert result.exit_code == 0, result.stderr
    assert Path("out/scores.parquet").read_bytes() == whole


def pieces(work: Path) -> dict[str, int]:
    """The finished shards, by name, with what a shard that is made again would change."""
    return {path.name: path.stat().st_ino for path in work.glob("*/shards/*.parquet")}
