# Replaces three processes of the API behind the edge one by one, as a Deployment does, under a load that nobody may
# repeat: rollout.sh FOLDER PROGRAM NGINX PORT
# Processes are told apart by their address, 127.0.0.2 and on; a name server says which of them are ready.
# shellcheck shell=bash
source scripts/lib/setup.sh

folder=$1 program=$2 nginx=$3 port=$4
children=()
ended() {
  # The database goes last, with the worker that has started it.
  for child in "${children[@]:1}"; do kill -TERM "$child" 2>/dev/null || true; done
  for child in "${children[@]:1}"; do wait "$child" 2>/dev/null || true; done
  kill -TERM "${children[0]}" 2>/dev/null && wait "${children[0]}" || true
}
trap ended EXIT

# Waits until an address answers well; what does not is told of.
answers() {
  local tries=0
  until python3 -c "import urllib.request; urllib.request.urlopen('http://$1', timeout=2)" 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || fail "$1 does not answer: $(tail -qn 3 "$folder"/*.log)"
    sleep 0.3
  done
}
ready() { answers "$1:$((port + 1))/readyz"; }
starts() {
  local address=$1
  shift
  "$program" serve "$@" --data-dir "$folder/data" --access open --log-format json --listen "$address:$port" \
    --internal-listen "$address:$((port + 1))" --shutdown-delay "$DELAY" --trusted-proxies 127.0.0.0/8 \
    >"$folder/$address.log" 2>&1 &
  children+=($!)
}
says() {
  printf '%s\n' "$*" >"$folder/names.new"
  mv "$folder/names.new" "$folder/names"
}

starts 127.0.0.1 --only worker
ready 127.0.0.1
for last in 2 3 4; do starts 127.0.0.$last --only api --no-migrate; done
before=("${children[@]:1:3}")
for last in 2 3 4; do ready 127.0.0.$last; done
says 127.0.0.2 127.0.0.3 127.0.0.4
python3 tests/deploy/names.py $((port + 2)) "$folder/names" &
children+=($!)
echo admin:admin >"$folder/users"
EDGE_NGINX=$nginx EDGE_RUN=$folder/edge EDGE_USERS_FILE=$folder/users EDGE_GRAFANA=off EDGE_PROMETHEUS=off EDGE_RATE=off \
  EDGE_API=revwallet-http.revwallet.svc.cluster.local:$port EDGE_RESOLVER=127.0.0.1:$((port + 2)) \
  EDGE_LISTEN=127.0.0.1:$((port + 3)) EDGE_LISTEN_STATUS=127.0.0.1:$((port + 4)) sh nginx/start >"$folder/edge.log" 2>&1 &
children+=($!)
answers "127.0.0.1:$((port + 3))/wallet/"
scripts/lib/load "http://127.0.0.1:$((port + 3))" 120 keyless >"$folder/load" 2>&1 &
load=$!
children+=("$load")
sleep 2

# One more, then one less, as with maxSurge 1 and maxUnavailable 0. The cluster forgets an address as it says SIGTERM.
now=(127.0.0.2 127.0.0.3 127.0.0.4)
for turn in 0 1 2; do
  starts 127.0.0.$((5 + turn)) --only api --no-migrate
  ready 127.0.0.$((5 + turn))
  now=("${now[@]:1}" 127.0.0.$((5 + turn)))
  says "${now[@]}"
  kill -TERM "${before[$turn]}"
done
for process in "${before[@]}"; do wait "$process" || true; done
sleep 1
kill -TERM $load
wait $load || true
cat "$folder/load"
echo "processes that have answered: $(grep -o '"upstream":"127.0.0.[2-7]:' "$folder/edge.log" | sort -u | wc -l)"
