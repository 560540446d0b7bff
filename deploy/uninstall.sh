#!/usr/bin/env bash
# Stops Kybern on this host and removes what install.sh put there. Configuration (/etc/kybern) and data
# (/var/lib/kybern) stay unless --purge is said; a node's links and rules are removed in any case.
#
#   sudo deploy/uninstall.sh [--purge]
set -euo pipefail

PREFIX=${KYBERN_PREFIX:-/opt/kybern}
UNITS=${KYBERN_UNITS:-/etc/systemd/system}
COMMANDS=${KYBERN_COMMANDS:-/usr/local/bin}

die() { echo "uninstall.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "needs root: run it with sudo"
case ${1-} in '' | --purge) ;; *) die "unknown option $1: there is --purge" ;; esac

if [ -d /run/systemd/system ]; then
  for daemon in node master store; do
    systemctl disable --now "kybern-$daemon.service" 2>/dev/null || true
  done
fi
if [ -x "$PREFIX/bin/python" ] && [ -e "$UNITS/kybern-node.service" ]; then
  # An agent that stops leaves the pods' network in force; a host that leaves must not.
  "$PREFIX/bin/python" -m node.network.cleanup || echo "uninstall.sh: links or rules are left" >&2
fi
for daemon in store master node; do
  rm -f "$UNITS/kybern-$daemon.service"
done
for command in kybern kybern-store kybern-master kybern-node; do
  [ ! -L "$COMMANDS/$command" ] || rm -f "$COMMANDS/$command"
done
# systemd does not run in images and containers.
[ ! -d /run/systemd/system ] || systemctl daemon-reload
rm -rf "$PREFIX"
if [ "${1-}" = --purge ]; then
  rm -rf /etc/kybern /var/lib/kybern
  echo "Removed, with configuration and data."
else
  echo "Removed. /etc/kybern and /var/lib/kybern are still there; --purge removes them too."
fi
