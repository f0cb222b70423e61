"""Fine-tuning on several processes of this machine: started, heard and ended together.

    python -m lightreasoner.tuning.launch    one of them (a rank); its job is a line of JSON

torchrun's agent would listen on all of the machine's addresses; these meet in a file and talk on
loopback alone. When one fails the others are ended. When this process is gone their input
ends, and so do they.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

from lightreasoner import errors, processes
from lightreasoner.errors import LightReasonerError, ModelError
from lightreasoner.progress import Silent
from lightreasoner.storage import artifacts
from lightreasoner.storage.artifacts import Artifact, Inputs, Workspace

if TYPE_CHECKING:
    from lightreasoner.config import Finetune
    from lightreasoner.progress import Watcher

log = logging.getLogger(__name__)

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
SECONDS_TO_TELL = 2.0
"""What the others say after the first failure is waited for so long: it may be the cause."""

Heard = queue.SimpleQueue[dict[str, Any]]


def check(n: int, device: str) -> None:
    """Refuse more processes than devices: GPUs or, on a CPU, cores. Raises ModelError.

    Also a start of this process by torchrun or `accelerate launch`, whose others would wait for
    this one's result while it waits for them.
    """
    if (size := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise ModelError(
            f"WORLD_SIZE is {size}: finetune was started by torchrun or the like; start it once, "
            "as any command, and set finetune.processes"
        )
    if n == 1:
        return
    if device == "cuda":
        import torch

        there, what = torch.cuda.device_count(), "GPUs"
    else:
        there, what = processes.usable_cores(), "cores"
    if n > there:
        raise ModelError(
            f"finetune.processes {n}: there are {there} {what}, and each process takes one; lower "
            "it"
        )


def run(inputs: Inputs, config: "Finetune", work: Workspace, watcher: "Watcher") -> None:
    """Tune in `config.processes` processes; what one of them raises is raised here.

    Raises ModelError if one is killed.
    """
    work.scratch.mkdir(parents=True, exist_ok=True)
    meeting = work.scratch / "meeting"
    meeting.unlink(missing_ok=True)
    job = {
        "inputs": {name: (str(each.path), each.digest) for name, each in inputs.items()},
        "config": config.model_dump(mode="json"),
        "compute": work.compute.model_dump(mode="json"),
        "out": str(work.out),
        "scratch": str(work.scratch),
        "meeting": str(meeting),
    }
    heard, ranks = Heard(), list[Popen[bytes]]()
    try:
        for rank in range(config.processes):
            ranks.append(_start(rank, config.processes, work.compute.device, job, heard))
        _follow(heard, len(ranks), watcher)
    finally:
        for process in ranks:
            process.kill()
        for process in ranks:
            process.wait()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        meeting.unlink(missing_ok=True)


def _start(rank: int, n: int, device: str, job: dict[str, Any], heard: Heard) -> "Popen[bytes]":
    own = {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
    if device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        own["CUDA_VISIBLE_DEVICES"] = visible.split(",")[rank] if visible else str(rank)
    else:
        own["OMP_NUM_THREADS"] = str(max(1, processes.usable_cores() // n))
    process = processes.start(__name__, **own)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its end is heard
        process.stdin.write(json.dumps({**job, "rank": rank}).encode() + b"\n")
        process.stdin.flush()
    threading.Thread(target=_listen, args=(process, heard), daemon=True).start()
    return process


def _listen(process: "Popen[bytes]", heard: Heard) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            heard.put(json.loads(line))
    heard.put({"ended": process.wait()})


def _follow(heard: Heard, running: int, watcher: "Watcher") -> None:
    """Pass on what is said until all have ended well. Raises the cause if one has not."""
    while running:
        said = heard.get()
        if "progress" in said:
            watcher.progress(*said["progress"])
        elif "metric" in said:
            watcher.metric(*said["metric"])
        elif "warning" in said:
            log.warning("%s", said["warning"])
        elif said.get("ended") == 0:
            running -= 1
        else:
            raise _cause([said, *_rest(heard)])


def _rest(heard: Heard) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    with contextlib.suppress(queue.Empty):
        while True:
            found.append(heard.get(timeout=SECONDS_TO_TELL))
    return found


def _cause(said: list[dict[str, Any]]) -> Exception:
    """A killed process, else a user's mistake, else the first error: the others lost a peer."""
    codes = [each["ended"] for each in said if "ended" in each]
    told = [each["error"] for each in said if "error" in each]
    told.sort(key=lambda error: not hasattr(errors, error["kind"]))
    killed = [signal.Signals(-code).name for code in codes if code < 0]
    if killed or not told:
        how = killed[0] if killed else f"status {codes[0]}"
        return ModelError(
            f"a process of finetune.processes died ({how}); the last checkpoint is kept, run "
            "again, with a lower finetune.samples_per_forward if memory was short"
        )
    error: Exception = getattr(errors, told[0]["kind"], RuntimeError)(told[0]["text"])
    error.add_note(told[0]["traceback"])
    return error


class _Speaker(logging.Handler):
    """A rank's watcher, and where its warnings go: lines of JSON."""

    def __init__(self, pipe: IO[str]):
        super().__init__(logging.WARNING)
        self.pipe = pipe

    def say(self, **what: Any) -> None:
        self.pipe.write(json.dumps(what) + "\n")
        self.pipe.flush()

    def emit(self, record: logging.LogRecord) -> None:
        self.say(warning=record.getMessage())

    def progress(self, done: int, total: int, unit: str) -> None:
        self.say(progress=(done, total, unit))

    def metric(self, name: str, value: float, step: int) -> None:
        self.say(metric=(name, value, step))


def main() -> None:
    """Be a rank: tune with the others, and tell what comes up."""
    speaker = _Speaker(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # whatever else prints
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        _tune(job, speaker)
    except Exception as error:  # noqa: BLE001, told to who started this
        found = artifacts.disk_full(error, Path(job["out"]))
        text = (
            str(found)
            if isinstance(found, LightReasonerError)
            else f"{type(error).__name__}: {error}"
        )
        speaker.say(
            error={
                "kind": type(found).__name__,
                "text": text,
                "traceback": "".join(traceback.format_exception(error)),
            }
        )
        os._exit(1)  # not by way of a group whose others may be gone


def _end_with_input() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _tune(job: dict[str, Any], speaker: _Speaker) -> None:
    from lightreasoner.tuning import finetune, ranks

    for name in ("lightreasoner", "transformers"):
        logging.getLogger(name).handlers = [speaker if job["rank"] == 0 else logging.NullHandler()]
    # It takes a group that it did not make for a mistake.
    logging.getLogger("transformers.training_args").setLevel(logging.ERROR)
    config: Any = SimpleNamespace(**job["config"])
    compute: Any = SimpleNamespace(**job["compute"])
    inputs = {name: Artifact(Path(path), digest) for name, (path, digest) in job["inputs"].items()}
    work = Workspace(Path(job["out"]), Path(job["scratch"]), compute)
    watcher = speaker if job["rank"] == 0 else Silent()
    with ranks.joined(job["rank"], config.processes, Path(job["meeting"]), compute.device):
        finetune.tune(inputs, config, work, watcher)


if __name__ == "__main__":
    main()
