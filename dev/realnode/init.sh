#!/bin/bash
# The first process of the node: it mounts what is the node's own, starts Kubernetes, and reaps orphans. Nothing of it
# is seen outside, and all of it ends with this process. STATE: the folder of its data; BIN: the one of the programs.
set -u
here=$(dirname "$(realpath "$0")")
state=${STATE:?} bin=${BIN:?} etc=/etc/crnode pki=/etc/crnode/pki
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
unset SSL_CERT_FILE SSL_CERT_DIR
hostname crnode

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
own() { mkdir -p "$state/$1" "$2"; mount --bind "$state/$1" "$2"; }
own containerd /var/lib/containerd
own kubelet /var/lib/kubelet
own pods-log /var/log/pods
own containers-log /var/log/containers
own cni /etc/cni/net.d
own etc $etc
mount --make-rshared / # the kubelet's mounts must reach the containers, as on a machine with systemd

# The kubelet sets these for the whole machine when it starts: it gets copies, and the machine keeps its own values.
mkdir -p /run/sysctl
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys \
  kernel/keys/root_maxbytes; do
  copy=/run/sysctl/${name//\//_}
  cat /proc/sys/$name > "$copy"
  mount --bind "$copy" /proc/sys/$name
done

ip link set lo up
for _ in $(seq 100); do ip link show crn1 > /dev/null 2>&1 && break; sleep 0.05; done
ip addr add 10.251.0.2/30 dev crn1
ip link set crn1 up
sysctl -qw net.ipv4.ip_forward=1
ip route add 10.97.0.0/16 dev crn1 # a Service's address needs a route before kube-proxy's rules see it

if [ -d /sys/fs/cgroup/cpuset ]; then # cgroup v1: the kubelet wants its root in each hierarchy, the cpuset filled in
  for each in /sys/fs/cgroup/*/; do mkdir -p "$each/crnode" 2> /dev/null; done
  for what in cpus mems; do cat /sys/fs/cgroup/cpuset/cpuset.$what > /sys/fs/cgroup/cpuset/crnode/cpuset.$what; done
else
  mkdir -p /sys/fs/cgroup/crnode
fi
cp "$here/conf/10-bridge.conflist" /etc/cni/net.d/
echo "# nobody to ask beyond the cluster" > $etc/resolv.conf

mkdir -p "$state/logs"
start() { local name=$1; shift; "$@" >> "$state/logs/$name.log" 2>&1 & echo $! > "/run/$name.pid"; }

start containerd containerd -c "$here/conf/containerd.toml"
start etcd "$bin/etcd" --data-dir "$state/etcd" --unsafe-no-fsync --log-level error \
  --listen-client-urls http://127.0.0.1:22379 --advertise-client-urls http://127.0.0.1:22379 \
  --listen-peer-urls http://127.0.0.1:22380 --initial-advertise-peer-urls http://127.0.0.1:22380 \
  --initial-cluster default=http://127.0.0.1:22380
start apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:22379 --bind-address=0.0.0.0 \
  --advertise-address=10.251.0.2 --secure-port=26443 --service-cluster-ip-range=10.97.0.0/16 \
  --tls-cert-file=$pki/apiserver.crt --tls-private-key-file=$pki/apiserver.key --client-ca-file=$pki/ca.crt \
  --kubelet-client-certificate=$pki/apiserver-kubelet-client.crt \
  --kubelet-client-key=$pki/apiserver-kubelet-client.key --kubelet-certificate-authority=$pki/ca.crt \
  --kubelet-preferred-address-types=InternalIP --requestheader-client-ca-file=$pki/ca.crt \
  --requestheader-allowed-names=front-proxy-client --requestheader-extra-headers-prefix=X-Remote-Extra- \
  --requestheader-group-headers=X-Remote-Group --requestheader-username-headers=X-Remote-User \
  --proxy-client-cert-file=$pki/front-proxy-client.crt --proxy-client-key-file=$pki/front-proxy-client.key \
  --service-account-key-file=$pki/sa.pub --service-account-signing-key-file=$pki/sa.key \
  --service-account-issuer=https://kubernetes.default.svc --token-auth-file=$etc/tokens.csv \
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true
for _ in $(seq 300); do
  curl -sk --max-time 2 -o /dev/null -w '%{http_code}' https://127.0.0.1:26443/readyz | grep -q 200 && break
  sleep 0.2
done
start controller-manager "$bin/kube-controller-manager" --kubeconfig $etc/controllers.kubeconfig \
  --authentication-kubeconfig $etc/controllers.kubeconfig --authorization-kubeconfig $etc/controllers.kubeconfig \
  --secure-port=26444 --bind-address 127.0.0.1 --cert-dir=/run/controllers --leader-elect=false \
  --service-account-private-key-file=$pki/sa.key --root-ca-file=$pki/ca.crt --use-service-account-credentials=true \
  --node-monitor-period=2s --node-monitor-grace-period=12s
start scheduler "$bin/kube-scheduler" --kubeconfig $etc/scheduler.kubeconfig \
  --authentication-kubeconfig $etc/scheduler.kubeconfig --authorization-kubeconfig $etc/scheduler.kubeconfig \
  --secure-port=26445 --bind-address 127.0.0.1 --cert-dir=/run/scheduler --leader-elect=false
start kubelet "$bin/kubelet" --config "$here/conf/kubelet.yaml" --kubeconfig $etc/node.kubeconfig \
  --hostname-override crnode --node-ip 10.251.0.2 --root-dir /var/lib/kubelet
start kube-proxy "$bin/kube-proxy" --config "$here/conf/kube-proxy.yaml"

trap 'exit 0' TERM
while :; do wait -n 2> /dev/null || sleep 0.5; done
