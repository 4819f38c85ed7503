#!/bin/bash
# Runs a peer in a mount and process namespace of its own, so that packages are neither installed nor configured on
# this machine: `enter.sh DIR COMMAND…`. DIR (with passwd, group, run/) appears as /mnt. Started by peers.py.
set -euo pipefail
dir=$1
shift
mount --bind "$dir" /mnt
mount --bind /mnt/run/passwd /etc/passwd
mount --bind /mnt/run/group /etc/group
# Names of this machine only: a peer that looks up its clients must not wait for a name server that is not there.
if [ -e /etc/resolv.conf ]; then mount --bind /mnt/run/resolv.conf "$(readlink -f /etc/resolv.conf)"; fi
# Paths that OpenSMTPD was compiled with; its spool must be on the disk that is measured.
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /var/spool
mount -t tmpfs -o mode=755 tmpfs /run
# Its programs for deliveries.
if [ -d /usr/libexec ] && [ -d /mnt/opensmtpd/usr/libexec ]; then mount --bind /mnt/opensmtpd/usr/libexec /usr/libexec; fi
mkdir -p /var/lib/opensmtpd/empty /var/spool/smtpd
if [ -d /mnt/run/opensmtpd/spool ]; then mount --bind /mnt/run/opensmtpd/spool /var/spool/smtpd; fi
# The first process of the namespace stays this one: when it is killed, by us or by the death of who started it, all end.
# Postfix, changing its user, would have lost the signal for that.
"$@" &
wait $!
