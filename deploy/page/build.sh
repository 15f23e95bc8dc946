#!/usr/bin/env bash
# Copies the pinned libraries of the chat page into orchestrator/gateway/page/vendor, from npm.
# Does nothing if the pins have not changed since the last time. Without the libraries the page
# works too, and shows answers as plain text.
set -euo pipefail
cd "$(dirname "$0")"

vendor=../../orchestrator/gateway/page/vendor
pins="$(cat package-lock.json build.sh | sha256sum)"
[ -f "$vendor/.pins" ] && [ "$(cat "$vendor/.pins")" = "$pins" ] && exit 0

fail() { printf 'page: %s\n  do: %s\n' "$1" "$2" >&2; exit 1; }
command -v npm >/dev/null || fail "there is no npm" "install Node.js with npm (Debian: apt-get install npm)"

new="$vendor.new"
log="$(mktemp)"
trap 'rm -rf "$new" "$log"' EXIT
npm ci --no-progress >"$log" 2>&1 || {
    grep -m 3 '^npm error' "$log" >&2 || cat "$log" >&2
    fail "npm could not fetch the page's libraries" \
        "look at npm's words above; without a network, copy ${vendor#../../} from another machine"
}

rm -rf "$new"
mkdir -p "$new"/{marked,dompurify,katex/fonts}
from=node_modules
cp $from/marked/lib/marked.esm.js $from/marked/LICENSE "$new/marked/"
cp $from/dompurify/dist/purify.min.js $from/dompurify/LICENSE "$new/dompurify/"
cp $from/katex/dist/katex.min.js $from/katex/dist/katex.min.css $from/katex/LICENSE "$new/katex/"
cp $from/katex/dist/fonts/*.woff2 "$new/katex/fonts/" # every browser that runs the page reads woff2
sed -i '/^\/\/# sourceMappingURL=/d' "$new"/*/*.js
printf '%s' "$pins" >"$new/.pins"
rm -rf "$vendor"
mv "$new" "$vendor"
