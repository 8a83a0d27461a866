#!/usr/bin/env bash
# Builds the image where there is neither Docker nor a registry: with buildah, on a base made by debootstrap.
# Writes build/image/consul-registrar.tar (docker-archive), and build/image/sbom.json. Needs root, and of Debian's
# packages buildah and debootstrap. With Docker at hand, `docker build .` does the same on its default base.
# EXTRA=traces builds it with what `--traces` needs.
# With the argument `base` it makes only that base, the part that depends on Debian's mirror.
set -euo pipefail
cd "$(dirname "$0")/../.."
NAME=${NAME:-localhost/consul-registrar:dev}
EXTRA=${EXTRA:-run}
SUITE=${SUITE:-bookworm}
BASE=localhost/python-$SUITE:dev
OUT=build/image
ISOLATION=(--isolation chroot --network host)

base() {
  buildah inspect --type image "$BASE" >/dev/null 2>&1 && return
  local root; root=$(mktemp -d)
  # Either place may be missing, and grep then says so; with no mirror found debootstrap has one of its own.
  mirror=${MIRROR:-$(grep -hoE 'https?://[^ ]*/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -1 || true)}
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$SUITE" "$root" ${mirror:+"$mirror"} >"$OUT/debootstrap.log"
  rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/usr/share/{doc,locale,man}
  tar -C "$root" -cf "$OUT/base.tar" .
  rm -rf "$root"
  printf 'FROM scratch\nADD base.tar /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' |
    buildah bud "${ISOLATION[@]}" --quiet --tag "$BASE" --file - "$OUT" >/dev/null
  rm "$OUT/base.tar"
}

# The wheels are fetched here, since a package index may be reachable from the machine alone, and checked by their hashes:
# those for the base's Python, which the machine's may not be.
wheels() {
  local container python
  container=$(buildah from --pull-never "$BASE")
  python=$(buildah run --isolation chroot "$container" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  buildah rm "$container" >/dev/null
  rm -rf build/wheels
  python3 -m pip download --quiet --disable-pip-version-check --only-binary=:all: --require-hashes \
    --python-version "$python" --requirement "requirements/$EXTRA.lock" --dest build/wheels
}

mkdir -p "$OUT"
base
[ "${1:-}" != base ] || exit 0
wheels
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' operator/consul_registrar/__init__.py)
buildah bud "${ISOLATION[@]}" --pull-never --quiet --tag "$NAME" --build-arg BASE="$BASE" --build-arg WHEELS=build/wheels \
  --build-arg EXTRA="$EXTRA" \
  --build-arg VERSION="$version" --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || true)" . >/dev/null
rm -f "$OUT/consul-registrar.tar"
buildah push --quiet "$NAME" "docker-archive:$OUT/consul-registrar.tar:$NAME"
dev/image/look.sh "$NAME"
