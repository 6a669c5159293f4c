#!/usr/bin/env bash
# The test bed: namespaces, two bridges, and a user-mode Linux guest as a real IPsec client.
#
#     client guest          attacker     router      target 1     target 2
#       P-cl net0        P-at net0     P-r net0     P-t1 net0     P-t2 net0      network bridge "net" 10.77.0.0/24 fd77::/64, MTU 1500
#                             link0        link0         link0        link0      link bridge "lnk"    10.78.0.0/24, MTU 1600: GRE, driven by DPDK
#                                          ctl0          ctl0         ctl0       link bridge "lnk"    10.79.0.0/24: the kernel's, for mutual TLS
#
# With GATEWAY=route or nat in the environment the client is not on the bridge but behind a gateway, in namespace P-gw, that forwards
# both IP versions; with nat it masquerades, and gives every UDP socket of the client a port of its own choice:
#
#     client guest  net0 ── gin  10.88.0.1   P-gw   10.77.0.20 gout ── n-gw  network bridge
#       10.88.0.10               fd88::1            fd77::20
#
# GATEWAY_MTU (default 1500) is the MTU of both ends of the wire between client and gateway.
#
# P is the prefix that names one bed: several can stand side by side. Both bridges are in namespace P-sw, where the other ends of
# the network links are called n-cl, n-r, n-t1, n-t2, n-at: what is captured there is what that host put on the wire or got from it.
#
# Sourced for its functions (set BED first), or run:
#   bed.sh up P | down P            make it, remove it
#   bed.sh hold P                   make it, print "ready", remove it when stdin closes or on a signal: for tests, whatever way they die
#   bed.sh boot P | booted P        start the guest, wait until it takes commands
#   bed.sh run P COMMAND            run a shell command in the guest: its output, its exit code
#
# Everything that is started is recorded as a file in $BED_DIR/pids ("pid start-time"), and only what is recorded is ended.

set -euo pipefail
LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=say.sh
. "$LIB/say.sh"

BED_ROOT=/run/phalanx-bed
BED_HOSTS=(cl r t1 t2 at)          # on the network bridge
BED_LINKS=(r t1 t2 at)             # on the link bridge
BED_CONTROL=(r t1 t2)              # with an address of the kernel's there
GUEST_MAC=02:70:77:00:00:10
: "${GATEWAY:=none}" "${GATEWAY_MTU:=1500}"
NAT_PORTS=20000-24999              # what the NAT gives to UDP, until bed_nat says otherwise

bed_number() { case $1 in r) echo 01 ;; cl) echo 10 ;; t1) echo 11 ;; t2) echo 12 ;; at) echo 66 ;; esac; }

# bed_use PREFIX: names this bed for all functions below.
bed_use() {
  [[ $1 =~ ^[a-z][a-z0-9]{0,5}$ ]] || fail "a bed's prefix is 1 to 6 lower-case letters and digits: '$1'"
  BED=$1
  BED_DIR=$BED_ROOT/$BED
}

bed_in() { local host=$1; shift; ip netns exec "$BED-$host" "$@"; }

# ---- processes ------------------------------------------------------------------------------------------------------------------

# pid_start_time PID: with the pid it names a process for good; nothing for one that has ended, waited for by its parent or not.
pid_start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  read -ra stat <<<"${stat##*) }"
  # The first thread of a killed process may be gone before the others are.
  if [ "${stat[0]}" = Z ] && [ "${stat[17]}" -le 1 ]; then return 1; fi
  echo "${stat[19]}"
}

bed_record() {
  echo "$2 $(pid_start_time "$2" || echo 0)" >"$BED_DIR/pids/$1"
  disown "$2" # or this shell reports how it ended
}

# bed_pid NAME: the process recorded under that name, if it still is that process.
bed_pid() {
  local pid since
  read -r pid since 2>/dev/null <"$BED_DIR/pids/$1" || return 1
  [ "$(pid_start_time "$pid" || true)" = "$since" ] || return 1
  echo "$pid"
}

# bed_start HOST NAME COMMAND...: in that host's namespace, in a session of its own (Ctrl-C reaches only the script), output to a log.
bed_start() {
  local host=$1 name=$2 session=setsid; shift 2
  # Linux's autogroups share CPUs out by session: between sessions priorities mean nothing.
  if [ -n "${BED_ONE_SESSION:-}" ]; then session=env; fi
  "$session" ip netns exec "$BED-$host" "$@" >"$BED_DIR/log/$name.log" 2>&1 </dev/null &
  bed_record "$name" $!
}

# bed_signal NAME SIGNAL: to the recorded process, if it still runs.
bed_signal() {
  local pid
  pid=$(bed_pid "$1") || return 0
  kill "-$2" "$pid" 2>/dev/null || true # it may have ended just now
}

# bed_wait NAME SECONDS: for its end; then insists.
bed_wait() {
  local i
  for ((i = 0; i < $2 * 20; i++)); do bed_pid "$1" >/dev/null || break; sleep 0.05; done
  bed_signal "$1" KILL
  for ((i = 0; i < 40; i++)); do bed_pid "$1" >/dev/null || break; sleep 0.05; done
  rm -f "$BED_DIR/pids/$1"
}

bed_stop() { bed_signal "$1" TERM; bed_wait "$1" 5; }

# ---- namespaces and wires -------------------------------------------------------------------------------------------------------

# bed_cable HOST INTERFACE MAC OTHER_HOST OTHER_INTERFACE MTU
bed_cable() {
  local host=$BED-$1 dev=$2 mac=$3 other=$BED-$4 end=$5 mtu=$6 side
  ip link add "$dev" netns "$host" address "$mac" mtu "$mtu" type veth peer name "$end" mtu "$mtu" netns "$other"
  # An offloaded checksum or segment would be a packet that no wire carries.
  for side in "$host $dev" "$other $end"; do
    ip netns exec "${side% *}" ethtool -K "${side#* }" rx off tx off sg off tso off gso off gro off txvlan off rxvlan off >/dev/null
    ip -n "${side% *}" link set "${side#* }" up
  done
}

# bed_wire HOST INTERFACE BRIDGE BRIDGE_END MAC MTU
bed_wire() {
  bed_cable "$1" "$2" "$5" sw "$4" "$6"
  ip -n "$BED-sw" link set "$4" master "$3"
}

# bed_gateway: between the client and the network bridge.
bed_gateway() {
  bed_in gw sysctl -qw net.ipv6.conf.default.disable_ipv6=0 # its interfaces are made after this
  bed_cable cl net0 "02:70:77:00:01:10" gw gin "$GATEWAY_MTU"
  bed_wire gw gout net n-gw "02:70:77:00:01:20" 1500
  bed_in gw sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  ip -n "$BED-gw" addr add 10.88.0.1/24 dev gin
  ip -n "$BED-gw" addr add fd88::1/64 dev gin nodad
  ip -n "$BED-gw" addr add 10.77.0.20/24 dev gout
  ip -n "$BED-gw" addr add fd77::20/64 dev gout nodad
  [ "$GATEWAY" = route ] || bed_nat "$NAT_PORTS"
}

# bed_nat UDP_PORTS [IPV4] [IPV6]: what is behind the gateway now has the gateway's address, and a random port of the range. Called again,
# it forgets all its mappings, as a NAT that was restarted; it may then have another address too.
bed_nat() {
  local ports=$1 v4=${2:-10.77.0.20} v6=${3:-fd77::20}
  # The addresses of an interface that goes down take the masqueraded connections with them.
  ip -n "$BED-gw" link set gout down
  ip -n "$BED-gw" addr flush dev gout
  bed_in gw nft -f - <<X
table inet nat
delete table inet nat
table inet nat {
  chain out {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "gout" meta l4proto udp masquerade to :$ports random
    oifname "gout" masquerade
  }
}
X
  ip -n "$BED-gw" addr add "$v4/24" dev gout
  ip -n "$BED-gw" link set gout up
  ip -n "$BED-gw" addr add "$v6/64" dev gout nodad
}

bed_up() {
  bed_down
  local host n HOSTS
  install -d -m 0700 "$BED_DIR" "$BED_DIR"/{pids,log,pcap,etc,store,guest}
  case $GATEWAY in none) HOSTS=("${BED_HOSTS[@]}") ;; route | nat) HOSTS=("${BED_HOSTS[@]}" gw) ;; *) fail "no gateway '$GATEWAY'" ;; esac
  for host in sw "${HOSTS[@]}"; do
    ip netns add "$BED-$host"
    # Only addresses that we give: a kernel's own ND and MLD on these wires would be noise in the captures.
    bed_in "$host" sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.default.accept_dad=0
    ip -n "$BED-$host" link set lo up
  done
  for host in net lnk; do
    # mcast_snooping off: a bridge that prunes multicast loses neighbour solicitations.
    ip -n "$BED-sw" link add "$host" type bridge mcast_snooping 0 forward_delay 0 stp_state 0
    ip -n "$BED-sw" link set "$host" mtu "$([ "$host" = net ] && echo 1500 || echo 1600)" up
  done
  [ "$GATEWAY" = none ] || bed_gateway
  for host in "${BED_HOSTS[@]}"; do n=$(bed_number "$host")
    if [ "$host" = cl ] && [ "$GATEWAY" != none ]; then continue; fi
    bed_wire "$host" net0 net "n-$host" "02:70:77:00:01:$n" 1500
  done
  for host in "${BED_LINKS[@]}"; do n=$(bed_number "$host")
    bed_wire "$host" link0 lnk "l-$host" "02:70:78:00:00:$n" 1600
  done
  for host in "${BED_CONTROL[@]}"; do n=$(bed_number "$host")
    bed_wire "$host" ctl0 lnk "c-$host" "02:70:79:00:00:$n" 1500
    ip -n "$BED-$host" addr add "10.79.0.$((10#$n))/24" dev ctl0
    bed_in "$host" sysctl -qw net.ipv6.conf.default.disable_ipv6=0 # what is made later is the appliance's
  done
}

bed_down() {
  local name host
  if [ -d "$BED_DIR/pids" ]; then
    # All are asked before any is waited for. The guest has nothing to put in order.
    for name in "$BED_DIR"/pids/*; do bed_signal "${name##*/}" "$([ "${name##*/}" = guest ] && echo KILL || echo TERM)"; done
    for name in "$BED_DIR"/pids/*; do bed_wait "${name##*/}" 3; done
  fi
  for host in "${BED_HOSTS[@]}" gw sw; do
    if [ -e "/run/netns/$BED-$host" ]; then ip netns del "$BED-$host" || true; fi
  done
  rm -rf "${BED_DIR:?}"
  rmdir "$BED_ROOT" 2>/dev/null || true
}

# ---- the guest ------------------------------------------------------------------------------------------------------------------
# user-mode Linux on the host's own root file system, read-only; $BED_DIR/guest is its /mnt, writable. A line "ID" on its second
# console makes it run /mnt/ID.cmd; it answers with ID.out and then ID.rc.

bed_boot() {
  local fifo=$BED_DIR/guest/console
  mkfifo "$fifo"
  # Opened for both ways, so that neither side ever sees an end of file. A process-id namespace of its own: its many threads
  # and traced children end with the one process that is recorded.
  setsid ip netns exec "$BED-cl" unshare --pid --fork --kill-child env TMPDIR=/dev/shm linux.uml mem="${GUEST_MEMORY:-256M}" \
    umid=guest uml_dir="$BED_DIR/guest/" rootfstype=hostfs rootflags=/ ro quiet loglevel=4 init="$LIB/guest-init" \
    con=null con0=null,fd:1 con1=fd:3,null "vec0:transport=raw,ifname=net0,mac=$GUEST_MAC,depth=64,gro=0" "bed=$BED_DIR" \
    >"$BED_DIR/log/guest.log" 2>&1 </dev/null 3<>"$fifo" &
  bed_record guest $!
}

# bed_booted: waits until the guest takes commands.
bed_booted() {
  local i
  for ((i = 0; i < 300; i++)); do
    [ -e "$BED_DIR/guest/ready" ] && return 0
    bed_pid guest >/dev/null || break
    sleep 0.05
  done
  cat "$BED_DIR/log/guest.log" >&2
  fail "the client guest did not boot"
}

# bed_run COMMAND [SECONDS]: its output on stdout, its exit code as ours; 124 if it takes longer.
bed_run() {
  local id seconds=${2:-60} i
  id=$(mktemp -u "$BED_DIR/guest/c-XXXXXXXX"); id=${id##*/}
  printf '%s\n' "$1" >"$BED_DIR/guest/$id.cmd"
  echo "$id" >"$BED_DIR/guest/console"
  for ((i = 0; i < seconds * 50; i++)); do
    [ -s "$BED_DIR/guest/$id.rc" ] && break
    # The guest's kernel now and then sleeps over what came on its console, until more comes. An empty line is more.
    if ((i % 3 == 2)) && [ ! -e "$BED_DIR/guest/$id.out" ]; then echo >"$BED_DIR/guest/console"; fi
    sleep 0.02
  done
  cat "$BED_DIR/guest/$id.out" 2>/dev/null || true
  [ -s "$BED_DIR/guest/$id.rc" ] || return 124
  return "$(cat "$BED_DIR/guest/$id.rc")"
}

# ---- captures -------------------------------------------------------------------------------------------------------------------

# capture HOST INTERFACE NAME [tcpdump options and filter...]: into pcap/NAME.pcap; host sw is the switch. Whole packets unless told otherwise.
capture() {
  local host=$1 dev=$2 name=$3 i; shift 3
  bed_start "$host" "tcpdump-$name" tcpdump -i "$dev" -n -U -B 32768 --immediate-mode -w "$BED_DIR/pcap/$name.pcap" "$@"
  for ((i = 0; i < 100; i++)); do grep -q 'listening on' "$BED_DIR/log/tcpdump-$name.log" && return 0; sleep 0.05; done
  fail "tcpdump on $dev did not start: $(cat "$BED_DIR/log/tcpdump-$name.log")"
}

capture_end() { bed_stop "tcpdump-$1"; }

# ---- run as a command -----------------------------------------------------------------------------------------------------------

bed_hold() {
  HOLD_READER=
  exec 4<&0
  trap 'bed_down; kill "$HOLD_READER" 2>/dev/null || true' EXIT
  trap 'exit 1' INT TERM HUP
  bed_up
  cat <&4 >/dev/null & # a shell that waits hears signals, one that reads does not
  HOLD_READER=$!
  echo ready
  wait "$HOLD_READER"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  [ $# -ge 2 ] || fail "usage: bed.sh up|down|hold|boot|booted PREFIX, bed.sh run PREFIX COMMAND"
  bed_use "$2"
  case $1 in
    up) bed_up ;;
    down) bed_down ;;
    hold) bed_hold ;;
    boot) bed_boot ;;
    booted) bed_booted ;;
    run) bed_run "$3" "${4:-60}" ;;
    *) fail "unknown command '$1'" ;;
  esac
fi
