"""Who uses a store and who removes something from it do not meet."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import PATHS

from lightreasoner.errors import ArtifactError
from lightreasoner.storage import in_use


def test_nothing_is_removed_while_another_process_uses_the_store(tmp_path: Path) -> None:
    """One that only waits to use it waits until that is over."""
    code = (
        "import sys; from pathlib import Path; from lightreasoner.storage import in_use\n"
        "print('asks', flush=True); in_use.hold(Path(sys.argv[1])); print('has it', flush=True)\n"
        "input()"
    )
    command, env = [sys.executable, "-c", code, str(tmp_path)], os.environ | {"PYTHONPATH": PATHS}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    in_use.hold(tmp_path)
    with in_use.alone(tmp_path), subprocess.Popen(command, **pipes) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "asks\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.2)
        other.kill()
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() + other.stdout.readline() == "asks\nhas it\n"
        with (
            pytest.raises(ArtifactError, match="uses the store; let it end"),
            in_use.alone(tmp_path),
        ):
            raise AssertionError
        other.kill()
    with in_use.alone(tmp_path):
        pass
