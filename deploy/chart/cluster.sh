#!/usr/bin/env bash
# Builds Kubernetes programs and the KubeRay operator from their Go modules into the folder of chart tools, once, and prints the
# folder. `cluster.sh kube-apiserver` builds that one only. etcd is Debian's.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
tools="${R1_SERVE_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/r1-serve/tools}"
version="$(sed -n 's/.*k8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' "$here/cluster/go.mod")"
kuberay=v1.6.2  # the newest whose module can be had everywhere
fail() { printf 'cluster tools: %s\n           do: %s\n' "$1" "$2" >&2; exit 1; }

"$here/tools.sh" >/dev/null
exec 9>"$tools/.cluster.lock" && flock 9
if ! command -v etcd >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "there is no etcd" "install the package etcd-server"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends etcd-server; } >/dev/null
fi
command -v go >/dev/null || fail "there is no go" "install Go 1.26"
flags="-s -w -X k8s.io/component-base/version.gitVersion=$version"
for name in "${@:-kube-apiserver}"; do
    [ -x "$tools/$name-$version" ] || {
        echo "building $name $version ..." >&2
        (cd "$here/cluster" && CGO_ENABLED=0 go build -mod=mod -buildvcs=false -trimpath -ldflags "$flags" \
            -o "$tools/$name-$version" "k8s.io/kubernetes/cmd/$name")
    }
    ln -sf "$name-$version" "$tools/$name"
done
# The operator's CRDs come with its module.
if [ ! -d "$tools/kuberay-$kuberay" ]; then
    module="$(cd "$(mktemp -d)" && go mod init x >/dev/null 2>&1 &&
        go mod download -json "github.com/ray-project/kuberay/ray-operator@$kuberay" | sed -n 's/^\t"Dir": "\(.*\)",/\1/p')"
    mkdir -p "$tools/kuberay-$kuberay.new"
    cp "$module"/config/crd/bases/*.yaml "$tools/kuberay-$kuberay.new/"
    mv "$tools/kuberay-$kuberay.new" "$tools/kuberay-$kuberay"
fi
ln -sfn "kuberay-$kuberay" "$tools/kuberay"
echo "$tools"
