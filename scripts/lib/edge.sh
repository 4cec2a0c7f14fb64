# What the tests of the edge need: nginx, and what reads a compose file. Unpacked beside the build, never into the system.
# Sourced, not run.
# shellcheck shell=bash

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Prints a folder with what could be had:
#   nginx           as this system's packages have it
#   nginx-next      as Debian's newest packages have it: the one that the compose file names, or nearly
#   docker-compose  to read the compose file with
#   nginx-exporter  to read with what nginx tells of itself
edge_tools() {
  local folder=${CARGO_TARGET_DIR:-target}/tools/edge
  if [ ! -e "$folder/complete" ]; then
    say "Fetching nginx ..."
    rm -rf "$folder" && mkdir -p "$folder/bin" "$folder/here"
    folder=$(cd "$folder" && pwd)
    if command -v nginx >/dev/null; then
      ln -sf "$(command -v nginx)" "$folder/bin/nginx"
    else
      command -v apt-get >/dev/null || fail "nginx is missing; install it, then run this again"
      (
        cd "$folder/here"
        apt-get download -qq nginx >&2 || { as_root apt-get update -qq >&2 && apt-get download -qq nginx >&2; }
      ) || fail "nginx could not be fetched; run: apt-get download nginx"
      dpkg -x "$folder"/here/nginx_*.deb "$folder/here"
      ln -sf "$folder/here/usr/sbin/nginx" "$folder/bin/nginx"
    fi
    "$folder/bin/nginx" -v >/dev/null 2>&1 || fail "nginx cannot be run; install it, then run this again"
    debian_newest "$folder/next" nginx libc6 libcrypt1 libpcre2-8-0 libssl3t64 zlib1g libzstd1 docker-compose \
      prometheus-nginx-exporter || say "Debian's newest packages cannot be had: the edge is tried with one nginx only."
    newest_program "$folder" nginx-next usr/sbin/nginx -v
    newest_program "$folder" docker-compose usr/libexec/docker/cli-plugins/docker-compose version
    newest_program "$folder" nginx-exporter usr/bin/prometheus-nginx-exporter --version
    touch "$folder/complete"
  fi
  printf '%s\n' "$(cd "$folder" && pwd)/bin"
}

# Writes a script that runs a program of the newest packages with their own libraries, if it runs at all.
newest_program() {
  local folder=$1 name=$2 program=$1/next/$3 loader
  [ -x "$program" ] || return 0
  loader=$(find "$folder/next" -name 'ld-linux*' | head -1)
  {
    echo '#!/bin/sh'
    echo "exec '$loader' --library-path '$(dirname "$(find "$folder/next" -name libc.so.6 | head -1)")' '$program' \"\$@\""
  } >"$folder/bin/$name"
  chmod +x "$folder/bin/$name"
  "$folder/bin/$name" "$4" >/dev/null 2>&1 || rm "$folder/bin/$name"
}
