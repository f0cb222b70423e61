"""Set-up: what the locks hold, and how scripts/setup.sh makes and repairs the environments.

The script runs here with an interpreter that only writes down what it is asked for; the real
set-up is what these tests run in.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
from checkout import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *version_info*) echo "${FAKE_VERSION:-3.12}" ;;
    *_base_executable*) echo "$0" ;;
    *purelib*) dirname "$0" ;;
    *"pip check"*) echo "${FAKE_CHECK:-No broken requirements found.}" ;;
    "-m venv "*) echo "venv $3" >> "$LOG"; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    *) echo "${*#*-qq }" >> "$LOG"; case "$*" in *"${FAIL:-nothing}"*) exit 1 ;; esac ;;
esac
"""

MAKE_VENV = [
    "venv .venv",
    "install --no-compile --require-hashes --no-deps --only-binary :all: -r .venv/wheels.lock",
    "install --no-compile --require-hashes --no-deps --no-build-isolation -r .venv/cellpylib.lock",
    "install --no-compile --require-hashes --no-deps --no-build-isolation -r .venv/zss.lock",
    "install --no-compile --require-hashes --no-deps --no-build-isolation -r .venv/pycosat.lock",
    "install --no-compile torch==2.13.0",
]
INSTALL_PROJECT = ["install --no-compile --no-deps --no-build-isolation -e ."]
BYTE_COMPILE = ["-j 0 .venv/lib"]
MAKE_VENV_DVC = [
    "venv .venv-dvc",
    "install --no-compile --require-hashes --no-deps --only-binary :all: -r .venv-dvc/wheels.lock",
    "install --no-compile --require-hashes --no-deps --no-build-isolation"
    " -r .venv-dvc/antlr4-python3-runtime.lock",
]


@dataclass(frozen=True)
class Checkout:
    """A checkout with nothing in it but what set-up reads, and an interpreter that pretends."""

    root: Path
    bin: Path

    def setup(self, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """The finished process and what it asked of Python."""
        log = self.root.parent / "log"
        log.write_text("")
        # The system's tools, but no interpreter other than the pretended ones.
        environment = {"PATH": f"{self.bin}:/usr/bin:/bin", "LOG": str(log), **environment}
        done = subprocess.run(
            ["sh", self.root / "scripts/setup.sh"], env=environment, capture_output=True, text=True
        )
        return done, log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "a checkout"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    for name in ("pyproject.toml", "requirements.lock", "requirements-dvc.lock"):
        shutil.copy(ROOT / name, root)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        (programs / name).write_text(FAKE_PYTHON)
        (programs / name).chmod(0o755)
    return Checkout(root, programs)


def locked(name: str) -> dict[str, set[str]]:
    """Versions by package; some have one for older and one for newer Pythons."""
    versions: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if pinned := re.match(r"([a-z0-9-]+)(?:\[.*\])?==(\S+)", line):
            versions.setdefault(pinned[1], set()).add(pinned[2])
    return versions


def test_the_lock_holds_what_goes_together() -> None:
    main, dvc = locked("requirements.lock"), locked("requirements-dvc.lock")
    assert not main.keys() & {"dvc", "torch", "triton"}
    assert not [name for name in main if name.startswith(("nvidia-", "cuda-"))]
    assert all(v.startswith("4.11.") for v in main["antlr4-python3-runtime"])
    assert all(v.startswith("4.9.") for v in dvc["antlr4-python3-runtime"])
    (fastapi,) = main["fastapi"]
    assert (0, 139) <= tuple(map(int, fastapi.split(".")[:2])) < (0, 151)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dvc.lock"])
def test_the_locks_have_hashes_and_name_no_place(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"^\s*-[^-]|--(extra-)?index|--find-links|://|@ ", text, re.M)
    pins = re.findall(r"^[a-z].*==.*$", text, re.M)
    assert pins
    assert all(pin.endswith("\\") for pin in pins), "a pin without hashes"


def test_the_environment_is_what_the_lock_says() -> None:
    if Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        pytest.skip("these tests run in another environment than `make setup` makes")
    if find_spec("psycopg"):
        pytest.skip("the extra `shared` is installed, too (docs/deploy.md)")
    main = locked("requirements.lock")
    installed = {canonicalize_name(d.metadata["Name"]): d.version for d in distributions()}
    with_torch = {
        canonicalize_name(Requirement(r).name)
        for r in next(d for d in distributions(name="torch")).requires or ()
    }
    free = {"torch", "pip", "lightreasoner", *with_torch}
    # A CUDA build's own packages ask for a few more of their kind.
    strays = {
        name: version
        for name, version in installed.items()
        if version not in main.get(name, ())
        and name not in free
        and not name.startswith(("nvidia-", "cuda-"))
    }
    assert not strays


def test_setup_makes_both_environments_and_then_rests(checkout: Checkout) -> None:
    done, asked = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert asked == MAKE_VENV + INSTALL_PROJECT + BYTE_COMPILE + MAKE_VENV_DVC
    assert os.access(checkout.root / ".venv/bin/dvc", os.X_OK)
    wheels = (checkout.root / ".venv/wheels.lock").read_text()
    assert "transformers==" in wheels
    assert "pycosat==" not in wheels

    done, asked = checkout.setup()
    assert (done.returncode, asked, done.stdout) == (0, [], "")


@pytest.mark.parametrize("broken", ["wheels.lock", "torch==", "-e ."])
def test_an_interrupted_setup_is_made_anew(checkout: Checkout, broken: str) -> None:
    done, _ = checkout.setup(FAIL=broken)
    assert done.returncode != 0
    done, asked = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert "setup: making .venv anew" in done.stdout
    assert asked == MAKE_VENV + INSTALL_PROJECT + BYTE_COMPILE + MAKE_VENV_DVC


def test_an_interruption_between_the_environments_keeps_the_first(checkout: Checkout) -> None:
    done, _ = checkout.setup(FAIL=".venv-dvc/wheels.lock")
    assert done.returncode != 0
    _, asked = checkout.setup()
    assert asked == MAKE_VENV_DVC


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("requirements.lock", MAKE_VENV + INSTALL_PROJECT + BYTE_COMPILE),
        ("requirements-dvc.lock", MAKE_VENV_DVC),
        ("pyproject.toml", INSTALL_PROJECT),
    ],
)
def test_a_change_makes_again_what_depends_on_it(
    checkout: Checkout, changed: str, expected: list[str]
) -> None:
    checkout.setup()
    with (checkout.root / changed).open("a") as file:
        file.write("# changed\n")
    done, asked = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert asked == expected


def test_a_moved_checkout_is_set_up_again(checkout: Checkout) -> None:
    checkout.setup()
    moved = Checkout(checkout.root.rename(checkout.root.with_name("elsewhere")), checkout.bin)
    _, asked = moved.setup()
    assert asked == MAKE_VENV + INSTALL_PROJECT + BYTE_COMPILE + MAKE_VENV_DVC


def test_without_a_compiler_pycosat_is_left_out(checkout: Checkout) -> None:
    done, _ = checkout.setup(FAIL="pycosat.lock", FAKE_CHECK="x 1.0 requires pycosat, which is not")
    assert done.returncode == 0, done.stderr
    assert "leaving out pycosat" in done.stdout
    assert (checkout.root / ".venv/bin/pycosat.py").read_text() == ""


def test_packages_that_do_not_fit_are_named(checkout: Checkout) -> None:
    done, _ = checkout.setup(FAKE_CHECK="a 1.0 requires b, which is not installed.")
    assert done.returncode != 0
    assert "a 1.0 requires b" in done.stderr
    assert not (checkout.root / ".venv/.complete").exists()


def test_a_wrong_python_is_refused_in_one_line(checkout: Checkout) -> None:
    done, asked = checkout.setup(FAKE_VERSION="3.10")
    assert done.returncode != 0
    assert asked == []
    assert done.stderr == (
        "setup: needs Python 3.11, 3.12 or 3.13, but python3 is 3.10; "
        "name one: make setup PYTHON=/path/to/python3.12\n"
    )
    done, _ = checkout.setup(PYTHON="no-such-python")
    assert done.returncode != 0
    assert "no-such-python is missing" in done.stderr


def test_another_python_than_python3_is_found(checkout: Checkout) -> None:
    (checkout.bin / "python3").write_text("#!/bin/sh\necho 3.14\n")
    (checkout.bin / "python3.13").write_text("#!/bin/sh\necho not installed >&2; exit 127\n")
    done, asked = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert asked[0] == "venv .venv"


def test_the_dvc_launcher_sets_the_stage_for_dvc(checkout: Checkout) -> None:
    checkout.setup()
    program = checkout.root / ".venv-dvc/bin/python"
    program.write_text('#!/bin/sh\necho "$*|$PATH|$DVC_NO_ANALYTICS|$DVC_SITE_CACHE_DIR"\n')
    done = subprocess.run(
        [checkout.root / ".venv/bin/dvc", "repro", "a b"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    root = checkout.root.resolve()
    assert done.stdout.strip() == (
        f"-m dvc repro a b|{root}/.venv/bin:/usr/bin:/bin|1|{root}/.lightreasoner/dvc/site"
    )


def test_make_run_passes_parameters_on() -> None:
    done = subprocess.run(
        [
            "make",
            "--dry-run",
            "--no-print-directory",
            "run",
            "SET=select.beta=0.5 evaluate.seed=7",
            "ARGS=--name x",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1].split() == [
        *(".venv/bin/lightreasoner", "run"),
        *("--set", "select.beta=0.5", "--set", "evaluate.seed=7", "--name", "x"),
    ]
