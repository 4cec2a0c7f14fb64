# Replaces three API processes behind the edge one by one, as a Deployment does, under a load without retries:
# rollout.sh FOLDER PROGRAM NGINX PORT
# Each process has an address of its own, from 127.0.0.2; a DNS server lists those that are ready.
# shellcheck shell=bash
source scripts/lib/setup.sh

folder=$1 program=$2 nginx=$3 port=$4
children=()
stop_all() {
  # The worker stops last, because it runs the database.
  for child in "${children[@]:1}"; do kill -TERM "$child" 2>/dev/null || true; done
  for child in "${children[@]:1}"; do wait "$child" 2>/dev/null || true; done
  kill -TERM "${children[0]}" 2>/dev/null && wait "${children[0]}" || true
}
trap stop_all EXIT

# Waits until a URL responds with success.
wait_for() {
  local tries=0
  until python3 -c "import urllib.request; urllib.request.urlopen('http://$1', timeout=2)" 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || fail "$1 does not respond: $(tail -qn 3 "$folder"/*.log)"
    sleep 0.3
  done
}
wait_until_ready() { wait_for "$1:$((port + 1))/readyz"; }
start() {
  local address=$1
  shift
  "$program" serve "$@" --data-dir "$folder/data" --access open --log-format json --listen "$address:$port" \
    --internal-listen "$address:$((port + 1))" --shutdown-delay "$DELAY" --trusted-proxies 127.0.0.0/8 \
    >"$folder/$address.log" 2>&1 &
  children+=($!)
}
set_addresses() {
  printf '%s\n' "$*" >"$folder/names.new"
  mv "$folder/names.new" "$folder/names"
}

start 127.0.0.1 --only worker
wait_until_ready 127.0.0.1
for last in 2 3 4; do start 127.0.0.$last --only api --no-migrate; done
before=("${children[@]:1:3}")
for last in 2 3 4; do wait_until_ready 127.0.0.$last; done
set_addresses 127.0.0.2 127.0.0.3 127.0.0.4
python3 tests/deploy/dns_server.py $((port + 2)) "$folder/names" &
children+=($!)
echo admin:admin >"$folder/users"
EDGE_NGINX=$nginx EDGE_RUN=$folder/edge EDGE_USERS_FILE=$folder/users EDGE_GRAFANA=off EDGE_PROMETHEUS=off EDGE_RUNBOOKS=off EDGE_RATE=off \
  EDGE_API=revwallet-http.revwallet.svc.cluster.local:$port EDGE_RESOLVER=127.0.0.1:$((port + 2)) \
  EDGE_LISTEN=127.0.0.1:$((port + 3)) EDGE_LISTEN_STATUS=127.0.0.1:$((port + 4)) sh nginx/start >"$folder/edge.log" 2>&1 &
children+=($!)
wait_for "127.0.0.1:$((port + 3))/wallet/"
scripts/lib/load "http://127.0.0.1:$((port + 3))" 120 keyless >"$folder/load" 2>&1 &
load=$!
children+=("$load")
sleep 2

# Adds one process, then removes one, as with maxSurge 1 and maxUnavailable 0. The address is removed together with SIGTERM.
current=(127.0.0.2 127.0.0.3 127.0.0.4)
for round in 0 1 2; do
  start 127.0.0.$((5 + round)) --only api --no-migrate
  wait_until_ready 127.0.0.$((5 + round))
  current=("${current[@]:1}" 127.0.0.$((5 + round)))
  set_addresses "${current[@]}"
  kill -TERM "${before[$round]}"
done
for process in "${before[@]}"; do wait "$process" || true; done
sleep 1
kill -TERM $load
wait $load || true
cat "$folder/load"
echo "processes that responded: $(grep -o '"upstream":"127.0.0.[2-7]:' "$folder/edge.log" | sort -u | wc -l)"
