#!/usr/bin/env bash
# Makes .venv with everything that r1-serve needs on this machine, pinned by requirements/cpu.lock.
# Does nothing if the pins have not changed since the last time.
set -euo pipefail
cd "$(dirname "$0")/.."

uv_version=0.13.9
stamp=.venv/.pins
pins="$(cat requirements/cpu.lock pyproject.toml deploy/cpu/pyproject.toml deploy/bootstrap.sh | sha256sum)"
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$pins" ] && exit 0

fail() { printf 'bootstrap: %s\n       do: %s\n' "$1" "$2" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || fail "r1-serve runs on Linux, this is $(uname -s)" "use a Linux machine"
[ "$(uname -m)" = x86_64 ] || fail "the pinned wheels are for x86_64, this is $(uname -m)" "use an x86_64 machine"
python="${PYTHON:-python3}"
command -v "$python" >/dev/null || fail "there is no $python" "install Python 3.11 or newer, or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old" "install Python 3.11 or newer, or set PYTHON"

echo "installing into .venv (4.3 GB; a minute or two, longer when nothing is cached) ..."
if ! "$python" -m venv .venv 2>/dev/null; then
    rm -rf .venv
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
        "$python" -m venv .venv
    else
        fail "$python cannot make a virtual environment" "install the package python3-venv"
    fi
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$uv_version"

# The CPU build of torch: from a folder of wheels beside the project, else from PyTorch's own index.
if compgen -G "../shared/wheels/torch-*.whl" >/dev/null; then
    torch=(--find-links ../shared/wheels)
else
    torch=(--torch-backend cpu)
fi
# Compiled once, here: where Python is told to write no bytecode each engine would do it again at start.
install=(.venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --no-deps)
"${install[@]}" "${torch[@]}" -r requirements/cpu.lock
"${install[@]}" -e . -e deploy/cpu
# Mooncake's wheel links it; without it everything works but `handoff.kv: push`.
if ! ldconfig -p | grep -q libibverbs.so.1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && apt-get install -y -qq libibverbs1 >/dev/null; } ||
        echo "bootstrap: libibverbs1 could not be installed; KV transfer by Mooncake needs it" >&2
fi
# Behind the boards of `make up`, and its promtool is what tests of rules run; everything else does without.
if ! command -v promtool >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus >/dev/null; } ||
        echo "bootstrap: prometheus could not be installed; boards and tests of rules need it" >&2
fi
printf '%s' "$pins" >"$stamp"
