"""Both verdicts through the real process: outcomes, limits, what hostile answers cost."""

import contextlib
import functools
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from graded_calls import called, stumbling, waiting, working
from hypothesis import given, settings
from hypothesis import strategies as st

from lightreasoner import processes
from lightreasoner.data.problems import Problem
from lightreasoner.errors import GradingError, ProblemsError
from lightreasoner.grading import worker
from lightreasoner.grading.grade import _receive, grade, shared_process
from lightreasoner.grading.strict import parsing
from lightreasoner.grading.types import OUTCOMES, Answer, Grade
from lightreasoner.grading.worker import LIMITS
from lightreasoner.qwen_math import equivalence

CHOICES = "Which?\nAnswer Choices: (A) red (B) blue (C) 7 (D) none"

HOSTILE = [
    # a tower of powers, a sum without end, a long expansion: algebra that does not end
    r"\boxed{9^{9^{9^9}}}",
    r"\boxed{\sum_{n=1}^{10^9} \sin(n^n)}",
    r"\boxed{(x+1)^{100000}-(x+2)^{99999}}",
    # texts that are dear to read
    r"\boxed{" + "{" * 10_000 + "1" + "}" * 10_000 + "}",
    r"\boxed{" + r"\text{" * 12_000 + "}",
    "The answer is " + "7" * 3_000_000,
    # a program, to whoever would run it
    r"\boxed{__import__('os').system('touch hostile-was-here')}",
]


def answer(response: str, gold: str, benchmark: str = "math", question: str = "q") -> Answer:
    return Answer(response, Problem(f"{benchmark}/{gold}", question, gold, ""), benchmark)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_answer_gets_both_verdicts(workers: int) -> None:
    """Rows: response, gold, benchmark, the toolkit's verdict, the strict one."""
    rows = [
        # the same
        (r"so \boxed{4}", "4", "math", "correct", "correct"),
        (r"so \boxed{\frac{2}{4}}", r"\frac{1}{2}", "math", "correct", "correct"),
        # another
        (r"so \boxed{5}", "4", "math", "wrong", "wrong"),
        # no answer: the toolkit takes the last number
        ("I had 3 of 4", "4", "gsm8k", "correct", "unparsed"),
        ("I do not know", "4", "gsm8k", "unparsed", "unparsed"),
        ("", "4", "gsm8k", "unparsed", "unparsed"),
        # the toolkit forgives a factor of 100 and is misled by scientific notation
        (r"\boxed{400}", "4", "gsm8k", "correct", "wrong"),
        (r"\boxed{4.5 \times 10^{33}}", "4.5e33", "minerva_math", "wrong", "correct"),
        # letters
        (r"The answer is (C).", "C", "mmlu_stem", "correct", "correct"),
        (r"\boxed{B}", "C", "mmlu_stem", "wrong", "wrong"),
    ]
    asked = [
        answer(response, gold, benchmark, CHOICES if benchmark == "mmlu_stem" else "q")
        for response, gold, benchmark, *_ in rows
    ]
    found = [(each.qwen, each.strict) for each in grade(asked, workers=workers)]
    assert found == [(qwen, strict) for *_, qwen, strict in rows]


def test_a_grade_says_what_it_rests_on() -> None:
    (found,) = grade([answer(r"\boxed{7\text{ m}}", r"\dfrac{14}{2}")])
    assert found == Grade(r"\frac{14}{2}", "7", "correct", r"7\text{ m}", "correct")


def test_a_gold_answer_may_be_a_word_that_the_toolkit_deletes() -> None:
    r"""`\text{east}` is a unit to it, so that its normal form is empty."""
    east, west = grade(
        [answer(r"\boxed{\text{" + word + "}}", r"\text{east}") for word in ("east", "west")]
    )
    assert (east.gold, east.qwen, east.strict) == ("", "correct", "correct")
    assert west.strict == "wrong"


def test_nothing_to_grade() -> None:
    assert grade([]) == []


def test_hostile_answers_cost_their_limit_and_no_other_answer_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits are those of three steps; a hostile answer may reach each of them."""
    monkeypatch.chdir(tmp_path)
    asked, expected = [], {}
    for number, response in enumerate(HOSTILE):
        asked.append(answer(response, "7"))
        for k in range(4):
            expected[len(asked)] = ("correct", "correct") if k % 2 else ("wrong", "wrong")
            gold = (2 * number + k) / 4 if k % 2 else number + 100.5
            asked.append(answer(rf"\boxed{{\frac{{{2 * number + k}}}{{4}}}}", str(gold)))
    with shared_process():  # a process that is in this folder
        found = grade(asked)
    assert {row: (found[row].qwen, found[row].strict) for row in expected} == expected
    hostile = [each for row, each in enumerate(found) if row not in expected]
    assert {each.qwen for each in hostile} <= {"timeout", "wrong"}
    assert [each.qwen for each in hostile].count("timeout") >= 3
    assert not {each.strict for each in hostile} & {"correct"}
    assert sum(LIMITS.values()) == pytest.approx(3)
    assert list(tmp_path.iterdir()) == []


def test_a_limit_is_of_work_not_of_waiting() -> None:
    with worker._pool(1) as pool:
        ask = functools.partial(worker._map, pool, limit=0.4)
        assert list(ask(waiting, [(0.6,)])) == ["done"]
        assert list(ask(working, [(0.05,), (9,), (0.05,)])) == ["done", None, "done"]


def test_a_step_that_waits_for_ever_ends_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PATIENCE", 2)
    with worker._pool(1) as pool:
        assert list(worker._map(pool, waiting, [(60,), (0.1,)], 1.5)) == [None, "done"]


def test_a_workers_memory_is_counted_from_what_it_starts_with() -> None:
    """Libraries map some MiB per core before: with 64 cores more than a worker's whole share."""
    program = r"""
import mmap
from lightreasoner.grading import worker

def fits(size):
    try:
        return bool(mmap.mmap(-1, size))
    except OSError:
        return False

before = mmap.mmap(-1, 3 << 30)
worker._limit_worker()
print(fits(1 << 30), fits(2 * worker.MEMORY))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True False\n", "")


def out_of_memory(*_: object, **__: object) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("place", "name", "compare"),
    [
        (equivalence, "parse_latex", functools.partial(worker.compare_officially, "\\sqrt{11}")),
        (parsing, "latex2sympy", functools.partial(worker.compare_strictly, "(x+11)^2")),
    ],
)
def test_want_of_memory_is_no_verdict(
    place: object, name: str, compare: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, out_of_memory)
    gold = "\\frac{11}{\\sqrt{11}}" if place is equivalence else "x^2+22x+121"
    rest = (gold,) if place is equivalence else (Problem("math/1", "q", gold, ""), "math")
    with pytest.raises(MemoryError):
        compare(*rest)


def test_a_gold_answer_that_cannot_be_read_in_time_is_named() -> None:
    hostile = Problem("math/9", "q", "7" * 30_000_000, "")
    with pytest.raises(ProblemsError, match=r"problem math/9: .* cannot be normalised in 3 s"):
        grade([answer("7", "7"), Answer("7", hostile, "math")])


def test_a_fault_costs_one_answer_its_verdict_and_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = [answer("1", "a"), answer("0", "b"), answer("1", "c")]
    calls = [(each,) for each in asked]
    with worker._pool(1) as pool:
        found = list(worker._verdicts(pool, stumbling, calls, 1.0, asked))
    assert found == ["1.0", None, "1.0"]
    said = json.loads(capsys.readouterr().out)
    assert said["warning"].startswith("problem math/b: stumbling failed (ZeroDivisionError: ")


def test_equal_comparisons_are_made_once(tmp_path: Path) -> None:
    where = tmp_path / "calls"
    calls = [(str(where), what) for what in "abacab"]
    asked = [answer(what, "7") for _, what in calls]
    with worker._pool(2) as pool:
        found = list(worker._verdicts(pool, called, calls, 1.0, asked))
    assert "".join(found) == "ABACAB"
    assert sorted(where.read_text().split()) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("pred", "gold", "qwen"),
    [
        ("5", "4", "wrong"),
        ("400", "4", "correct"),
        ("(b)", "B", "correct"),
        ("Monday", "monday", "correct"),
        # left to algebra
        ("x+1", "1+x", "timeout"),
        ("1" * 300, "4", "timeout"),
    ],
)
def test_what_is_decided_while_reading(pred: str, gold: str, qwen: str) -> None:
    asked = answer(rf"\boxed{{{pred}}}", gold)
    assert worker.extract_answers(asked, gold).qwen == qwen


def test_a_warning_of_the_grader_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert _receive(io.BytesIO(b'{"warning": "problem 1: x"}\n'), 1, print) == []
    assert caplog.messages == ["grading: problem 1: x; counted as timeout"]


@pytest.mark.parametrize(
    "response",
    [r"\boxed{5 \mod 3}", r"\boxed{\cot 0}", "So.\n**\\frac{-\t3}{4}**", r"\boxed{\Gamma(0)}"],
)
@pytest.mark.parametrize("gold", ["2.50", "x+1", "3"])
def test_what_sympy_leaves_as_it_is_has_a_verdict(response: str, gold: str) -> None:
    """Each of these once ended the whole run."""
    assert [each.strict for each in grade([answer(response, gold), answer("3", "3")])] == [
        "wrong",
        "correct",
    ]


def test_progress_reaches_the_total() -> None:
    heard: list[tuple[int, int]] = []
    asked = [answer(rf"\boxed{{{n}+x}}", "x+2") for n in range(5)]
    grade([*asked, answer("8", "8")], lambda done, total: heard.append((done, total)))
    assert heard == sorted(heard)
    assert heard[-1] == (6, 6)


def test_it_may_be_called_from_any_thread_of_a_program_without_a_file() -> None:
    """A flow's task is no main thread, and its program cannot be imported again by a worker."""
    program = r"""
import threading
from lightreasoner.grading.grade import grade
from lightreasoner.grading.types import Answer
from lightreasoner.data.problems import Problem

def body():
    print([g.qwen for g in grade([Answer(r"\boxed{2/4}", Problem("i", "q", "0.5", ""), "math")])])

thread = threading.Thread(target=body)
thread.start()
thread.join()
"""
    done = subprocess.run(
        [sys.executable], input=program, capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("['correct']", "")


def test_a_grader_that_dies_is_an_error() -> None:
    def kill(done: int, total: int) -> None:
        for pid in graders():
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(GradingError, match=r"stopped after 0 of 3 answers \(exit status -9\)"):
        grade([answer(r"\boxed{x+1}", "1+x")] * 3, kill)


def test_an_error_while_it_runs_leaves_no_process_behind() -> None:
    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = graders()
    with pytest.raises(KeyboardInterrupt):
        grade([answer(HOSTILE[0], "7"), answer("7", "7")], fail)
    assert graders() <= before
    assert threading.active_count() == len(threading.enumerate())


def test_calls_share_a_process_until_one_fails() -> None:
    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before, asked = graders(), [answer("7", "7")]
    with shared_process():
        assert [grade(asked), grade(asked)] == 2 * [grade(asked)]
        (first,) = graders() - before
        with pytest.raises(KeyboardInterrupt):
            grade(asked, fail)
        assert graders() == before
        grade(asked)
        (second,) = graders() - before
        assert second != first
    assert graders() == before


def test_blocks_of_two_threads_may_overlap() -> None:
    """The first one ends while the other still grades; its end leaves the other its process."""
    before, asked = graders(), [answer("7", "7")]
    begun, both, ended = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with shared_process():
            begun.set()
            assert both.wait(60)
        ended.set()

    def second() -> None:
        assert begun.wait(60)
        with shared_process():
            grade(asked)
            own = graders() - before
            both.set()
            assert ended.wait(60)
            grade(asked)
            assert graders() - before == own

    with ThreadPoolExecutor(2) as threads:
        early, late = threads.submit(first), threads.submit(second)
        late.result()
        early.result()
    assert graders() == before


def test_a_process_that_died_between_two_calls_is_started_again() -> None:
    before, asked = graders(), [answer("7", "7")]
    with shared_process():
        graded = grade(asked)
        (idle,) = graders() - before
        psutil.Process(idle).kill()
        psutil.wait_procs([psutil.Process(idle)], 10)
        assert grade(asked) == graded
    assert graders() == before


def graders() -> set[int]:
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # gone meanwhile
            if "lightreasoner.grading.worker" in child.cmdline():
                found.add(child.pid)
    return found


@settings(max_examples=3)
@given(st.lists(st.tuples(st.text(), st.sampled_from(["4", r"\frac{1}{2}", "A"])), max_size=40))
def test_any_text_gets_an_outcome(rows: list[tuple[str, str]]) -> None:
    found = grade([answer(response, gold, "tuned") for response, gold in rows])
    assert len(found) == len(rows)
    for each in found:
        assert {each.qwen, each.strict} <= set(OUTCOMES)
        assert (each.strict == "unparsed") == (each.extracted is None) or each.strict == "timeout"


def test_all_cores_are_used() -> None:
    assert processes.usable_cores() == len(os.sched_getaffinity(0))


@pytest.mark.slow
def test_nobody_is_told_a_traceback_when_the_asker_is_gone() -> None:
    """Its other end of stdin is still open, as if it were ending just now."""
    asked = Answer(r"\boxed{2}", Problem("p/0", "1 + 1?", "2", ""), "math")
    batch = {"workers": 1, "answers": [asdict(asked)]}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-m", worker.__name__], text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(json.dumps(batch) + "\n")
        process.stdin.flush()
        assert process.wait(120) == 1
        assert process.stderr.read() == ""
