#!/usr/bin/env bash
# Makes a virtual machine a host of the cluster. Vagrant runs it as root; doing it again is harmless.
#
# NAME, ADDRESS: this host's.  FIRST: the master that issues bundles.  MASTERS, NODES: `name=address` of all.
set -euo pipefail
cd /usr/local/src/kybern

role=node
for master in $MASTERS; do
  [ "${master%%=*}" != "$NAME" ] || role=master
done

if [ $role = node ]; then deploy/install.sh --node; else deploy/install.sh; fi

if [ -e /etc/kybern/cluster.yaml ]; then
  echo "==> $NAME belongs to a cluster already"
elif [ "$NAME" = "$FIRST" ]; then
  members=()
  for master in $MASTERS; do members+=(--member "$master"); done
  kybern init --name "$NAME" --address "$ADDRESS" "${members[@]}"
else
  kybern join $role --bundle "vagrant/bundles/$NAME.tar"
fi

if [ "$NAME" = "$FIRST" ]; then
  install -d -m 0700 /root/bundles
  for master in $MASTERS; do
    name=${master%%=*}
    [ "$name" = "$FIRST" ] || kybern certs master "$name" --out "/root/bundles/$name.tar" --force
  done
  for node in $NODES; do
    kybern certs node "${node%%=*}" --address "${node#*=}" --out "/root/bundles/${node%%=*}.tar" --force
  done
fi

# --no-block: the store of the first master serves only once a second one is there.
if [ $role = node ]; then
  systemctl enable kybern-node
  systemctl restart --no-block kybern-node
else
  systemctl enable kybern-store kybern-master
  systemctl restart --no-block kybern-store kybern-master
fi
