# Sourced by stand-ins: a Docker engine in its own namespaces. Its containers, mounts and helpers end with the first
# process of these namespaces, so nothing can be left.

# start_apart SHARES [OPTION OF DOCKERD]...: SHARES are directories of this machine that it sees through FUSE, separated
# by spaces; "all" for the whole machine as it is.
start_apart() {
  packages dockerd:docker.io bindfs:bindfs fusermount3:fuse3 ip:iproute2
  mkdir -p "$state/docker" "$state/api" "$state/run" "$state/log"
  start engine unshare --mount --net --pid --fork --mount-proc --kill-child=KILL -- "$here/first-process" "$state" "$control_group" "$@"
  await engine docker -H "unix://$state/api/docker.sock" version
}

# The directory of its containers' control groups. A container that is killed with its engine leaves them.
control_group=/perstack-engine-$checkout-$directory

# The number of its first process, as this machine counts.
first_process() { pgrep --parent "$(cut -d' ' -f1 "$state/run/engine.pid")"; }

inside() { nsenter --target "$(first_process)" --mount --net --pid -- "$@"; }

stop_apart() {
  local first
  if running engine && first=$(first_process); then
    kill -s TERM "$first"
    for _ in $(seq 300); do running engine || break; sleep 0.05; done
  fi
  stop engine
  find /sys/fs/cgroup -depth -type d -path "*$control_group*" -exec rmdir {} + 2>/dev/null || true
}
