# Sourced by dev/engines: an engine whose containers run in gVisor, as people install it: without --host-uds, so no
# container connects to a socket of this machine.
. "$here/namespaces.sh"
. "$root/dev/go.sh"

engine_up() {
  build_runsc
  start_apart all --add-runtime "runsc=$bin/runsc" --default-runtime runsc
}

engine_down() { stop_apart; }

variables() { echo "export DOCKER_HOST=unix://$state/api/docker.sock"; }

# 3 minutes of two cores, once. One build at a time: the lock is that of all checkouts.
build_runsc() {
  local sources
  sources=$(cd "$here/gvisor" && cat go.mod go.sum tools.go | sha256sum | cut -c1-12)
  (
    mkdir -p "$bin"
    lock "$bin/lock"
    [ "$(cat "$bin/.runsc" 2>/dev/null)" != "$sources" ] || exit 0
    echo "engines: runsc from source, which takes minutes the first time" >&2
    cd "$here/gvisor"
    find_go
    GOTOOLCHAIN=auto GOFLAGS=-mod=readonly CGO_ENABLED=0 nice "$go" build -trimpath -ldflags "-s -w" -o "$bin/runsc" gvisor.dev/gvisor/runsc \
      || give_up "runsc could not be built: see the lines above"
    echo "$sources" >"$bin/.runsc"
  )
}
