#!/usr/bin/env bash
# Looks at a built image, without a container runtime: its size, its user and labels, what must not be in it, that it
# starts as 65532 with nothing writable, and its bill of materials (build/image/sbom.json). Needs root and buildah.
set -euo pipefail
cd "$(dirname "$0")/../.."
NAME=${1:-localhost/consul-registrar:dev}
LIMIT_MB=150

container=$(buildah from --pull-never "$NAME")
root=$(buildah mount "$container")
view=$(mktemp -d)
mount --bind "$root" "$view"
mount -o remount,bind,ro "$view"
trap 'umount "$view"; rmdir "$view"; buildah rm "$container" >/dev/null' EXIT

inside() { env -i SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PYTHONDONTWRITEBYTECODE=1 HOME=/ \
  "$(command -v chroot)" --userspec=65532:65532 "$view" "$@"; }
python=/opt/consul-registrar/bin/python3

for unwanted in bin/sh usr/bin/sh bin/bash usr/bin/bash usr/bin/apt usr/bin/dpkg usr/bin/gcc usr/bin/cc usr/bin/pip3 usr/local/bin/pip; do
  test ! -e "$root/$unwanted" || { echo "the image holds /$unwanted"; exit 1; }
done
test -z "$(find "$root" -path '*/site-packages/pip' -o -name ensurepip)" || { echo "the image holds pip"; exit 1; }
test -z "$(find "$root" -perm /6000)" || { echo "the image holds setuid programs"; exit 1; }

config() { buildah inspect --type image --format "{{ $1 }}" "$NAME"; }
test "$(config .OCIv1.Config.User)" = 65532:65532 || { echo "the image's user isn't 65532"; exit 1; }
version=$(inside /opt/consul-registrar/bin/consul-registrar --version)
echo "$version"
for label in title description licenses source documentation; do
  test -n "$(config "index .OCIv1.Config.Labels \"org.opencontainers.image.$label\"")" || { echo "the image has no label $label"; exit 1; }
done
test "$(config 'index .OCIv1.Config.Labels "org.opencontainers.image.version"')" = "${version##* }" || { echo "the label version isn't the operator's"; exit 1; }
inside $python -c 'import ssl; assert ssl.create_default_context().cert_store_stats()["x509"] > 50'
inside $python -c 'open("/tmp/x", "w")' 2>/dev/null && { echo "the root is writable"; exit 1; }
said=$(timeout 8 env -i HOME=/ "$(command -v chroot)" --userspec=65532:65532 "$view" \
  /opt/consul-registrar/bin/consul-registrar run --cluster-name look --health-address 127.0.0.1:18099 2>&1 || true)
grep -q 'no way to log in to Kubernetes' <<<"$said" || { echo "the operator doesn't start: $said"; exit 1; }
inside $python - <dev/image/sbom.py >build/image/sbom.json

size=$(($(du -s --apparent-size --block-size=1 "$root" | cut -f1) / 1000000))
echo "$NAME: $size MB unpacked, $(python3 -c 'import json; print(len(json.load(open("build/image/sbom.json"))["components"]))') parts"
test "$size" -lt "$LIMIT_MB" || { echo "more than $LIMIT_MB MB"; exit 1; }
