#!/usr/bin/env bash
# hosts.sh up|down: N "hosts" on one machine, network namespaces $P1 .. $PN with the addresses 10.77.0.i on one bridge, which lives in a
# namespace too, so that nothing is added to the machine's own network. Needs root and iproute2. STATE: a folder for their files.
set -eu
N=${N:-4} P=${P:-afh} STATE=${STATE:?a folder for the hosts}
down() {
  for name in $(seq -f "$P%g" "$N") "$P-sw"; do
    for pid in $(ip netns pids "$name" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
    ip netns del "$name" 2>/dev/null || true
  done
}
case $1 in
  down) down ;;
  up)
    down
    mkdir -p "$STATE"
    printf '127.0.0.1 localhost\n10.77.0.254 %s-sw\n' "$P" >"$STATE/hosts"
    ip netns add "$P-sw"
    ip -n "$P-sw" link set lo up
    ip -n "$P-sw" link add br0 type bridge
    ip -n "$P-sw" addr add 10.77.0.254/24 dev br0
    ip -n "$P-sw" link set br0 up
    for i in $(seq "$N"); do
      ip netns add "$P$i"
      ip -n "$P$i" link set lo up
      ip link add eth0 netns "$P$i" type veth peer name "p$i" netns "$P-sw"
      ip -n "$P$i" addr add "10.77.0.$i/24" dev eth0
      ip -n "$P$i" link set eth0 up
      ip -n "$P-sw" link set "p$i" master br0 up
      mkdir -p "$STATE/tmp/$P$i"
      echo "10.77.0.$i $P$i" >>"$STATE/hosts"
    done ;;
  *) echo "hosts.sh up|down" >&2; exit 2 ;;
esac
