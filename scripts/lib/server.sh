# Starts the program on an embedded Postgres of its own, for scripts that test it. To be sourced after setup.sh.
# shellcheck shell=bash

# Starts the server with its data in a folder and the given settings, and waits until it listens. Sets `address`, and
# `program` to its process id; its log is the file `log` in the folder. REVWALLET_PROGRAM names a program other than the
# debug build.
start_server() {
  local folder=$1
  shift
  "${REVWALLET_PROGRAM:-${CARGO_TARGET_DIR:-target}/debug/revwallet}" serve --data-dir "$folder" --listen 127.0.0.1:0 \
    --internal-listen 127.0.0.1:0 --access open --log-format json --log-filter info "$@" >"$folder/log" 2>&1 &
  program=$!
  for _ in $(seq 300); do
    address=$(sed -n 's/.*"event":"serve.listening".*"address":"\([^"]*\)".*/\1/p;s/.*"address":"\([^"]*\)".*"event":"serve.listening".*/\1/p' "$folder/log")
    [ -n "$address" ] && return
    kill -0 "$program" || fail "the server exited during startup: $(tail -n 3 "$folder/log")"
    sleep 0.1
  done
  fail "the server did not log its address within 30 s"
}

# Stops the server, if it runs, and removes its folder.
stop_server() {
  [ -n "${program:-}" ] && kill "$program" 2>/dev/null && wait "$program" 2>/dev/null
  rm -rf "$1"
}
