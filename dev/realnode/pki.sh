#!/bin/bash
# pki.sh FOLDER: a certificate authority, certificates, tokens and kubeconfigs for the node.
set -euo pipefail
mkdir -p "$1/pki" && cd "$1/pki"
openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -x509 -new -key ca.key -subj /CN=crnode-ca -days 30 -out ca.crt \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature 2> /dev/null

issue() { # NAME SUBJECT USAGE [ALTERNATIVE NAMES]
  openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=%s\n%s\n' \
    "$3" "${4:+subjectAltName=$4}" > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile "$1.ext" \
    -out "$1.crt" 2> /dev/null
  rm "$1.csr" "$1.ext"
}
service=kubernetes.default.svc
issue apiserver /CN=kube-apiserver serverAuth "DNS:kubernetes,DNS:kubernetes.default,DNS:$service,\
DNS:$service.cluster.local,DNS:localhost,IP:10.97.0.1,IP:10.251.0.2,IP:127.0.0.1"
issue kubelet /CN=crnode serverAuth "DNS:crnode,IP:10.251.0.2,IP:127.0.0.1"
issue apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
issue front-proxy-client /CN=front-proxy-client clientAuth
openssl genrsa -out sa.key 2048 2> /dev/null
openssl rsa -in sa.key -pubout -out sa.pub 2> /dev/null

cd ..
declare -A users=(
  [admin]='admin,1,"system:masters"' [node]='system:node:crnode,2,"system:nodes"'
  [proxy]='system:kube-proxy,3,"system:node-proxier"' [controllers]='system:kube-controller-manager,4'
  [scheduler]='system:kube-scheduler,5'
)
: > tokens.csv
for name in "${!users[@]}"; do
  token=$(openssl rand -hex 16)
  echo "$token,${users[$name]}" >> tokens.csv
  cat > "$name.kubeconfig" <<KUBECONFIG
apiVersion: v1
kind: Config
clusters:
- name: crnode
  cluster: {server: "https://10.251.0.2:26443", certificate-authority-data: $(base64 -w0 pki/ca.crt)}
users: [{name: $name, user: {token: $token}}]
contexts: [{name: crnode, context: {cluster: crnode, user: $name}}]
current-context: crnode
KUBECONFIG
done
chmod 600 tokens.csv ./*.kubeconfig
