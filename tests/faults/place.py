"""A pipeline of seconds in a folder of its own, and the programs that run there.

A `Place` has params.yaml and a home. A stage is started as the real console command, which loads
torch for seconds, or forked from a server that has done so: the same `main`, at once. What both
change on the disk is witnessed (witness/sitecustomize.py).
"""

import contextlib
import json
import multiprocessing
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import standins
from checkout import ROOT

from lightreasoner import config
from lightreasoner.cli.options import command_name
from lightreasoner.config import Params
from lightreasoner.pipeline.graph import EXTERNAL, STAGES, Stage

WITNESS = Path(__file__).with_name("witness")
ORPHANED = re.compile(
    r"Traceback \(most recent call last\):\n"
    r' +File "[^"\n]*multiprocessing/forkserver\.py".*\n(?: .*\n?)*'
)
CONSOLE = [sys.executable, "-c", "from flows.cli.console import main; main()"]
PURE = [sys.executable, "-m", "lightreasoner"]
IMPORTED = [*{stage.module: None for stage in STAGES.values()}, "flows.cli.app", "peft"]
"""What a forked stage finds imported, torch and transformers with it."""

LONGEST = 600
"""Seconds that any program may take, on a busy machine."""


@dataclass(frozen=True)
class Place:
    """A folder with params.yaml and a home."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / ".lightreasoner"

    @property
    def log(self) -> Path:
        """What its programs print."""
        return self.folder / "log"

    def make(self, params: Params) -> "Place":
        """Write params.yaml."""
        self.home.mkdir(parents=True, mode=0o700)
        (self.folder / "params.yaml").write_text(config.dump(params), encoding="utf-8")
        return self

    def out(self, stage: Stage) -> Path:
        """Where the stage's command puts its result."""
        return self.home / "data" / (stage.folder or stage.output)

    def environment(self, **more: object) -> dict[str, str]:
        """That of its programs: this home, one thread, no server; all changes witnessed."""
        away = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")
        own = {
            "LIGHTREASONER_HOME": self.home,
            "PREFECT_HOME": self.home / "prefect",
            "OMP_NUM_THREADS": 1,
            "PYTHONPATH": os.pathsep.join(map(str, (WITNESS, ROOT))),
            "FAULTS_WITNESS": self.folder / "changes",
            "FAULTS_UNDER": self.folder,
            **more,
        }
        kept = {name: value for name, value in os.environ.items() if name not in away}
        return kept | {name: str(value) for name, value in own.items()}

    def start(self, *command: str, **more: object) -> "Program":
        """A program of a process group of its own, as a terminal starts it."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=standins.hear,
            )
        return Program(self, process)

    def fork(self, stage: Stage, *options: str, **more: object) -> "Program":
        """The stage's command, forked from a process that has all imports behind it."""
        return self.forked(command_name(stage), *options, **more)

    def forked(self, *command: str, **more: object) -> "Program":
        """The same of any command."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        arguments = (list(command), self.folder, self.environment(**more))
        process = context.Process(target=_become, args=arguments)
        process.start()
        return Program(self, process)

    def listing(self) -> set[str]:
        """All that lies under home, but for what programs log, this device's rates, and the
        digests of large files, which depend on the second in which a file was written."""
        found = {path.relative_to(self.home).as_posix() for path in self.home.rglob("*")}
        return found - {"logs", "digests.json", "rates.json"}

    def unfinished(self) -> list[Path]:
        """What was begun beside its place (storage/aside.py) and is still there."""
        return list(self.home.rglob("*.unfinished-*"))

    def stored(self) -> dict[str, str]:
        """The digest of every result in the store, by stage and fingerprint."""
        found = {}
        for file in (self.home / "store").glob("*/*/manifest.json"):
            manifest = json.loads(file.read_text(encoding="utf-8"))
            found[f"{manifest['stage']}/{manifest['fingerprint']}"] = manifest["digest"]
        return found

    def said(self) -> str:
        """What its programs printed so far, but for what Python's own fork server prints where the
        process that asked it was killed between two of its writes."""
        if not self.log.exists():
            return ""
        return ORPHANED.sub("", self.log.read_text(encoding="utf-8", errors="replace"))

    def changes(self) -> list[tuple[str, Path]]:
        """What its programs changed on the disk so far, in order."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / "changes").read_text(encoding="utf-8").splitlines()
            return [(kind, Path(path)) for kind, _, path in (line.partition(" ") for line in lines)]
        return []

    def pieces(self) -> Counter[str]:
        """How often each shard was finished, and each checkpoint; both come last of theirs."""
        return Counter(
            str(path.relative_to(self.home))
            for kind, path in self.changes()
            if (kind == "os.rename" and path.suffix == ".parquet")
            or (kind == "open" and path.name == "trainer_state.json")
        )

    def processes(self) -> list[str]:
        """The command lines of all processes that work here."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                where = process.environ().get("LIGHTREASONER_HOME"), process.cwd()
                is_here = str(self.home) in where or str(self.folder) in where
                if is_here and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline())[:200])
        return found

    def has_begun(self, key: str) -> bool:
        """Whether this fingerprint is worked at, or was and left something."""
        return (self.home / "work" / key).exists()

    def is_at_work(self, program: "Program", key: str) -> bool:
        """Wait until this fingerprint is worked at; False if the program ends before."""
        end = time.monotonic() + LONGEST
        while not self.has_begun(key):
            if program.wait(0.02) is not None or time.monotonic() > end:
                return False
        return True

    def is_left_alone(self, seconds: float = 30) -> bool:
        """Whether no process is here any more, which may take a while."""
        end = time.monotonic() + seconds
        while self.processes():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True


class Program:
    """A process, started one way or the other; the leader of its group."""

    def __init__(
        self,
        place: Place,
        process: "subprocess.Popen[bytes] | multiprocessing.context.ForkServerProcess",
    ):
        self.place, self.process = place, process
        assert process.pid is not None
        self.pid = process.pid

    def wait(self, seconds: float = LONGEST) -> int | None:
        """How it ended, negative for a signal; None if it has not yet."""
        if isinstance(self.process, subprocess.Popen):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(seconds)
            return None
        self.process.join(seconds)
        return self.process.exitcode

    def send(self, number: signal.Signals, group: bool = False) -> None:
        """Send a signal to it, or to all that it has started as well."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def succeeds(self) -> None:
        """Wait for its end, which must be a good one."""
        status = self.wait()
        if status is None:
            self.send(signal.SIGKILL, group=True)
        assert status == 0, f"exit status {status}: {self.place.said()}"


def _become(command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    """In a forked process: be the console command."""
    import torch

    os.setsid()
    standins.hear()  # what comes before `main` hears anything ends it by the signal itself
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in (1, 2):
        os.dup2(log, number)
    torch.set_num_threads(1)
    runpy.run_path(str(WITNESS / "sitecustomize.py"))
    sys.argv = ["lightreasoner", *command]
    from flows.cli.console import main

    main()


def link(source: Path, target: Path) -> None:
    """A folder again, its files by hard link."""
    shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)


def given(stage: Stage) -> list[str]:
    """The results of other stages that a stage reads."""
    return [name for name in stage.inputs if name not in EXTERNAL]
