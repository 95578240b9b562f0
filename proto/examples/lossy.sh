#!/bin/sh
# Runs a client against services at the far end of a bad link that are reached over Quantum (needs root):
#
#     aetherflow-bench link --delay-ms 25 --loss 5 -- examples/lossy.sh CLIENT...
#
# The services run in the namespace $NS_B; in $NS_A are a proxy to each of them and the client, which knows nothing of Quantum.
# Two arguments are added to CLIENT: the address of the proxy to the session service and of that to the document service.
set -eu

data=$(mktemp -d)
started=
finish() {
  for process in $started; do
    kill "$process" 2>/dev/null || true
  done
  wait || true
  rm -rf "$data"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

ip netns exec "$NS_B" aetherflow up --bind "$ADDR_B" --allow-anonymous --data "$data" >&2 &
started=$!
for port in 9001 9002; do
  tries=0
  until ip netns exec "$NS_B" aetherflow call --transport tcp "$ADDR_B:$port" list >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -ge 100 ] || ! kill -0 "$started" 2>/dev/null; then
      echo "the services did not start" >&2
      exit 1
    fi
    sleep 0.2
  done
done

for service in 1 2; do
  ip netns exec "$NS_A" aetherflow proxy --listen "127.0.0.1:700$service" --to "$ADDR_B:900$service" \
    --ca "$data/cert.pem" >&2 &
  started="$started $!"
done

ip netns exec "$NS_A" "$@" 127.0.0.1:7001 127.0.0.1:7002
