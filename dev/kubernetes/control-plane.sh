# Sourced by dev/cluster and dev/kwok: etcd, API server, controllers and scheduler, with separate certificates.
# $state is the cluster's directory, $bin that of the binaries, $port the API server's and the first of four for the rest.

key() { openssl genrsa -out "$1" 2048 2>/dev/null; }

# certificate NAME SUBJECT [EXTENSION]: signed by the cluster's authority.
certificate() {
  local path=$state/certs/$1
  openssl req -new -newkey rsa:2048 -nodes -subj "$2" -keyout "$path.key" -out "$path.csr" 2>/dev/null
  openssl x509 -req -in "$path.csr" -CA "$state/certs/ca.crt" -CAkey "$state/certs/ca.key" -CAcreateserial \
    -days 3650 -out "$path.crt" ${3:+-extfile <(echo "$3")} 2>/dev/null
}

# user FILE NAME [GROUP]: a token for the user, and a kubeconfig that has it.
user() {
  local token authority
  token=$(openssl rand -hex 16)
  authority=$(base64 -w0 "$state/certs/ca.crt")
  echo "$token,$2,$1,\"${3:-}\"" >>"$state/certs/tokens.csv"
  cat >"$state/$1" <<KUBECONFIG
apiVersion: v1
kind: Config
current-context: perstack
clusters: [{name: perstack, cluster: {server: "https://127.0.0.1:$port", certificate-authority-data: $authority}}]
users: [{name: $1, user: {token: $token}}]
contexts: [{name: perstack, context: {cluster: perstack, user: $1}}]
KUBECONFIG
}

# credentials NODE ADDRESS...: once, and the server's certificate again if the machine's addresses are others now.
credentials() {
  local node=$1 names=DNS:localhost,IP:127.0.0.1,IP:10.96.0.1 address
  shift
  for address in "$@"; do names+=,IP:$address; done
  for name in kubernetes kubernetes.default{,.svc{,.cluster.local}}; do names+=,DNS:$name; done
  mkdir -p "$state"/{certs,run,log}
  chmod 700 "$state/certs"
  (
    umask 077
    if [ ! -f "$state/certs/tokens.csv" ]; then
      openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=perstack-cluster \
        -keyout "$state/certs/ca.key" -out "$state/certs/ca.crt" 2>/dev/null
      certificate kubelet-client /O=system:masters/CN=apiserver-kubelet-client
      key "$state/certs/accounts.key"
      user controllers.kubeconfig system:kube-controller-manager
      user scheduler.kubeconfig system:kube-scheduler
      user proxy.kubeconfig system:kube-proxy
      user node.kubeconfig "system:node:$node" system:nodes
      user kubeconfig admin system:masters
    fi
    if [ "$names" != "$(cat "$state/certs/names" 2>/dev/null)" ]; then
      certificate apiserver /CN=kube-apiserver "subjectAltName=$names"
      echo "$names" >"$state/certs/names"
    fi
  )
}

start_etcd() {
  local client=http://127.0.0.1:$((port + 1)) peer=http://127.0.0.1:$((port + 2))
  # Nothing in it is worth waiting for a disk.
  start etcd "$bin/kube" etcd --logger zap --log-level warn --data-dir "$state/etcd" --unsafe-no-fsync \
    --listen-client-urls "$client" --advertise-client-urls "$client" --quota-backend-bytes 8589934592 \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"
  await etcd bash -c ": </dev/tcp/127.0.0.1/$((port + 1))"
}

# start_apiserver ADDRESS SERVICES [FLAG]...
start_apiserver() {
  local certs=$state/certs address=$1 services=$2
  shift 2
  # OwnerReferencesPermissionEnforcement is off in most clusters and on in OpenShift: what passes here passes there.
  start apiserver "$bin/kube" kube-apiserver --etcd-servers "http://127.0.0.1:$((port + 1))" --secure-port "$port" \
    --advertise-address "$address" --service-cluster-ip-range "$services" \
    --tls-cert-file "$certs/apiserver.crt" --tls-private-key-file "$certs/apiserver.key" --client-ca-file "$certs/ca.crt" \
    --token-auth-file "$certs/tokens.csv" --authorization-mode Node,RBAC \
    --enable-admission-plugins NodeRestriction,OwnerReferencesPermissionEnforcement --allow-privileged=true \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$certs/accounts.key" --service-account-signing-key-file "$certs/accounts.key" \
    --kubelet-client-certificate "$certs/kubelet-client.crt" --kubelet-client-key "$certs/kubelet-client.key" \
    --kubelet-preferred-address-types InternalIP "$@"
}

# start_controllers [FLAG]...
start_controllers() {
  local config=$state/controllers.kubeconfig
  start controllers "$bin/kube" kube-controller-manager --kubeconfig "$config" --authentication-kubeconfig "$config" \
    --authorization-kubeconfig "$config" --bind-address 127.0.0.1 --secure-port $((port + 3)) --leader-elect=false \
    --service-account-private-key-file "$state/certs/accounts.key" --root-ca-file "$state/certs/ca.crt" \
    --use-service-account-credentials "$@"
}

# start_scheduler [FLAG]...
start_scheduler() {
  local config=$state/scheduler.kubeconfig
  start scheduler "$bin/kube" kube-scheduler --kubeconfig "$config" --authentication-kubeconfig "$config" \
    --authorization-kubeconfig "$config" --bind-address 127.0.0.1 --secure-port $((port + 4)) --leader-elect=false "$@"
}
