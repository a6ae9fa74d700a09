#!/usr/bin/env bash
# host_exec.sh HOST COMMAND...: in place of ssh for mpirun (--mca plm_rsh_agent). The command gets the host's network, its name, and a
# /dev/shm, TMPDIR and hosts file of its own.
P=${P:-afh} STATE=${STATE:?as for hosts.sh}
host=$1
shift
case $host in 10.77.0.*) host=$P${host##*.} ;; esac
export STATE P
exec nsenter --net=/run/netns/"$host" unshare --uts --mount --ipc /bin/bash -c '
  hostname "$0"; mount --make-rprivate /
  mount -t tmpfs -o size=1g,mode=1777 tmpfs /dev/shm
  export TMPDIR="$STATE/tmp/$0"
  mount --bind "$STATE/hosts" /etc/hosts
  exec /bin/sh -c "$*"' "$host" "$@"
