"""Bench: runs side by side on one machine, against one alone.

Processes decode the same prompts over and over, each with all threads, as runs do that know nothing
of each other. Threads that spin while they wait take the cores from those that have work.
"""

import multiprocessing
import os
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

NUMBERS = (1, 2, 4)
PROBLEMS = 64
MAX_NEW_TOKENS = 64


def together(expert: Path, seconds: float, numbers: tuple[int, ...] = NUMBERS) -> dict[str, Any]:
    """Responses per second of so many processes together, and their share of the rate of one."""
    rates = {number: _rate(expert, seconds, number) for number in numbers}
    alone = rates[numbers[0]]
    return {
        "problems": PROBLEMS,
        "max_new_tokens": MAX_NEW_TOKENS,
        "seconds": seconds,
        "wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "responses_per_second": {str(number): rate for number, rate in rates.items()},
        "share_of_one": {str(number): rate / alone for number, rate in rates.items()},
    }


def summary(found: dict[str, Any]) -> list[str]:
    """What was measured, in lines."""
    return [
        f"{number} at once: {rate:,.0f} responses/s in all, "
        f"{found['share_of_one'][number]:.0%} of one alone"
        for number, rate in found["responses_per_second"].items()
    ]


def _rate(expert: Path, seconds: float, number: int) -> float:
    """The sum of the processes' rates while all of them run."""
    context = multiprocessing.get_context("spawn")
    start, rates = context.Barrier(number), context.SimpleQueue()
    processes = [
        context.Process(target=_decode, args=(expert, seconds, start, rates)) for _ in range(number)
    ]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
        assert each.exitcode == 0, f"a process ended with {each.exitcode}"
    return sum(rates.get() for _ in processes)


def _decode(expert: Path, seconds: float, start: Barrier, rates: Any) -> None:
    """Decode for so many seconds from when all are ready; put responses per second."""
    from lightreasoner.data import microworld
    from lightreasoner.inference import loading, prompts
    from lightreasoner.inference.decode import decode

    model = loading.load_model(expert, "cpu", "float32")
    tokenizer = loading.load_tokenizer(expert)
    drawn = microworld.draw("tuned", "evaluate", PROBLEMS, 42)
    asked = prompts.encode_all(drawn, "qwen25-math-cot", tokenizer, MAX_NEW_TOKENS, 512, "")
    stop_ids = loading.stop_ids(expert, tokenizer)
    decode(model, asked, stop_ids, MAX_NEW_TOKENS)
    start.wait()
    clock, done = time.perf_counter(), 0
    while time.perf_counter() - clock < seconds:
        decode(model, asked, stop_ids, MAX_NEW_TOKENS)
        done += len(asked)
    rates.put(done / (time.perf_counter() - clock))
