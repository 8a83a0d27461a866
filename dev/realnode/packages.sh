#!/bin/bash
# Installs what the node with real Pods and the image need of Debian's packages. Needs root and a mirror that answers.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-upgrade --no-install-recommends containerd runc containernetworking-plugins iptables nftables \
  conntrack ethtool socat ipset iproute2 openssl curl gcc libc6-dev buildah debootstrap
