#!/usr/bin/env bash
# A cluster of three on the test bed (bed.sh): router r, targets t1 and t2, one VIP of each IP version, one tunnel to the client guest.
#
#     node      network port                link port       control
#     r         10.77.0.1   fd77::1         10.78.0.1       10.79.0.1:7900     VIPs 10.77.0.100 and fd77::100
#     t1        10.77.0.11  fd77::11        10.78.0.11      10.79.0.11
#     t2        10.77.0.12  fd77::12        10.78.0.12      10.79.0.12
#     client    10.77.0.10  fd77::10        inner addresses in tunnel mode: 10.99.0.10, fd99::10
#
# Sourced for its functions, or run: cluster.sh FUNCTION PREFIX [ARGUMENTS...], for example `cluster.sh start px r`.
# From the environment:
#   PHALANX                  the binary; default: what `cargo build --release` made
#   OUTER INNER MODE ESN     the tunnel, as for guest-sa; default 4, OUTER, tunnel, 0
#   ALGORITHM                of the static SAs, as the configuration calls it; default aes128-gcm16
#   AROUND                   none, or the algorithm of AH around ESP
#   WINDOW                   the client's replay window; default 64
#   SA                       further lines of the router's [[sa]]
#   PEER                     lines of a [[peer]] that negotiates: then there is no [[sa]], and the guest runs strongSwan (guest-swan)
#   DISTRIBUTE               a VIP's distribution; default: TCP ports 80, 5201 and 8080 to both targets
#   NEXT_HOPS                of the nodes' network ports, in quotes; default: the gateway, if there is one
#   MORE                     further lines of all configurations
#   SELECT                   round-robin | least-connections
#   NETWORK_DRIVER           the nodes' network ports; default net_af_packet, before which the kernel puts IPv4 fragments together; net_af_xdp does not
#   LINK                     gre | memif: the nodes' links; default gre, over the link ports
#   ENCAP KEEPALIVE          none | udp: ESP in UDP; NAT keepalives after so many seconds of silence, default 20
#   GATEWAY GATEWAY_MTU      what is between the client and the network (bed.sh); the client is then 10.88.0.10 and fd88::10, and the nodes
#                            reach it through 10.77.0.20 and fd77::20

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=bed.sh
. "$(dirname "${BASH_SOURCE[0]}")/bed.sh"

ROOT=$(cd "$LIB/../.." && pwd)
PHALANX=${PHALANX:-${CARGO_TARGET_DIR:-$ROOT/target}/release/phalanx}
: "${OUTER:=4}" "${MODE:=tunnel}" "${ESN:=0}" "${WINDOW:=64}" "${SELECT:=round-robin}" "${NETWORK_DRIVER:=net_af_packet}"
: "${ALGORITHM:=aes128-gcm16}" "${AROUND:=none}" "${ENCAP:=none}" "${KEEPALIVE:=20}" "${LINK:=gre}" "${PEER:=}" "${MORE:=}" "${DISTRIBUTE:=}"
[ -n "$DISTRIBUTE" ] || DISTRIBUTE='{ ports = [80, 5201, 8080], targets = ["t1", "t2"] }'
: "${NEXT_HOPS:=$([ "$GATEWAY" = none ] || echo '"10.77.0.20", "fd77::20"')}"
: "${INNER:=$OUTER}"
[ "$MODE" = tunnel ] || INNER=$OUTER
SPI_TO_VIP=4097 SPI_TO_CLIENT=8193

vip_of() { [ "$1" = 4 ] && echo 10.77.0.100 || echo fd77::100; }
# What the nodes see of the client.
client_of() {
  case $GATEWAY$1 in none4) echo 10.77.0.10 ;; none6) echo fd77::10 ;; route4) echo 10.88.0.10 ;; route6) echo fd88::10 ;; nat4) echo 10.77.0.20 ;; nat6) echo fd77::20 ;; esac
}
inner_client() {
  if [ "$MODE" = transport ]; then client_of "$OUTER"; elif [ "$INNER" = 4 ]; then echo 10.99.0.10; else echo fd99::10; fi
}
url_host() { [ "$INNER" = 4 ] && vip_of 4 || echo "[$(vip_of 6)]"; }

# ---- configuration ----------------------------------------------------------------------------------------------------------------

# Where the node is, as another one sees it: its address, or that one's memif port that leads there.
link_of() { # NODE NODE_SEEN NUMBER
  [ "$LINK" = gre ] && { echo "link = [\"10.78.0.$3\"]"; return; }
  case $1$2 in rt1 | rt2) echo "link = [\"memif:to-$2\"]" ;; t1r | t2r) echo 'link = ["memif:to-r"]' ;; esac
}

# Names of the ports of a node's links, one a line.
link_ports() { # NODE
  if [ "$LINK" = gre ]; then echo link; elif [ "$1" = r ]; then echo to-t1 to-t2; else echo to-r; fi | tr ' ' '\n'
}

link_config() { # NODE NUMBER
  local port target role
  if [ "$LINK" = gre ]; then
    cat <<X
[[port]]
name = "link"
device = "net_af_packet,iface=link0"
role = "link"
addresses = ["10.78.0.$2/24"]
mtu = 1600
X
    return
  fi
  for port in $(link_ports "$1"); do
    if [ "$1" = r ]; then target=${port#to-} role=server; else target=$1 role=client; fi
    cat <<X
[[port]]
name = "$port"
device = "net_memif,role=$role,socket=$BED_DIR/memif-$target"
role = "link"
X
  done
}

# What all three files have in common.
common_config() { # NODE NUMBER CPU ROLE
  cat <<X
[node]
name = "$1"
status_socket = "$BED_DIR/$1.sock"
metrics = "127.0.0.1:9469"
state_dir = "$BED_DIR/store/$1"

[cluster]
name = "$BED"
certificate = "$1.pem"
key = "$1.key"
ca = "ca.pem"
coupling = "embedded"
$5
[[cluster.node]]
name = "r"
address = "10.79.0.1:7900"
$(link_of "$1" r 1)

[[cluster.node]]
name = "t1"
$(link_of "$1" t1 11)

[[cluster.node]]
name = "t2"
$(link_of "$1" t2 12)

[memory]
hugepages = "never"
$MORE

[[port]]
name = "net"
device = "$NETWORK_DRIVER,iface=net0"
role = "network"
addresses = ["10.77.0.$2/24", "fd77::$2/64"]
$([ -z "$NEXT_HOPS" ] || echo "next_hops = [$NEXT_HOPS]")
mtu = 1500

$(link_config "$1" "$2")

[[port]]
name = "app"
device = "net_tap,iface=vip0"
role = "application"

[[core]]
cpu = $3
roles = ["$4"]
ports = ["net", $(link_ports "$1" | sed 's/.*/"&",/' | tr '\n' ' ')"app"]
idle = "sleep"
X
}

# Of the SA: ESP in UDP, and in transport mode what the client calls itself behind its NAT.
encapsulation() {
  [ "$ENCAP" = udp ] || return 0
  printf 'encapsulation = "udp"\nnat_keepalive = %s\n' "$KEEPALIVE"
  [ "$MODE" = tunnel ] || printf 'original = { remote = "%s" }\n' "$([ "$OUTER" = 4 ] && echo 10.88.0.10 || echo fd88::10)"
}

# The SA of AH around that of ESP.
around() {
  [ "$AROUND" != none ] || return 0
  cat <<X

[[sa]]
name = "around"
vip = "vip$OUTER"
peer = "$(client_of "$OUTER")"
mode = "transport"
algorithm = "$AROUND"
esn = $([ "$ESN" = 0 ] && echo false || echo true)
inbound = { spi = $SPI_TO_VIP, key_file = "around-to-vip.key", window = 1024 }
outbound = { spi = $SPI_TO_CLIENT, key_file = "around-to-client.key", window = $WINDOW }
X
}

router_config() {
  local family width=32
  [ "$INNER" = 4 ] || width=128
  common_config r 1 0 router 'listen = "10.79.0.1:7900"'
  for family in 4 6; do
    cat <<X

[[vip]]
name = "vip$family"
id = $family
address = "$(vip_of $family)/$([ $family = 4 ] && echo 24 || echo 64)"
owner = "r"
distribute = [$DISTRIBUTE]
select = "$SELECT"
X
  done
  if [ -n "$PEER" ]; then
    printf '\n[[peer]]\nname = "client"\nvip = "vip%s"\n%s\n' "$OUTER" "$PEER"
    return
  fi
  cat <<X

[[sa]]
name = "client"
vip = "vip$OUTER"
peer = "$(client_of "$OUTER")"
mode = "$MODE"
algorithm = "$ALGORITHM"
esn = $([ "$ESN" = 0 ] && echo false || echo true)
inbound = { spi = $SPI_TO_VIP, key_file = "to-vip.key", window = 1024 }
outbound = { spi = $SPI_TO_CLIENT, key_file = "to-client.key", window = $WINDOW }
local = "$(vip_of "$INNER")/$width"
remote = "$(inner_client)/$width"
$([ "$AROUND" = none ] || echo 'within = "around"')
$(encapsulation)
${SA:-}
$(around)

[[filter]]
action = "protect"
vip = "vip$OUTER"
tunnel = "client"
local = "$(vip_of "$INNER")/$width"
remote = "$(inner_client)/$width"
X
}

# random_key [BYTES]: in hexadecimal.
random_key() { od -An -v -N"${1:-20}" -tx1 /dev/urandom | tr -d ' \n'; }

# key_bytes ALGORITHM: of an SA's keying material: key and salt, or keys of encryption and integrity.
key_bytes() {
  local cipher=0 rest=4
  case ${1#ah-} in aes128-*) cipher=16 ;; aes256-* | chacha20-*) cipher=32 ;; esac
  case $1 in *-sha*) rest=$((${1##*-sha} / 8)) ;; esac
  echo $((cipher + rest))
}

# configure_router: the SAs' keys and the router's configuration, also anew while it runs.
configure_router() {
  local etc=$BED_DIR/etc
  (umask 077; for key in to-vip to-client; do
    random_key "$(key_bytes "$ALGORITHM")" >"$etc/$key.key"
    [ "$AROUND" = none ] || random_key "$(key_bytes "$AROUND")" >"$etc/around-$key.key"
  done)
  (umask 077; router_config >"$etc/r.toml")
}

# configure: keys, certificates, three configurations and the router's store.
configure() {
  local etc=$BED_DIR/etc cpus node number
  cpus=$(nproc)
  (umask 077; random_key >"$etc/client.psk")
  configure_router
  for node in t1 t2; do
    number=$((10 + ${node#t}))
    (umask 077; common_config "$node" "$number" $((${node#t} % cpus)) target 'routers = ["r"]' >"$etc/$node.toml")
  done
  "$PHALANX" pki init --dir "$etc" --cluster "$BED" >/dev/null
  for node in r t1 t2; do "$PHALANX" pki issue "$node" --dir "$etc" >/dev/null; done
  "$PHALANX" store create --config "$etc/r.toml" >/dev/null
}

# client_swan: strongSwan in the guest, with what is in $BED_DIR/guest/swan.
client_swan() {
  cp "$LIB/guest-net" "$LIB/guest-swan" "$BED_DIR/guest/"
  bed_run "OUTER=$OUTER INNER=$INNER MODE=$MODE GATEWAY=$GATEWAY GATEWAY_MTU=$GATEWAY_MTU /mnt/guest-swan"
}

# user_swan: strongSwan whose IPsec is in user space, on the host `at`, with $BED_DIR/user/swanctl.conf: 10.77.0.66, inside 10.99.0.66.
user_swan() {
  local folder=$BED_DIR/user i
  mkdir -p "$folder"/{x509,x509ca,x509crl,x509ocsp,x509aa,x509ac,private,pubkey,rsa,ecdsa,bliss,pkcs8,pkcs12}
  ip -n "$BED-at" addr replace 10.77.0.66/24 dev net0
  ip -n "$BED-at" addr replace 10.99.0.66/32 dev lo
  bed_in at sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.net0.rp_filter=0
  bed_start at user-swan "$LIB/user-swan" "$folder"
  for ((i = 0; i < 200; i++)); do
    if [ -S "$folder/vici" ] && SWANCTL_DIR=$folder swanctl --load-all --uri "unix://$folder/vici" >"$folder/loaded" 2>&1; then return 0; fi
    sleep 0.05
  done
  cat "$BED_DIR/log/user-swan.log" "$folder/loaded" >&2 || true
  fail "strongSwan in user space did not start"
}

# client_sa: the other end of the tunnel, in the guest.
client_sa() {
  cp "$LIB/guest-net" "$LIB/guest-sa" "$BED_DIR/guest/" # the guest has a /tmp and a /run of its own over ours, and this checkout may be there
  local around=""
  [ "$AROUND" = none ] || around="AROUND=$AROUND AROUND_OUT=$(cat "$BED_DIR/etc/around-to-vip.key") AROUND_IN=$(cat "$BED_DIR/etc/around-to-client.key")"
  bed_run "OUTER=$OUTER INNER=$INNER MODE=$MODE ESN=$ESN WINDOW=$WINDOW GATEWAY=$GATEWAY GATEWAY_MTU=$GATEWAY_MTU ENCAP=$ENCAP ALGORITHM=$ALGORITHM $around \
    SPI_OUT=$SPI_TO_VIP KEY_OUT=$(cat "$BED_DIR/etc/to-vip.key") SPI_IN=$SPI_TO_CLIENT KEY_IN=$(cat "$BED_DIR/etc/to-client.key") /mnt/guest-sa"
}

# ---- nodes ------------------------------------------------------------------------------------------------------------------------

# query NODE COMMAND...: `phalanx status` and its kin, of that node.
query() { local node=$1; shift; "$PHALANX" "$@" --socket "$BED_DIR/$node.sock"; }

# start NODE: one `phalanx run`; returns when its status socket answers.
start() {
  local node=$1 i
  bed_start "$node" "$node" "$PHALANX" run --config "$BED_DIR/etc/$node.toml"
  for ((i = 0; i < 400; i++)); do
    query "$node" status >/dev/null 2>&1 && return 0
    bed_pid "$node" >/dev/null || break
    sleep 0.05
  done
  sed 's/^/    /' "$BED_DIR/log/$node.log" >&2
  fail "node $node did not start"
}

# ready: waits until the router may give connections to both targets.
ready() {
  local i
  for ((i = 0; i < 400; i++)); do
    [ "$(query r target --json 2>/dev/null | jq '[.[] | select(.ready)] | length')" = 2 ] && return 0
    sleep 0.05
  done
  query r target >&2 || true
  fail "the targets did not become ready"
}

# web NODE: nginx in a target's namespace; each page says who serves it.
web() {
  local node=$1 dir=$BED_DIR/web-$1 i
  mkdir -p "$dir/pages"
  echo "served by $node" >"$dir/pages/index.html"
  head -c 1000000 /dev/zero >"$dir/pages/megabyte"
  cat >"$dir/nginx.conf" <<X
daemon off;
master_process off;
user root;
pid $dir/nginx.pid;
error_log $dir/error.log;
events { worker_connections 512; }
http {
  access_log $dir/access.log;
  client_body_temp_path $dir; proxy_temp_path $dir; fastcgi_temp_path $dir; uwsgi_temp_path $dir; scgi_temp_path $dir;
  server { listen 80; listen [::]:80; root $dir/pages; add_header Served-By $node; }
}
X
  : >"$dir/access.log"
  bed_start "$node" "nginx-$node" nginx -e "$dir/error.log" -c "$dir/nginx.conf"
  for ((i = 0; i < 100; i++)); do [ -s "$dir/nginx.pid" ] && return 0; sleep 0.05; done
  cat "$dir/error.log" >&2
  fail "nginx on $node did not start"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  [ $# -ge 2 ] || fail "usage: cluster.sh FUNCTION PREFIX [ARGUMENTS...]"
  function=$1
  bed_use "$2"
  shift 2
  "$function" "$@"
fi
