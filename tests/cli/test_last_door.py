"""How a command ends: a mistake, a fault of ours and Ctrl-C, none of them by a traceback."""

import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import json_lines
import pytest
import standins
import typer
from checkout import ROOT
from command_line import call, faults

from flows.cli import app
from lightreasoner import config
from lightreasoner.cli import last_door
from lightreasoner.errors import ProblemsError
from lightreasoner.untrusted import LINE, printable, printable_line

HEARING = """
from lightreasoner.cli import last_door
last_door.hear()
import os
os.write(1, b"#")
from flows.cli.console import main
main()
"""
BROKEN = """
from lightreasoner import config
def dump(_):
    raise ValueError("unforeseen")
config.dump = dump
"""
BROKEN_STAGE = """
from lightreasoner.data import sources
def draw_problems(*_):
    raise ValueError("unforeseen")
sources.draw_problems = draw_problems
"""
CONSOLE = "from flows.cli.console import main; main()"
PURE = "import runpy; runpy.run_module('lightreasoner', run_name='__main__')"


class PanicException(BaseException):
    """As tokenizers and safetensors raise it, which are written in Rust."""


@pytest.fixture(autouse=True)
def longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process goes on after the end of a command in it."""
    monkeypatch.setattr(last_door, "LAST_SECONDS", 1e6)


def recursion() -> None:
    recursion()


def memory() -> None:
    bytearray(1 << 60)


def panic() -> None:
    raise PanicException("index out of range")


def unforeseen() -> None:
    raise ValueError("unforeseen")


def long() -> None:
    raise ValueError("head\n\n\x1b[31mred\x9b " + "x" * 100_000 + "\r\ntail")


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    for name in ("is_inside", "was_interrupted", "goes_on"):
        monkeypatch.setattr(last_door._State, name, False)
    monkeypatch.setattr(sys, "argv", ["lightreasoner", "prepare"])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def end(command: Callable[[], object], home: Path) -> object:
    with pytest.raises(SystemExit) as ended:
        last_door.through(command, lambda: home)
    return ended.value.code


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (unforeseen, "ValueError: unforeseen"),
        (recursion, "RecursionError: maximum recursion depth exceeded"),
        (memory, "MemoryError"),
        (panic, "test_last_door.PanicException: index out of range"),
    ],
)
def test_a_fault_of_ours_is_one_line_and_its_traceback_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Callable[[], None], what: str
) -> None:
    home = tmp_path / "home"
    assert end(command, home) == 70
    log = home / "logs" / "faults.log"
    assert capsys.readouterr().err == (
        f"error: {what}: a fault of lightreasoner's own; the traceback to report is in {log}, and "
        "`lightreasoner --debug` shows it\n"
    )
    kept = log.read_text(encoding="utf-8")
    assert "lightreasoner prepare\nTraceback (most recent call last):\n" in kept
    assert f"in {command.__name__}\n" in kept
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (home, log.parent, log)]
    assert modes == [0o700, 0o700, 0o600]


def test_debug_shows_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lightreasoner", "--debug", "prepare"])
    assert end(unforeseen, tmp_path) == 70
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last):\n")
    assert said.splitlines()[-1].startswith("error: ValueError: unforeseen: a fault of ")


def test_a_home_that_takes_no_log_is_no_second_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in its place; a pipe that nobody reads in the log's; a home that cannot be told."""
    (tmp_path / "file").touch()
    (tmp_path / "home" / "logs").mkdir(parents=True)
    os.mkfifo(tmp_path / "home" / "logs" / "faults.log")

    def unknown() -> Path:
        raise ValueError("no home")

    for home in (lambda: tmp_path / "file", lambda: tmp_path / "home", unknown):
        with pytest.raises(SystemExit) as ended:
            last_door.through(unforeseen, home)
        assert ended.value.code == 70
        (line,) = capsys.readouterr().err.splitlines()
        assert "; the traceback could not be kept (" in line


def test_the_log_does_not_grow_for_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_door, "LOG_BYTES", 500)
    for _ in range(6):
        end(unforeseen, tmp_path)
    sizes = {file.name: file.stat().st_size for file in (tmp_path / "logs").iterdir()}
    assert sizes.keys() == {"faults.log", "faults.log.1"}
    assert max(sizes.values()) < 1500


@pytest.mark.parametrize("home", [["--home", "{}"], ["--home={}"]])
def test_the_home_that_is_given_has_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: list[str]
) -> None:
    given = [word.format(tmp_path / "given") for word in home]
    monkeypatch.setattr(sys, "argv", ["lightreasoner", "prepare", *given])
    end(unforeseen, tmp_path / "other")
    assert (tmp_path / "given" / "logs" / "faults.log").is_file()
    assert not (tmp_path / "other").exists()


def test_a_threads_fault_is_told_and_the_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        thread = threading.Thread(target=unforeseen)
        thread.start()
        thread.join()

    assert end(command, tmp_path) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ValueError: unforeseen: a fault of lightreasoner's own; ")


def test_mistakes_outside_of_any_command_are_lines_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise ProblemsError("nothing\nto do")

    assert end(command, tmp_path) == 2
    assert end(lambda: (tmp_path / "none").read_bytes(), tmp_path) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: nothing / to do",
        f"error: {tmp_path / 'none'}: no such file or directory",
    ]


def test_statuses_pass(tmp_path: Path) -> None:
    assert end(lambda: None, tmp_path) == 0
    assert end(lambda: sys.exit(143), tmp_path) == 143


def test_a_message_is_one_short_line_that_steers_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end(long, tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(r"error: ValueError: head / \x1b[31mred\x9b xxx")
    assert "xxx / tail: a fault of lightreasoner's own; " in line
    assert " [98," in line
    assert len(line) < LINE + 500
    assert "\x1b" not in (tmp_path / "logs" / "faults.log").read_text(encoding="utf-8")


def test_printable_text_stays() -> None:
    for text in ("plain √ é 数 🙂", "a\tb\nc", "x" * LINE):
        assert printable(text) == text
    assert printable("\x00\x7f\x85\u202e\ud800") == r"\x00\x7f\x85\u202e\ud800"
    assert printable_line(" a \r\n\n b ") == "a / b"


def test_a_name_with_escapes_does_not_reach_the_terminal(tmp_path: Path) -> None:
    (line,) = faults(call("grade", str(tmp_path / "no\x1b[2J\nsuch"), "out.jsonl"))
    assert line.startswith(rf"{tmp_path}/no\x1b[2J / such: ")


def test_a_file_that_ends_too_early_is_not_taken_for_ctrl_d(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dump(_: object) -> str:
        raise EOFError

    monkeypatch.setattr(config, "dump", dump)
    result = call("preset", "microworld", "--params", str(tmp_path / "params.yaml"))
    assert isinstance(result.exception, RuntimeError)


def test_ctrl_c_is_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also what came up because of it, and where nothing can catch it, in a destructor."""

    class Left:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def turned() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy could not be imported") from None

    def destroyed() -> None:
        left = [Left()]
        left.clear()
        time.sleep(10)

    for command in (lambda: signal.raise_signal(signal.SIGINT), turned, destroyed):
        last_door._State.was_interrupted = False
        assert end(command, tmp_path) == 130
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_is_heard_in_a_destructor(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Left:
        def __del__(self) -> None:
            signal.raise_signal(number)

    def destroyed() -> None:
        left = [Left()]
        left.clear()
        time.sleep(10)

    before = signal.signal(number, app._end)
    try:
        assert end(destroyed, tmp_path) == 128 + number
    finally:
        signal.signal(number, before)
    assert capsys.readouterr().err == ""


def test_a_signal_to_end_a_flow_is_heard_in_a_destructor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """During a flow SIGTERM is Prefect's, and what it raises is Prefect's own exception."""
    from prefect.utilities.engine import capture_sigterm

    class Left:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def destroyed() -> None:
        with capture_sigterm():
            left = [Left()]
            left.clear()
            time.sleep(10)
            raise AssertionError("the signal is lost")

    before = signal.signal(signal.SIGTERM, app._end)
    try:
        assert end(destroyed, tmp_path) == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == ""


STUCK = """
import signal, sys, threading
from pathlib import Path
from lightreasoner.cli import last_door
def command():
    threading.Thread(target=threading.Event().wait).start()  # nobody ends it
    if sys.argv[1] == "0":
        raise SystemExit(143)
    signal.raise_signal(int(sys.argv[1]))
last_door.LAST_SECONDS = 0.5
last_door.through(command, Path)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (0, 143)])
def test_a_thread_that_nobody_ends_does_not_hold_a_command_that_was_told_to_end(
    number: int, status: int
) -> None:
    """As where the signal comes while a pool starts a thread, before the pool has noted it."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-c", STUCK, str(int(number))]
    assert subprocess.run(program, env=environ, timeout=60).returncode == status


def test_ctrl_c_says_that_the_command_goes_on_where_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stage() -> None:
        last_door.goes_on()
        signal.raise_signal(signal.SIGINT)

    app = typer.Typer()
    app.command()(stage)
    for command in (stage, lambda: app([])):
        last_door._State.was_interrupted = False
        assert end(command, tmp_path) == 130
        assert capsys.readouterr().err == "interrupted; the same command goes on\n"


def start(*arguments: str, home: Path) -> "subprocess.Popen[str]":
    """A command in a group of processes of its own, as a terminal starts it."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "LIGHTREASONER_HOME": str(home)}
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME"):
        environ.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-c", *arguments],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=standins.hear,
    )


def interrupt(home: Path, seconds: float, *arguments: str) -> tuple[int, str]:
    """The exit status and output of a command that gets Ctrl-C that long after it can hear it."""
    with start(HEARING, *arguments, home=home) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == "#"
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=120)
    return process.returncode, said


def quiet_at_moments(tmp_path: Path, seed: int, tries: int, longest: float, *command: str) -> None:
    """Over before its moment, a command has ended as it should.

    A shell says 130, too, of one that ends by the signal itself, as the interpreter does when it
    is closing down.
    """
    moments = random.Random(seed)
    for _ in range(tries):
        seconds = moments.uniform(0, longest)
        status, said = interrupt(tmp_path / "home", seconds, *command)
        assert status in (0, 130, -signal.SIGINT), (seconds, said)
        assert "Traceback" not in said, (seconds, said)
        assert "error:" not in said, (seconds, said)


def test_ctrl_c_within_the_first_second(tmp_path: Path) -> None:
    assert interrupt(tmp_path / "home", 0, "prepare") == (130, "")
    quiet_at_moments(tmp_path, 1, 3, 1.0, "prepare", "--out", str(tmp_path / "out"))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("command", "tries", "longest"),
    [("prepare", 20, 2.0), ("generate", 15, 10.0), ("grade", 20, 5.0), ("run", 15, 30.0)],
)
def test_ctrl_c_at_any_moment(tmp_path: Path, command: str, tries: int, longest: float) -> None:
    row = {"benchmark": "mine", "record": {"question": "q", "answer": r"\frac{1}{3}"}}
    rows = [{**row, "response": rf"\boxed{{\frac{{{n}+x^2}}{{3}}}}"} for n in range(1000)]
    file, out = json_lines.write(tmp_path / "in.jsonl", rows), str(tmp_path / "out")
    options = {
        "prepare": ("--out", out),
        "generate": ("--problems", str(tmp_path / "problems"), "--out", out),
        "grade": (str(file), f"{out}.jsonl"),
        "run": (),
    }
    with start(HEARING, "prepare", "--out", str(tmp_path / "problems"), home=tmp_path) as process:
        process.communicate()
    quiet_at_moments(tmp_path, 2, tries, longest, command, *options[command])


@pytest.mark.nightly
def test_a_fault_in_a_flow_is_one_line_too(tmp_path: Path) -> None:
    with start(f"{BROKEN_STAGE}{CONSOLE}", "run", home=tmp_path) as process:
        said, _ = process.communicate()
    assert process.returncode == 70, said
    first, second = said.splitlines()
    assert first.startswith("records: ")
    assert second.startswith("error: ValueError: unforeseen: a fault of lightreasoner's own; ")


@pytest.mark.parametrize("starting", [CONSOLE, PURE], ids=["console", "pure"])
def test_both_command_lines_have_the_door(tmp_path: Path, starting: str) -> None:
    where = tmp_path / "params.yaml"
    code = BROKEN + starting
    with start(code, "preset", "microworld", "--params", str(where), home=tmp_path) as process:
        said, _ = process.communicate()
    assert process.returncode == 70, said
    assert said.startswith("error: ValueError: unforeseen: a fault of lightreasoner's own; ")
    assert said.count("\n") == 1
    assert not where.exists()
