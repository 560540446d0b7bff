#!/usr/bin/env bash
# Installs this checkout on this host: a virtual environment in /opt/kybern, the commands on the PATH, the systemd units.
# Doing it again upgrades. `kybern init` or `kybern join` comes after it; nothing is enabled or started here.
#
#   sudo deploy/install.sh [--node]     --node: also what a node needs (Docker, iptables, conntrack)
set -euo pipefail
cd "$(dirname "$0")/.."

PREFIX=${KYBERN_PREFIX:-/opt/kybern}
UNITS=${KYBERN_UNITS:-/etc/systemd/system}
COMMANDS=${KYBERN_COMMANDS:-/usr/local/bin}
PYTHON=${PYTHON:-python3}

die() { echo "install.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "needs root: run it with sudo"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "needs Python 3.11 or later: set PYTHON"

need=()
"$PYTHON" -c 'import ensurepip' 2>/dev/null || need+=(python3-venv)
case ${1-} in
--node)
  command -v dockerd >/dev/null || need+=(docker.io)
  command -v iptables-restore >/dev/null || need+=(iptables)
  command -v conntrack >/dev/null || need+=(conntrack)
  command -v busybox >/dev/null || need+=(busybox-static)
  ;;
'') ;;
*) die "unknown option $1: there is --node" ;;
esac
if [ ${#need[@]} -gt 0 ]; then
  echo "==> installing ${need[*]}"
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "${need[@]}"
fi

echo "==> $PREFIX"
[ -x "$PREFIX/bin/python" ] || "$PYTHON" -m venv "$PREFIX"
# A copy, not a link to this checkout: the daemons must not change when the checkout does.
PIP_CONSTRAINT=$PWD/constraints.txt PIP_BUILD_CONSTRAINT=$PWD/constraints.txt \
  "$PREFIX/bin/python" -m pip --quiet --disable-pip-version-check install --upgrade .

echo "==> commands and units"
install -d "$COMMANDS" "$UNITS"
for command in kybern kybern-store kybern-master kybern-node; do
  ln -sfn "$PREFIX/bin/$command" "$COMMANDS/$command"
done
for unit in deploy/systemd/*.service; do
  sed "s|/opt/kybern/|$PREFIX/|" "$unit" >"$UNITS/$(basename "$unit")"
done
install -d -m 0700 /etc/kybern
# systemd does not run in images and containers.
[ ! -d /run/systemd/system ] || systemctl daemon-reload

cat <<TEXT
Installed. Next:
  the first master:   kybern init --name m1 --address ADDRESS --member m2=ADDRESS --member m3=ADDRESS
  every other host:   kybern join master|node --bundle FILE     (kybern certs on the first master makes it)
  then:               systemctl enable --now kybern-store kybern-master     or     kybern-node
TEXT
