"""The last door of the command line: however a command ends, in lines that say what to do.

    a user's mistake   what, the value, the limit and the remedy                 exit status 2
    a fault of ours    what, and where its traceback is, to be reported          70 (EX_SOFTWARE)
    Ctrl-C             nothing, or that the same command goes on                 130

Ctrl-C is heard while modules are imported and at the end, too. A thread's fault is told as the
others are, and the command goes on. What tells faults is imported when there is one, so that Ctrl-C
is heard from the first moment on.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from threading import ExceptHookArgs
    from types import FrameType

MISTAKE, FAULT, INTERRUPTED = 2, 70, 130
LOG = Path("logs", "faults.log")
"""Below home. A full one becomes faults.log.1, in place of the one before."""
LOG_BYTES = 1 << 20
LAST_SECONDS = 20.0
"""How long a command that a signal has ended waits for its threads. One whose start the signal
interrupted may be known to nobody, so that nobody ends it."""


class _State:
    is_inside = was_interrupted = goes_on = False


def goes_on() -> None:
    """From now on this command keeps what it has finished, and says so at Ctrl-C."""
    _State.goes_on = True


def hear() -> None:
    """Let Ctrl-C end this process, unless whoever started it has it ignore that (nohup)."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_number: int, _frame: "FrameType | None") -> NoReturn:
    """End the process at once, but a command as exceptions do."""
    if not _State.is_inside:
        os._exit(INTERRUPTED)
    _State.was_interrupted = True
    raise KeyboardInterrupt


def through(command: Callable[[], object], home: Callable[[], Path]) -> NoReturn:
    """Run a command line and end the process; tracebacks of faults go to the log below home.

    Assignments alone stand between a command and the guard around it: no signal comes up there.
    """
    hear()
    sys.unraisablehook = _unraisable
    import threading

    threading.excepthook = lambda found: _in_thread(found, home)
    try:
        _State.is_inside = True
        command()
        _State.is_inside = False
        status: Any = 0
    except SystemExit as end:
        _State.is_inside = False
        status = end.code
    except BaseException as error:  # noqa: BLE001, also a panic of a library in Rust
        _State.is_inside = False
        interrupted = _State.was_interrupted or isinstance(error, KeyboardInterrupt)
        status = INTERRUPTED if interrupted else _told(error, home)
    if status == INTERRUPTED and _State.goes_on:
        _say("interrupted; the same command goes on")
    if isinstance(status, int) and status > 128:
        last = threading.Timer(LAST_SECONDS, os._exit, [status])
        last.daemon = True
        last.start()
    sys.exit(status)


def _told(error: BaseException, home: Callable[[], Path]) -> int:
    """Tell what came up; the exit status."""
    from lightreasoner.errors import LightReasonerError

    if isinstance(error, LightReasonerError | OSError):
        tell_mistake(error, _is_debugging())
        return MISTAKE
    _tell_fault(error, home)
    return FAULT


def tell_mistake(error: Exception, debug: bool) -> None:
    """Print an error that a user can fix, a line per fault; its traceback first, if asked."""
    if debug:
        _say(_traceback(error))
    for fault in getattr(error, "faults", None) or [_message(error)]:
        _say(f"error: {_in_one_line(fault)}")


def _is_debugging() -> bool:
    """Whether --debug is among the arguments, also where they could not be read."""
    return "--debug" in sys.argv


def _message(error: Exception) -> str:
    """An error in words: the file, then what is wrong with it."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}"
    return str(error)


def _tell_fault(error: BaseException, home: Callable[[], Path]) -> None:
    import traceback

    text = _traceback(error)
    if _is_debugging():
        _say(text)
    try:
        kept = f"the traceback to report is in {_log(text, home)}"
    except Exception as other:  # noqa: BLE001, home may be what is at fault
        kept = f"the traceback could not be kept ({_in_one_line(str(other))})"
    what = _in_one_line("".join(traceback.format_exception_only(error)))
    _say(
        f"error: {what}: a fault of lightreasoner's own; {kept}, and `lightreasoner --debug` "
        "shows it"
    )


def _log(text: str, home: Callable[[], Path]) -> Path:
    """Add a traceback to the log, which only this user can read; the log."""
    import datetime
    import platform

    file = _given_home(sys.argv) or home()
    file = file.absolute() / LOG
    for folder in (file.parents[1], file.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if file.is_file() and file.stat().st_size > LOG_BYTES:
        file.replace(file.with_suffix(".log.1"))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    command = _in_one_line(" ".join(sys.argv))
    with os.fdopen(os.open(file, flags, 0o600), "a", encoding="utf-8") as log:
        log.write(f"{now} Python {platform.python_version()}: {command}\n{text[-LOG_BYTES:]}\n")
    return file


def _given_home(arguments: list[str]) -> Path | None:
    """The value of --home, if there is one."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, is_joined, value = word.partition("=")
        if name == "--home" and (value or following):
            return Path(value if is_joined else following)
    return None


def _traceback(error: BaseException) -> str:
    import traceback

    from lightreasoner.untrusted import printable

    return printable("".join(traceback.format_exception(error)))


def _in_one_line(text: str) -> str:
    from lightreasoner.untrusted import printable_line

    return printable_line(text)


def _say(line: str) -> None:
    import contextlib

    with contextlib.suppress(OSError, ValueError):  # it may be closed
        print(line, file=sys.stderr, flush=True)


def _in_thread(found: "ExceptHookArgs", home: Callable[[], Path]) -> None:
    """What no code of a thread caught. It need not end the command."""
    if found.exc_value is not None and not _State.was_interrupted:
        _tell_fault(found.exc_value, home)


def _signal_of(error: BaseException | None) -> int | None:
    """The signal whose handler raised an exception: Ctrl-C's, one that ends with 128 + n, or
    Prefect's during a flow, whose TerminationSignal says its number.
    """
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    if isinstance(error, SystemExit):
        return error.code - 128 if isinstance(error.code, int) and error.code > 128 else None
    number = getattr(error, "signal", None)
    return number if isinstance(number, int) else None


def _unraisable(found: Any) -> None:
    """What came up where nothing can catch it, as in a destructor; a signal comes up again.

    Anything else that does so because of Ctrl-C is not shown.
    """
    if number := _signal_of(found.exc_value):
        import threading

        main = threading.main_thread().ident
        threading.Timer(0.01, signal.pthread_kill, (main, number)).start()
    elif not _State.was_interrupted:
        sys.__unraisablehook__(found)
