# Sourced by dev/engines: like Docker Desktop and its kind. The engine has its own kernel objects and sees /tmp of this
# machine through FUSE: files cross, unix sockets do not connect. A second share ignores the case of names, as a
# Mac's disk does.
. "$here/namespaces.sh"
caseless=$state/caseless

engine_up() {
  packages lowntfs-3g:ntfs-3g
  start_caseless
  start_apart "/tmp $caseless"
}

# lowntfs-3g is the one file system in Debian that ignores case, has owners and modes, and needs nothing of the kernel but
# FUSE. It lists names in lower case.
start_caseless() {
  mkdir -p "$caseless"
  ! mountpoint --quiet "$caseless" || return 0
  truncate --size 2G "$state/caseless.img"
  mkntfs --force --fast --quiet "$state/caseless.img" >/dev/null 2>&1
  start caseless lowntfs-3g -o no_detach,ignore_case,permissions,allow_other "$state/caseless.img" "$caseless"
  await caseless mountpoint "$caseless"
}

engine_down() {
  stop_apart
  if mountpoint --quiet "$caseless"; then umount --lazy "$caseless"; fi
  stop caseless TERM
}

variables() {
  echo "export DOCKER_HOST=unix://$state/api/docker.sock"
  echo "export PERSTACK_TEST_CASELESS=$caseless"
}
