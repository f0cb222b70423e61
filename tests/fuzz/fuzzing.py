"""Fuzzing: seeded bad input in this process, and what has to come of it.

A case is accepted, or refused by an error that a user can read: one line, short, in time, within
memory. A test makes its cases by a function of a generator of random numbers:

    def test_rows(tmp_path: Path, record_property: Any) -> None:
        fuzz(lambda rng: damaged(rng, GOOD), lambda content: read(tmp_path, content), quick=50)

FUZZ_TIMES  so many times each test's quick number of cases (default 1; `make test-fuzz`: 25)
FUZZ_SEED   another seed (default 0)
FUZZ_CASE   only this case, by its number: a failure names it
"""

import copy
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, NoReturn, TypeVar

from lightreasoner.errors import LightReasonerError

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
SEED = os.environ.get("FUZZ_SEED", "0")
CPU_SECONDS = 5.0
MEMORY = 2 << 30
"""Bytes of address space that a case may take beyond what the process has."""

LONGEST = 2_000
"""Characters of a line of an error message."""

MOST = 50
"""Lines of an error message."""

Case = TypeVar("Case")


class TooSlowError(BaseException):
    """A case took too much CPU time; no `except Exception` takes it for a refusal."""


def fuzz(
    make: Callable[[Random], Case],
    attempt: Callable[[Case], object],
    quick: int,
    refusals: tuple[type[Exception], ...] = (LightReasonerError,),
) -> int:
    """Try `quick` cases, times FUZZ_TIMES. How many were accepted. Fails with the first bad one."""
    only = os.environ.get("FUZZ_CASE")
    accepted = 0
    for number in [int(only)] if only else range(quick * TIMES):
        case = make(Random(f"{SEED}/{number}"))
        try:
            accepted += cope(lambda case=case: attempt(case), refusals) is None  # type: ignore[misc]
        except (Exception, TooSlowError) as error:
            said = f"{type(error).__name__}: {error!s:.500}\n{case!r:.3000}"
            raise AssertionError(f"FUZZ_SEED={SEED} FUZZ_CASE={number}: {said}") from error
    return accepted


def cope(
    call: Callable[[], object], refusals: tuple[type[Exception], ...] = (LightReasonerError,)
) -> str | None:
    """The message by which a call refuses its input; None if it accepts it.

    Anything else fails: another error, a message that is long or of odd characters, too much time
    or memory.
    """
    began = time.process_time()
    error = None
    try:
        with _limits():
            call()
    except refusals as refusal:
        error = refusal
    took = time.process_time() - began
    assert took < CPU_SECONDS, f"took {took:.1f} s of CPU time"
    if error is None:
        return None
    lines = getattr(error, "faults", None) or [str(error)]
    assert len(lines) <= MOST, f"too many lines: {len(lines)}"
    for line in lines:
        check_line(line)
    return str(error)


def check_line(line: str) -> None:
    """A line of an error message is one line, not empty, short, and can be printed."""
    assert line.strip(), "an empty message"
    assert len(line) <= LONGEST, f"a message of {len(line):,} characters: {line[:200]!r}..."
    assert len(line.splitlines()) == 1, f"a message of several lines: {line!r:.500}"
    assert line.encode("utf-8", "surrogateescape"), line
    assert not any(ord(character) < 32 for character in line), f"control characters: {line!r:.500}"


@contextmanager
def _limits() -> Iterator[None]:
    """CPU time by a timer that pytest-timeout does not use, and address space."""
    before = signal.signal(signal.SIGPROF, _too_slow)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + MEMORY, hard))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


def _too_slow(_number: int, _frame: FrameType | None) -> NoReturn:
    raise TooSlowError(f"over {CPU_SECONDS} s of CPU time")


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


ODD_TEXTS = (
    "", " ", "\0", "a\0b", "\n", "a\nb", "\r", "\x1b[31m", "\u2028", "\x85", "\ud83d", "\udcff",
    "é", "x" * 300, "x" * 100_000, "/", ".", "..", "../..", "/dev/zero", "/dev/null", "~",
    "null", "true", "nan", "inf", "1e999", "-0", "0x10", "0o17", "1_000", "1:30", "2001-99-99",
    "2001-12-14", "9" * 400, "9" * 5_000, "!!int x", "!!float x", "!!binary x", "!!timestamp x",
    "&a [*a]", "*a", "{", "[", "]", "'", '"', "#", "%", "@", "`", "a: b", "- a", "[" * 1_500,
    "{a: " * 300, "{{ 1 }}", "%s", "{}", "\\", "\\boxed{", "####", "<|im_end|>", "😀" * 50,
    "a" * 5_000 + "\n",
)  # fmt: skip
ODD_NUMBERS = (
    0, -1, 1, 2, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**12, 10**30,
    10**299, 10**400, 0.5, -0.0, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
ODD_VALUES = (None, True, False, [], {}, [None], [[]], {"": None}, *ODD_NUMBERS)


def odd_value(rng: Random, depth: int = 3) -> Any:
    """A value as JSON or YAML may say it, none too sensible."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(ODD_TEXTS)
    if kind < 0.8 or not depth:
        return rng.choice(ODD_VALUES)
    members = [odd_value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    if kind < 0.82:
        return nested(rng.choice([50, 101, 400]))
    return members if kind < 0.9 else {str(rng.choice(ODD_TEXTS)): each for each in members}


def nested(depth: int) -> Any:
    """Lists in lists."""
    tree: Any = 1
    for _ in range(depth):
        tree = [tree]
    return tree


def damaged_tree(rng: Random, tree: Any, changes: int = 3) -> Any:
    """A copy of a tree of JSON with members replaced, dropped, added or moved about."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, changes)):
        place = rng.choice(list(_containers(tree)) or [[]])
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        action = rng.random()
        if not keys or action < 0.1:
            _put(place, odd_value(rng))
        elif action < 0.3:
            del place[rng.choice(keys)]
        elif action < 0.45:
            place[rng.choice(keys)] = copy.deepcopy(place[rng.choice(keys)])
        else:
            place[rng.choice(keys)] = odd_value(rng)
    return tree


def _put(place: Any, value: Any) -> None:
    if isinstance(place, dict):
        place["odd"] = value
    else:
        place.append(value)


def _containers(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list):
        yield tree
        for each in list(tree.values()) if isinstance(tree, dict) else tree:
            yield from _containers(each)


def damaged(rng: Random, content: bytes, changes: int = 4) -> bytes:
    """Bytes with some flipped, cut, doubled, zeroed or put in."""
    found = bytearray(content)
    for _ in range(rng.randint(1, changes)):
        at = rng.randrange(len(found) + 1)
        end = min(len(found), at + rng.choice([1, 1, 2, 8, 64, 1_000]))
        action = rng.randrange(6)
        if action == 0:
            del found[at:]
        elif action == 1:
            del found[at:end]
        elif action == 2:
            found[at:at] = found[at:end]
        elif action == 3:
            found[at:end] = bytes(end - at)
        elif action == 4:
            found[at:at] = str(rng.choice(ODD_TEXTS)).encode("utf-8", "surrogatepass")[:6_000]
        elif at < len(found):
            found[at] ^= 1 << rng.randrange(8)
    return bytes(found)
