#!/bin/sh
# Known vulnerabilities of what the locks install: pip-audit, in an environment of its own
# (.venv-audit), asks the database OSV. Where that cannot be reached, a line says so. Called by
# `make audit`.
set -eu
cd "$(dirname "$0")/.."

say() { echo "audit: $*"; }

# Any answer will do.
reaches_osv() {
    .venv/bin/python - << 'PYTHON'
import sys
import urllib.error
import urllib.request

try:
    urllib.request.urlopen("https://api.osv.dev/", timeout=10)
except urllib.error.HTTPError:
    pass
except OSError:
    sys.exit(1)
PYTHON
}

install() {
    [ ! -x .venv-audit/bin/pip-audit ] || return 0
    .venv/bin/python -m venv .venv-audit &&
        .venv-audit/bin/python -m pip --disable-pip-version-check -qq install pip-audit==2.10.1
}

reaches_osv || { say "left out: api.osv.dev cannot be reached, so no package was looked up"; exit 0; }
install || { say "left out: pip-audit cannot be installed here"; exit 0; }

torch=$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
echo "$torch" > .venv-audit/torch.txt # it stands in no lock
status=0
for list in requirements.lock requirements-dvc.lock .venv-audit/torch.txt; do
    say "$list"
    .venv-audit/bin/pip-audit --vulnerability-service osv --disable-pip --no-deps \
        --progress-spinner off --requirement "$list" || status=1
done
exit $status
