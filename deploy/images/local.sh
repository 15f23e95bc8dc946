#!/usr/bin/env bash
# Makes the layers of the CPU image without a container engine, as cpu.Dockerfile has them, and prints their files, the lowest first:
# Debian, the Python environment, r1-serve with r1-nano. The first two are kept in the folder of cluster tools; the last goes to FOLDER.
set -euo pipefail
cd "$(dirname "$0")/../.."
out="$(realpath "$1")"
tools="$(deploy/cluster/programs.sh debian.tar)"
uv=.venv/bin/uv
[ -x "$uv" ] || { echo "local image: there is no $uv; run deploy/bootstrap.sh" >&2; exit 1; }
python=/usr/bin/python3
root=opt/r1-serve
packages="lib/python3.11/site-packages"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    { echo "local image: $python is not the Python 3.11 of the image's Debian" >&2; exit 1; }
if compgen -G "../shared/wheels/torch-*.whl" >/dev/null; then
    torch=(--find-links ../shared/wheels)
else
    torch=(--torch-backend cpu)
fi

version="$(cat requirements/cpu.lock pyproject.toml deploy/images/local.sh | sha256sum | cut -c1-12)"
exec 9>"$tools/.image.lock" && flock 9
if [ ! -e "$tools/environment-$version.tar" ]; then
    echo "making the image's Python environment ..." >&2
    rm -f "$tools"/environment-*.tar
    stage="$(mktemp -d "$tools/stage.XXXXXX")"
    trap 'rm -rf "$stage"' EXIT
    "$uv" venv --quiet --relocatable --python "$python" "$stage/$root"
    # What runs, in the lock's versions, and not what tests it.
    "$uv" pip compile pyproject.toml --quiet --extra cpu --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
        --override requirements/cpu-overrides.txt --constraint requirements/cpu.lock "${torch[@]}" \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o "$stage/pins" >/dev/null
    "$uv" pip install --quiet --compile-bytecode --python "$stage/$root/bin/python" --no-deps "${torch[@]}" -r "$stage/pins"
    rm "$stage/pins"
    tar -C "$stage" --owner=0 --group=0 --numeric-owner -cf "$tools/environment-$version.partial" opt
    mv "$tools/environment-$version.partial" "$tools/environment-$version.tar"
    rm -rf "$stage"
    trap - EXIT
fi

stage="$(mktemp -d)"
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/$root/bin" "$stage/$root/$packages"
# From a copy: a build leaves folders beside the sources.
mkdir "$stage/src"
cp -r pyproject.toml README.md LICENSE orchestrator deploy "$stage/src/"
(cd "$stage/src" && "$OLDPWD/$uv" pip install --quiet --python "$OLDPWD/.venv/bin/python" --no-deps --compile-bytecode \
    --target "$stage/$root/$packages" . ./deploy/cpu)
rm -rf "$stage/$root/$packages/bin"
printf '#!/%s/bin/python\nfrom orchestrator.cli import main\n\nraise SystemExit(main())\n' "$root" >"$stage/$root/bin/r1-serve"
chmod 755 "$stage/$root/bin/r1-serve"
.venv/bin/python -m deploy.images.checkpoint "$stage/$root/r1-nano" >&2
tar -C "$stage" --owner=0 --group=0 --numeric-owner -cf "$out/r1-serve-layer.tar" opt
printf '%s\n' "$tools/debian.tar" "$tools/environment-$version.tar" "$out/r1-serve-layer.tar"
