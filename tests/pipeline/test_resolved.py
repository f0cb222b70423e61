"""What `compute: auto` stands for, and that torch is asked only where there may be a GPU."""

import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest
import torch

from lightreasoner.config import Compute
from lightreasoner.pipeline.graph import resolved

CODE = """
import sys
from lightreasoner.config import Compute
from lightreasoner.pipeline.graph import resolved
print(resolved(Compute(device="auto", dtype="auto")).device, "torch" in sys.modules)
"""


def test_auto_is_what_torch_finds() -> None:
    found = resolved(Compute(device="auto", dtype="auto"))
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        assert (found.device, found.dtype) == ("cuda", "bfloat16" if fast else "float32")
    else:
        assert (found.device, found.dtype) == ("cpu", "float32")


def test_what_is_given_stays() -> None:
    found = resolved(Compute(device="cpu", dtype="bfloat16"))
    assert (found.device, found.dtype) == ("cpu", "bfloat16")


def _with_torch_built_for(
    folder: Path, cuda: str | None, hip: str | None
) -> "subprocess.CompletedProcess[str]":
    """`auto` beside a stand-in torch that says what it was built for, and has a GPU."""
    (folder / "torch").mkdir()
    said = "class cuda:\n    is_available = staticmethod(lambda: True)\n"
    said += "    is_bf16_supported = staticmethod(lambda including_emulation: True)\n"
    (folder / "torch" / "__init__.py").write_text(said, encoding="utf-8")
    built = f"cuda = {cuda!r}\nhip = {hip!r}\n"
    (folder / "torch" / "version.py").write_text(built, encoding="utf-8")
    path = f"import sys; sys.path.insert(0, {str(folder)!r})"
    return subprocess.run(
        [sys.executable, "-c", path + CODE], capture_output=True, text=True, check=True
    )


@pytest.mark.parametrize(
    ("hip", "said"),
    [(None, "cpu False"), ("7.0", "cuda True")],  # ROCm's GPUs are torch's `cuda`, too
)
def test_torch_is_asked_if_it_was_built_for_a_gpu(
    tmp_path: Path, hip: str | None, said: str
) -> None:
    assert _with_torch_built_for(tmp_path, None, hip).stdout.strip() == said


@pytest.mark.skipif(find_library("cuda") is not None, reason="CUDA's driver is here")
def test_torch_is_not_asked_without_the_driver(tmp_path: Path) -> None:
    assert _with_torch_built_for(tmp_path, "13.0", None).stdout.strip() == "cpu False"
