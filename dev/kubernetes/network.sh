# Sourced by dev/cluster: settings of the kernel. All names have our prefix, so that everything can be removed again, even
# if an engine has rules in the same tables, whichever of the two starts first.
pods4=10.244.0.0/24 services4=10.96.0.0/16
pods6=fd00:10:244::/64 services6=fd00:10:96::/112
bridge=perstack0 queue=100
outside4=198.51.100 outside6=2001:db8:ffff

# The machine's addresses on the interface that leads out. IPv6 in addition to IPv4 if there is an address and the
# kernel can rewrite packets.
find_addresses() {
  local route
  route=$(ip -4 -o route get 203.0.113.1 2>/dev/null) || give_up "this machine has no way out over IPv4: see \`ip route\`"
  device=$(sed 's/.* dev \([^ ]*\).*/\1/' <<<"$route")
  ip4=$(sed 's/.* src \([^ ]*\).*/\1/' <<<"$route")
  ip6=$(ip -6 -o address show dev "$device" scope global | sed -n '1s|.* inet6 \([^/]*\)/.*|\1|p')
  ip6tables -t nat -S >/dev/null 2>&1 || ip6=
  pods=$pods4 services=$services4 node_ip=$ip4
  if dual; then pods+=,$pods6 services+=,$services6 node_ip+=,$ip6; fi
}

dual() { [ -n "$ip6" ]; }

kernel() { [ ! -e "/proc/sys/net/$1" ] || [ "$(cat "/proc/sys/net/$1")" = "$2" ] || echo "$2" >"/proc/sys/net/$1"; }

# Without this setting, packets between Pods on the bridge bypass the rules.
policed_bridge() { [ "$(cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null)" = 1 ]; }

kernel_settings() {
  modprobe -a br_netfilter nfnetlink_queue veth 2>/dev/null || true
  kernel ipv4/ip_forward 1
  kernel bridge/bridge-nf-call-iptables 1
  kernel bridge/bridge-nf-call-ip6tables 1
  if dual; then
    # A router ignores what other routers announce; this machine may owe its own address to that.
    kernel "ipv6/conf/$device/accept_ra" 2
    kernel ipv6/conf/all/forwarding 1
  fi
  policed_bridge || give_up "this kernel does not filter bridged packets, so NetworkPolicies would be without effect: load the module br_netfilter"
}

# jump COMMAND FROM TO: as the first rule, also where an engine put its own in front since.
jump() {
  [ "$("$1" -S "$2" 1 2>/dev/null)" != "-A $2 -j $3" ] || return 0
  "$1" -D "$2" -j "$3" 2>/dev/null || true
  "$1" -I "$2" -j "$3"
}

# rules PODS SERVICES EXCEPT VERDICT: VERDICT decides about new connections from and to Pods. Input for iptables-restore,
# which replaces a chain in one piece.
rules() {
  local pods=$1 services=$2 except=$3 new="-m conntrack --ctstate NEW -j $4"
  local known="-m conntrack ! --ctstate NEW,INVALID -j ACCEPT"
  echo "*filter"
  echo ":PERSTACK-FORWARD - [0:0]"
  echo ":PERSTACK-INPUT - [0:0]"
  # An address of a Service that is still one here has no endpoints: kube-proxy refuses it further down.
  echo "-A PERSTACK-FORWARD -d $services -j RETURN"
  # A Pod that sends from another address, also a link-local one, would not be recognized as a Pod.
  echo "-A PERSTACK-FORWARD -i $bridge ! -s $pods $except -j DROP"
  echo "-A PERSTACK-FORWARD -i $bridge $new"
  echo "-A PERSTACK-FORWARD -o $bridge $new"
  # An engine sets the chain's policy to DROP.
  echo "-A PERSTACK-FORWARD -i $bridge $known"
  echo "-A PERSTACK-FORWARD -o $bridge $known"
  # A Pod's way to its own node, to the API server or a kubelet, is policed like any other.
  echo "-A PERSTACK-INPUT -i $bridge ! -s $pods $except -j DROP"
  echo "-A PERSTACK-INPUT -i $bridge $new"
  echo COMMIT
}

# filter VERDICT
filter() {
  rules "$pods4" "$services4" "" "$1" | iptables-restore --noflush
  jump iptables FORWARD PERSTACK-FORWARD
  jump iptables INPUT PERSTACK-INPUT
  dual || return 0
  rules "$pods6" "$services6" "! -p ipv6-icmp" "$1" | ip6tables-restore --noflush
  jump ip6tables FORWARD PERSTACK-FORWARD
  jump ip6tables INPUT PERSTACK-INPUT
}

queue_is_read() { awk '{ print $1 }' /proc/net/netfilter/nfnetlink_queue | grep -qx "$queue"; }

# A host that is not of the cluster, for tests of what a Pod may reach: this machine may reach none.
make_outside() {
  [ -e /run/netns/perstack-outside ] && return
  ip netns add perstack-outside
  ip link add perstack-out type veth peer name eth0 netns perstack-outside
  ip address add "$outside4.2/30" dev perstack-out
  ip link set perstack-out up
  ip -n perstack-outside address add "$outside4.1/30" dev eth0
  ip -n perstack-outside link set lo up
  ip -n perstack-outside link set eth0 up
  if dual; then
    ip address add "$outside6::2/64" dev perstack-out nodad
    ip -n perstack-outside address add "$outside6::1/64" dev eth0 nodad
  fi
}

network_configuration() {
  local ranges="[{\"subnet\":\"$pods4\"}]" routes='{"dst":"0.0.0.0/0"}'
  if dual; then ranges+=",[{\"subnet\":\"$pods6\"}]" routes+=',{"dst":"::/0"}'; fi
  cat <<CNI
{"cniVersion":"0.4.0","name":"perstack-cluster","plugins":[
 {"type":"bridge","bridge":"$bridge","isGateway":true,"ipMasq":true,"hairpinMode":true,
  "ipam":{"type":"host-local","dataDir":"$state/addresses","ranges":[$ranges],"routes":[$routes]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
CNI
}

remove_network() {
  local command table chain
  for command in iptables ip6tables; do
    command -v "$command" >/dev/null || continue
    for chain in FORWARD INPUT; do
      "$command" -D "$chain" -j "PERSTACK-$chain" 2>/dev/null || true
      "$command" -F "PERSTACK-$chain" 2>/dev/null || true
      "$command" -X "PERSTACK-$chain" 2>/dev/null || true
    done
    # What the kubelet leaves: its rule, and chains that show other programs which kind of iptables is in use.
    for chain in INPUT OUTPUT; do "$command" -D "$chain" -j KUBE-FIREWALL 2>/dev/null || true; done
    "$command" -F KUBE-FIREWALL 2>/dev/null || true
    for table in mangle nat filter; do
      for chain in KUBE-FIREWALL KUBE-IPTABLES-HINT KUBE-KUBELET-CANARY KUBE-PROXY-CANARY; do
        "$command" -t "$table" -X "$chain" 2>/dev/null || true
      done
    done
  done
  ip netns delete perstack-outside 2>/dev/null || true
  # `ip netns` mounts the directory on itself.
  if [ -d /run/netns ] && [ -z "$(ls /run/netns)" ]; then umount /run/netns 2>/dev/null || true; fi
  ip link delete perstack-out 2>/dev/null || true
  ip link delete "$bridge" 2>/dev/null || true
}
