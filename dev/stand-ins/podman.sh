# Sourced by dev/engines: Podman's service, which answers Docker's API, with its own store. It runs as root, or as a user
# without privileges that exists as long as the stand-in does.
user=root
[ "$name" = podman ] || user=perstack-$checkout
home=$state/home
# Podman takes at most 50 characters.
running_state=/run/$directory-$checkout
socket=$running_state/podman.sock

engine_up() {
  packages podman:podman runc:runc
  [ "$user" = root ] || add_user
  install --directory --owner "$user" --mode 0700 "$home" "$running_state"
  # Options and not a configuration file: Podman hands them to the process that notes the end of a container. Without
  # systemd, cgroups and events must be Podman's own.
  start engine setpriv --reuid "$user" --regid "$user" --init-groups env --ignore-environment PATH="$PATH" HOME="$home" XDG_RUNTIME_DIR="$running_state" \
    podman --root "$home/store" --runroot "$running_state/store" --tmpdir "$running_state/tmp" --storage-driver overlay --cgroup-manager cgroupfs \
    --events-backend file --runtime "$here/modest-runc" system service --time=0 "unix://$socket"
  await engine docker -H "unix://$socket" version
}

engine_down() {
  local pid
  if running engine; then docker -H "unix://$socket" ps --all --quiet | xargs --no-run-if-empty docker -H "unix://$socket" rm --force --volumes >/dev/null 2>&1 || true; fi
  stop engine TERM
  # A process of Podman keeps the user's namespaces open.
  if [ "$user" != root ] && id "$user" >/dev/null 2>&1; then
    pgrep -u "$user" | while read -r pid; do kill -s KILL "$pid" 2>/dev/null || true; done
    userdel "$user"
  fi
  unmount_below "$running_state"
  rm -rf "$running_state"
}

variables() { echo "export DOCKER_HOST=unix://$socket"; }

add_user() {
  packages newuidmap:uidmap
  id "$user" >/dev/null 2>&1 || useradd --no-create-home --home-dir "$home" --shell /bin/bash "$user"
}
