#!/bin/sh
# DVC, from an environment of its own (docs/decisions/001-environment-and-lock.md). Set-up puts
# this file at .venv/bin/dvc; stages run with .venv/bin first on PATH, state stays in the checkout.
bin=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P) || exit
root=$(dirname -- "$(dirname -- "$bin")")
export PATH="$bin:$PATH" DVC_NO_ANALYTICS=1
export DVC_SITE_CACHE_DIR="${DVC_SITE_CACHE_DIR:-$root/.lightreasoner/dvc/site}"
exec "$root/.venv-dvc/bin/python" -m dvc "$@"
