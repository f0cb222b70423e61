#!/bin/sh
# Makes .venv (everything but DVC) and .venv-dvc from the locks. Called by `make setup`.
#
# Each environment holds a stamp, written last, of what it was made from: when the stamp fits,
# nothing is done; when it is missing or differs, the environment is made anew, so a set-up that
# was interrupted repairs itself. PYTHON=... chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
unset PIP_USER PIP_TARGET PIP_PREFIX PYTHONHOME

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null; }

# The interpreter to use, outside any virtual environment (which may be the one made anew here).
find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        case "$(version_of "$candidate")" in
            3.11 | 3.12 | 3.13)
                "$candidate" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))'
                return ;;
        esac
    done
    found=${PYTHON:-python3}
    die "needs Python 3.11, 3.12 or 3.13, but $found is $(version_of "$found" || echo missing);" \
        "name one: make setup PYTHON=/path/to/python3.12"
}

# stamp ENVIRONMENT FILE...: what an environment is made from, and where it lies.
stamp() { at=$(pwd -P)/$1; shift; echo "$(cat "$@" | cksum) $at"; }
fits() { [ -x "$1/bin/python" ] && [ "$(cat "$1/$2" 2> /dev/null)" = "$3" ]; }

make_environment() {
    [ -n "$python" ] || python=$(find_python)
    [ ! -e "$1" ] || say "making $1 anew"
    rm -rf "$1"
    "$python" -m venv "$1"
}

# Byte code is made afterwards, on all cores: it is half of the work.
pip_install() {
    at=$1
    shift
    "$at/bin/python" -m pip --disable-pip-version-check -qq install --no-compile "$@"
}
byte_compile() { "$1/bin/python" -W ignore -m compileall -qq -j 0 "$1/lib" || :; }
count() { grep -c '^[A-Za-z].*==' "$1"; }

# install_wheels ENVIRONMENT LOCK NAMES: what the lock has, but for NAMES ("a|b").
install_wheels() {
    awk "/^[A-Za-z]/ { named = /^($3)==/ } !named" "$2" > "$1/wheels.lock"
    pip_install "$1" --require-hashes --no-deps --only-binary :all: -r "$1/wheels.lock"
}

# install_source ENVIRONMENT LOCK NAME: a package that has no wheel, built with the locked
# setuptools (isolated builds would fetch an unlocked one).
install_source() {
    awk "/^[A-Za-z]/ { named = /^$3==/ } named" "$2" > "$1/$3.lock"
    pip_install "$1" --require-hashes --no-deps --no-build-isolation -r "$1/$3.lock"
}

# pycosat is C, and only reasoning-gym's zebra puzzles call it. Where it cannot be compiled, an
# empty module stands in for it.
install_pycosat() {
    install_source .venv requirements.lock pycosat 2> /dev/null && return
    say "no C compiler found: leaving out pycosat, which nothing here uses"
    : > "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pycosat.py"
}

install_project() {
    pip_install .venv --no-deps --no-build-isolation -e .
    install -m 755 scripts/dvc.sh .venv/bin/dvc
    check .venv
    echo "$project" > .venv/.project
}

# pip's own check of what was installed, but for the pycosat that may be left out.
check() {
    amiss=$("$1/bin/python" -m pip check 2>&1 | grep -v -e 'pycosat' -e '^No broken') || return 0
    die "$1 does not fit together (is requirements.lock up to date? make lock): $amiss"
}

started=$(date +%s) python=
torch=$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
main="$(stamp .venv requirements.lock) $torch"
project=$(stamp .venv pyproject.toml scripts/dvc.sh)
dvc=$(stamp .venv-dvc requirements-dvc.lock)

# Another interpreter may be asked for than the one that the environments have.
if [ -n "${PYTHON:-}" ] && [ -x .venv/bin/python ]; then
    python=$(find_python)
    [ "$(version_of "$python")" = "$(version_of .venv/bin/python)" ] || rm -f .venv*/.complete
fi

if ! fits .venv .complete "$main"; then
    make_environment .venv
    say "installing $(count requirements.lock) packages and torch into .venv (a few minutes)"
    install_wheels .venv requirements.lock 'cellpylib|pycosat|zss'
    for name in cellpylib zss; do install_source .venv requirements.lock "$name"; done
    install_pycosat
    pip_install .venv "$torch"
    install_project
    byte_compile .venv
    echo "$main" > .venv/.complete
elif ! fits .venv .project "$project"; then
    say "pyproject.toml changed: installing lightreasoner again"
    install_project
fi

if ! fits .venv-dvc .complete "$dvc"; then
    make_environment .venv-dvc
    say "installing $(count requirements-dvc.lock) packages into .venv-dvc (DVC)"
    install_wheels .venv-dvc requirements-dvc.lock antlr4-python3-runtime
    install_source .venv-dvc requirements-dvc.lock antlr4-python3-runtime
    check .venv-dvc
    echo "$dvc" > .venv-dvc/.complete
fi

took=$(($(date +%s) - started))
[ "$took" -lt 5 ] || say "done in $took s"
