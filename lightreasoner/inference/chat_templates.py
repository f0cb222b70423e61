"""A model's chat template, rendered by a process of its own: it is a stranger's program.

Jinja's sandbox keeps it from files and from code, but not from loops without end or from texts that
fill the memory; and a process can be killed. One that stays, as its modules take a second to
import, forks another for each set of prompts, and that calls what transformers' own
`apply_chat_template` does.

    python -m lightreasoner.inference.chat_templates     JSON lines in, JSON lines out
"""

import atexit
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import psutil

from lightreasoner import processes
from lightreasoner.errors import ModelError
from lightreasoner.untrusted import one_line

SECONDS = 10.0
"""Of CPU time for a set, and EACH more for each of its prompts, which takes a tenth of that."""

EACH = 0.01
PATIENCE = 10
"""How many times as long it may take by the clock, on a busy machine."""

MEMORY = 1 << 30
"""Bytes of address space beyond what Python and its modules have."""

LONGEST = 1 << 20
"""Characters of a template, and of a prompt."""

Conversation = list[dict[str, str]]


def render(
    template: str, special_tokens: dict[str, Any], conversations: list[Conversation]
) -> list[str]:
    """The prompt of each conversation, up to the model's own turn.

    Raises ModelError with the reason: what the template says, raises, or takes too much of.
    """
    if len(template) > LONGEST:
        raise ModelError(f"it has {len(template):,} characters; the limit is {LONGEST:,}")
    seconds = SECONDS + EACH * len(conversations)
    said = _process.ask([template, special_tokens, conversations, seconds])
    if "texts" in said:
        texts: list[str] = said["texts"]
        return texts
    raise ModelError(said.get("refusal") or f"it takes over {seconds:g} s or {MEMORY:,} bytes")


class _Process:
    """The process that stays, started when it is first asked; it ends with this one."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.running: subprocess.Popen[bytes] | None = None
        self.owner = os.getpid()

    def ask(self, asked: list[Any]) -> dict[str, Any]:
        """What it answers; nothing if the template's process was killed."""
        with self.turn:
            if self.owner != os.getpid() or self.running is None or self.running.poll() is not None:
                self._start()
            assert self.running is not None
            assert self.running.stdin is not None
            assert self.running.stdout is not None
            try:
                self.running.stdin.write(json.dumps(asked, default=str).encode() + b"\n")
                self.running.stdin.flush()
                answer: dict[str, Any] = json.loads(self.running.stdout.readline() or b"{}")
            except BaseException:  # its answer would be taken for the next one's
                self.end()
                raise
            return answer

    def _start(self) -> None:
        self.owner = os.getpid()
        self.running = processes.start(__name__, OPENBLAS_NUM_THREADS="1")  # it forks

    def end(self) -> None:
        """Kill it; a fork's is its parent's."""
        if self.running is not None and self.owner == os.getpid():
            self.running.kill()
            self.running.communicate()
        self.running = None


_process = _Process()
atexit.register(_process.end)


def main() -> None:
    """Answer each line with the texts, with a refusal, or with nothing."""
    import transformers.utils.chat_template_utils  # noqa: F401, for all that fork from here

    for line in sys.stdin.buffer:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(json.dumps(_answer(*json.loads(line))).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        sys.stdout.buffer.write((answer if status == 0 else b"{}") + b"\n")
        sys.stdout.buffer.flush()


def _answer(
    template: str, special_tokens: dict[str, Any], conversations: list[Conversation], seconds: float
) -> dict[str, Any]:
    """The texts, or a refusal, within limits that end this process."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    signal.alarm(math.ceil(PATIENCE * seconds))
    cpu = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    space = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    try:
        texts, _ = render_jinja_template(
            conversations=conversations,
            chat_template=template,
            add_generation_prompt=True,
            **special_tokens,
        )
    except MemoryError:
        return {"refusal": f"it takes over {MEMORY:,} bytes"}
    except Exception as error:  # noqa: BLE001, whatever the template does
        kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
        return {"refusal": f"{kind}{one_line(error)}"}
    if (longest := max(map(len, texts), default=0)) > LONGEST:
        return {"refusal": f"its prompt has {longest:,} characters; the limit is {LONGEST:,}"}
    return {"texts": texts}


if __name__ == "__main__":
    main()
