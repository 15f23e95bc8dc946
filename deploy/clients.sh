#!/usr/bin/env bash
# Makes what `make conformance` needs beyond .venv: other people's clients, each with its own pins in
# .clients/, Chromium, and the chat page's libraries. Does nothing if the pins have not changed.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'clients: %s\n     do: %s\n' "$1" "$2" >&2; exit 1; }

needs=()
command -v npm >/dev/null || needs+=(npm)
command -v chromium >/dev/null || needs+=(chromium)
if [ ${#needs[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "there is no ${needs[*]}" "install the packages ${needs[*]}"
    fi
    echo "installing ${needs[*]} ..."
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${needs[@]}" >/dev/null
fi

pins=tests/conformance/clients
for name in langchain litellm schemathesis; do
    stamp=.clients/$name/.pins
    now="$(cat $pins/$name.lock deploy/clients.sh | sha256sum)"
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ] && continue
    echo "installing $name into .clients/$name ..."
    rm -rf .clients/$name
    .venv/bin/uv venv --quiet --python .venv/bin/python .clients/$name
    .venv/bin/uv pip install --quiet --compile-bytecode --python .clients/$name/bin/python --no-deps -r $pins/$name.lock
    printf '%s' "$now" >"$stamp"
done

stamp=.clients/js/.pins
now="$(cat $pins/js/package-lock.json deploy/clients.sh | sha256sum)"
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$now" ]; then
    echo "installing the JavaScript clients into .clients/js ..."
    rm -rf .clients/js && mkdir -p .clients/js
    cp $pins/js/package.json $pins/js/package-lock.json $pins/js/.npmrc .clients/js/
    # The node that runs them is newer than Debian's: the one in the Playwright wheel.
    (cd .clients/js && npm ci --no-progress --loglevel=error >npm.log 2>&1) ||
        fail "npm could not install the JavaScript clients" "look at .clients/js/npm.log"
    printf '%s' "$now" >"$stamp"
fi

deploy/page/build.sh
