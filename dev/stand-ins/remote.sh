# Sourced by dev/engines: an engine that shares nothing with this machine. It has its own address, where it answers
# over TLS, and where an sshd leads to its socket. Keys and certificates are made here.
. "$here/namespaces.sh"
. "$root/dev/kubernetes/control-plane.sh"

engine_up() {
  packages openssl:openssl /usr/sbin/sshd:openssh-server ssh:openssh-client
  # One at a time, since the free network is looked for.
  (lock "$base/networks.lock"; find_network)
  number=$(cat "$state/network")
  far=198.18.$number.2
  make_keys
  start_apart "" -H "tcp://0.0.0.0:2376" --tlsverify \
    --tlscacert "$state/certs/ca.crt" --tlscert "$state/certs/server.crt" --tlskey "$state/certs/server.key"
  connect
  start sshd nsenter --target "$(first_process)" --mount --net --pid -- /usr/sbin/sshd -D -e -f "$state/ssh/sshd_config"
  await sshd bash -c ": </dev/tcp/$far/22"
}

engine_down() {
  stop sshd
  stop_apart
  # It goes with the engine's namespace; without one, this end is left.
  ip link delete "perstack-e$(cat "$state/network" 2>/dev/null)" 2>/dev/null || true
}

variables() {
  local far
  far=198.18.$(cat "$state/network").2
  if [ "$name" = remote-ssh ]; then
    echo "export DOCKER_HOST=ssh://root@$far"
    # The ssh in this directory reads the stand-in's configuration and keys instead of the user's.
    echo "export PATH=$state/ssh/bin:\$PATH"
  else
    echo "export DOCKER_HOST=tcp://$far:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$state/client"
  fi
}

# A network of four addresses that no other stand-in has, from the range for tests of networks (RFC 2544).
find_network() {
  local number
  [ ! -e "$state/network" ] || return 0
  for number in $(seq 0 250); do
    grep -qx "$number" "$base"/*/remote/network 2>/dev/null || break
  done
  echo "$number" >"$state/network"
}

make_keys() {
  [ ! -e "$state/ssh/known_hosts" ] || return 0
  mkdir -p "$state/certs" "$state/client" "$state/ssh/bin"
  chmod 700 "$state/certs" "$state/client" "$state/ssh"
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=perstack-engine \
    -keyout "$state/certs/ca.key" -out "$state/certs/ca.crt" 2>/dev/null
  certificate server /CN=server "subjectAltName=IP:$far"
  certificate client /CN=client extendedKeyUsage=clientAuth
  cp "$state/certs/ca.crt" "$state/client/ca.pem"
  cp "$state/certs/client.crt" "$state/client/cert.pem"
  cp "$state/certs/client.key" "$state/client/key.pem"

  ssh-keygen -q -t ed25519 -N "" -f "$state/ssh/host"
  ssh-keygen -q -t ed25519 -N "" -f "$state/ssh/user"
  cat >"$state/ssh/sshd_config" <<CONFIG
ListenAddress $far
HostKey $state/ssh/host
AuthorizedKeysFile $state/ssh/user.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
MaxSessions 100
MaxStartups 100
CONFIG
  cat >"$state/ssh/config" <<CONFIG
Host *
  IdentityFile $state/ssh/user
  UserKnownHostsFile $state/ssh/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
CONFIG
  printf '#!/bin/sh\nexec %s -F %s "$@"\n' "$(command -v ssh)" "$state/ssh/config" >"$state/ssh/bin/ssh"
  chmod +x "$state/ssh/bin/ssh"
  echo "$far $(cat "$state/ssh/host.pub")" >"$state/ssh/known_hosts"
}

connect() {
  local near=perstack-e$number
  ! ip link show "$near" >/dev/null 2>&1 || return 0
  ip link add "$near" type veth peer name eth0 netns "$(first_process)"
  ip address add "198.18.$number.1/30" dev "$near"
  ip link set "$near" up
  inside ip address add "$far/30" dev eth0
  inside ip link set eth0 up
}
