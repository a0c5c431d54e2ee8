# Sourced by dev/engines: an engine in a virtual machine, as desktop products and Colima have one: another kernel, cgroup v2,
# files through virtiofs, and the engine's socket forwarded over ssh.
disk=$base/vm
virtiofsd=/usr/lib/qemu/virtiofsd
socket=$state/api/docker.sock
# The machine writes to its share as root, and a Debian that boots empties /tmp. So it gets a directory that holds files of
# tests and nothing else, at a path that no cleanup of either system knows.
share=/mnt/perstack-$checkout

engine_up() {
  packages qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils mmdebstrap:mmdebstrap mke2fs:e2fsprogs ssh:openssh-client "$virtiofsd:qemu-system-common"
  build_disk
  accelerator=$(accelerator)
  mkdir -p "$state/api"
  install --directory --mode 1777 "$share"
  [ -e "$state/disk.qcow2" ] || qemu-img create -q -f qcow2 -F raw -b "$disk/disk" "$state/disk.qcow2"
  [ -e "$state/port" ] || free_port >"$state/port"
  start share "$virtiofsd" --socket-path="$state/share.sock" -o "source=$share" -o cache=auto
  await share test -S "$state/share.sock"
  start_machine
  # An emulated one takes minutes.
  for _ in 1 2 3 4 5; do ! appears engine forwarded || break; done
  await engine forwarded
  machine "mkdir -p $share && { mountpoint -q $share || mount -t virtiofs share $share; }"
}

engine_down() {
  stop forward
  stop engine TERM 10
  stop share
  rm -rf "$share"
}

variables() {
  echo "export DOCKER_HOST=unix://$socket"
  # Tests make their files where the machine sees them.
  echo "export TMPDIR=$share"
}

start_machine() {
  start engine qemu-system-x86_64 -accel "$accelerator" -cpu max -smp 2 -nodefaults -no-user-config -display none -no-reboot -serial stdio \
    -object memory-backend-memfd,id=memory,size=4G,share=on -machine q35,memory-backend=memory -m 4G \
    -kernel "$disk/vmlinuz" -initrd "$disk/initrd" -append "root=/dev/vda rw console=ttyS0 net.ifnames=0" \
    -drive "file=$state/disk.qcow2,if=virtio,cache=unsafe" \
    -netdev "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$(cat "$state/port")-:22" -device virtio-net-pci,netdev=net \
    -chardev "socket,id=share,path=$state/share.sock" -device vhost-user-fs-pci,chardev=share,tag=share
}

# machine COMMAND: in the virtual machine.
machine() { ssh -F "$disk/ssh_config" -p "$(cat "$state/port")" root@127.0.0.1 "$1"; }

# The socket of the machine's engine as one of ours, once its sshd answers.
forwarded() {
  docker -H "unix://$socket" version >/dev/null 2>&1 && return
  stop forward
  rm -f "$socket"
  start forward ssh -F "$disk/ssh_config" -p "$(cat "$state/port")" -N -L "$socket:/run/docker.sock" root@127.0.0.1
  sleep 2
  docker -H "unix://$socket" version >/dev/null 2>&1
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# A disk with Debian, its kernel for clouds, Docker and an sshd: 3 minutes, once.
build_disk() {
  (
    mkdir -p "$disk"
    lock "$disk/lock"
    [ ! -e "$disk/kvm" ] || exit 0
    echo "engines: a disk for the virtual machine from Debian's packages, which takes minutes the first time" >&2
    work=$(mktemp -d "$disk/work-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    rm -f "$disk"/user* "$disk"/host*
    ssh-keygen -q -t ed25519 -N "" -f "$disk/user"
    ssh-keygen -q -t ed25519 -N "" -f "$disk/host"
    mmdebstrap --quiet --variant=minbase --include=linux-image-cloud-amd64,systemd-sysv,udev,kmod,docker.io,openssh-server \
      --customize-hook="$here/vm/configure \"\$1\" $disk" bookworm "$work/root.tar"
    mkdir "$work/root"
    tar -C "$work/root" -xf "$work/root.tar"
    cp "$work"/root/boot/vmlinuz-* "$disk/vmlinuz"
    cp "$work"/root/boot/initrd.img-* "$disk/initrd"
    truncate --size 12G "$disk/disk"
    mke2fs -q -t ext4 -d "$work/root" "$disk/disk"
    printf 'Host *\n  IdentityFile %s\n  UserKnownHostsFile %s\n  HostKeyAlias vm\n  BatchMode yes\n  ServerAliveInterval 15\n' \
      "$disk/user" "$disk/known_hosts" >"$disk/ssh_config"
    echo "vm $(cat "$disk/host.pub")" >"$disk/known_hosts"
    if works_with_kvm; then echo works; else echo fails; fi >"$disk/kvm"
  )
}

# The kernel without a disk panics, which ends the machine. Where it does not get so far, /dev/kvm runs no common kernel.
works_with_kvm() {
  [ -w /dev/kvm ] && timeout 15 qemu-system-x86_64 -accel kvm -cpu max -m 512 -nodefaults -no-user-config -display none -no-reboot \
    -kernel "$disk/vmlinuz" -append panic=-1 >/dev/null 2>&1
}

accelerator() {
  if [ "$(cat "$disk/kvm")" = works ]; then
    echo kvm
  elif [ -n "${PERSTACK_ENGINES_EMULATE:-}" ]; then
    echo tcg,thread=multi
  else
    impossible "/dev/kvm of this machine starts no virtual machine; PERSTACK_ENGINES_EMULATE=1 emulates one, ten times slower"
  fi
}
