#!/usr/bin/env bash
# Puts the programs of a Kubernetes cluster into the folder of cluster tools, once, and prints the folder.
# `programs.sh kube-apiserver` is what an API server alone needs: etcd, that program, KubeRay's resources.
# The others: kube-controller-manager kube-scheduler kubelet kube-proxy (Kubernetes), kuberay-operator, kueue, kwok (operators),
# dns pause (ours), node (containerd, runc, CNI, nftables from Debian, unpacked and not installed), debian.tar (the lowest layer of images).
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
tools="${R1_SERVE_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/r1-serve/tools}"
kubernetes="$(sed -n 's/.*k8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' "$here/kubernetes/go.mod")"
kuberay=v1.6.2  # the newest whose module can be had everywhere
kueue=v0.19.2
kwok=v0.8.0
fail() { printf 'cluster programs: %s\n              do: %s\n' "$1" "$2" >&2; exit 1; }

"$here/../chart/tools.sh" >/dev/null
command -v go >/dev/null || fail "there is no go" "install Go 1.26"
export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false -mod=mod"

apt() { # PACKAGE...: from Debian, if this is a Debian and we may
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "there is no $1" "install the packages $*"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } >/dev/null
}

built() { # NAME VERSION COMMAND...: what the command leaves in $tools/NAME-VERSION.new
    local name="$1" version="$2"
    shift 2
    exec 9>"$tools/.$name.lock" && flock 9
    if [ ! -e "$tools/$name-$version" ]; then
        echo "making $name $version ..." >&2
        rm -rf "$tools/$name-$version.new"
        "$@" "$tools/$name-$version.new"
        mv "$tools/$name-$version.new" "$tools/$name-$version"
    fi
    ln -sfn "$name-$version" "$tools/$name"
}

kubernetes_program() { # NAME TO
    (cd "$here/kubernetes" && go build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$kubernetes" \
        -o "$2" "k8s.io/kubernetes/cmd/$1")
}

module() { # MODULE@VERSION: the folder of its source
    (cd "$(mktemp -d)" && go mod init x >/dev/null 2>&1 && go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",/\1/p')
}

foreign_program() { # MODULE@VERSION PACKAGE TO
    (cd "$(module "$1")" && GOFLAGS="-trimpath -buildvcs=false -mod=readonly" go build -ldflags "-s -w" -o "$3" "$2")
}

own_program() { # NAME TO
    (cd "$here/own" && go build -ldflags "-s -w" -o "$2" "./$1")
}

copied() { # MODULE@VERSION FOLDER TO: a folder of a module, writable
    cp -r "$(module "$1")/$2" "$3" && chmod -R u+w "$3"
}

unpacked() { # TO: Debian's packages of a node
    mkdir -p "$1/deb" && chmod 755 "$1/deb"
    (cd "$1/deb" && apt-get update -qq &&
        apt-get download -qq containerd runc containernetworking-plugins nftables libnftables1 libnftnl11 libmnl0 libjansson4 \
            libxtables12 2>/dev/null && for each in *.deb; do dpkg-deb -x "$each" ..; done)
    rm -rf "$1/deb"
}

debian_root() { # TO: a small Debian with a Python and what vLLM links
    local root
    command -v debootstrap >/dev/null || apt debootstrap
    root="$(mktemp -d "$tools/root.XXXXXX")"
    debootstrap --variant=minbase --include=python3,ca-certificates,libgomp1,libibverbs1,libnuma1 \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" >"$tools/debootstrap.log" 2>&1 ||
        fail "debootstrap failed: $(tail -n 1 "$tools/debootstrap.log")" "read $tools/debootstrap.log"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/* "$root"/dev/*
    echo "r1:x:1000:1000:r1-serve:/tmp:/bin/bash" >>"$root/etc/passwd"
    tar -C "$root" --numeric-owner -cf "$1" .
    rm -rf "$root"
}

exec 7>"$tools/.apt.lock" && flock 7
command -v etcd >/dev/null || apt etcd-server
flock -u 7
for name in "${@:-kube-apiserver}"; do
    case "$name" in
        kuberay-operator)
            built "$name" "$kuberay" foreign_program "github.com/ray-project/kuberay/ray-operator@$kuberay" .
            built kuberay-config "$kuberay" copied "github.com/ray-project/kuberay/ray-operator@$kuberay" config ;;
        kube-* | kubelet) built "$name" "$kubernetes" kubernetes_program "$name" ;;
        kueue)
            built kueue "$kueue" foreign_program "sigs.k8s.io/kueue@$kueue" ./cmd/kueue
            built kueue-config "$kueue" copied "sigs.k8s.io/kueue@$kueue" config ;;
        kwok)
            built kwok "$kwok" foreign_program "sigs.k8s.io/kwok@$kwok" ./cmd/kwok
            built kwok-stages "$kwok" copied "sigs.k8s.io/kwok@$kwok" kustomize/stage ;;
        dns | pause) built "$name" "$(cat "$here/own/go.mod" "$here/own/$name"/*.go | sha256sum | cut -c1-12)" own_program "$name" ;;
        node)
            command -v apt-get >/dev/null || fail "there is no apt-get" "use a Debian machine"
            built node "$(. /etc/os-release && echo "$VERSION_CODENAME")" unpacked
            command -v nsenter >/dev/null || apt util-linux
            command -v ip >/dev/null || apt iproute2 ;;
        debian.tar) built debian.tar "$(. /etc/os-release && echo "$VERSION_CODENAME")-1" debian_root ;;
        *) fail "there is no program $name" "read the head of $0" ;;
    esac
done
# The operator's resources come with its module.
built kuberay "$kuberay" copied "github.com/ray-project/kuberay/ray-operator@$kuberay" config/crd/bases
echo "$tools"
