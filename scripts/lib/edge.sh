# Tools for the tests of the edge: nginx, its exporter and docker-compose. Unpacked into the target folder, not installed.
# Sourced, not run.
# shellcheck shell=bash

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# Prints a folder with the available tools:
#   nginx           installed, or from the packages of this system
#   nginx-next      from Debian unstable: about the version of the compose file
#   docker-compose  to parse the compose file
#   nginx-exporter  to read the status of nginx
edge_tools() {
  local folder=${CARGO_TARGET_DIR:-target}/tools/edge
  if [ ! -e "$folder/complete" ]; then
    say "Downloading nginx ..."
    rm -rf "$folder" && mkdir -p "$folder/bin" "$folder/here"
    folder=$(cd "$folder" && pwd)
    if command -v nginx >/dev/null; then
      ln -sf "$(command -v nginx)" "$folder/bin/nginx"
    else
      command -v apt-get >/dev/null || fail "nginx is missing; install it, then run this again"
      (
        cd "$folder/here"
        apt-get download -qq nginx >&2 || { as_root apt-get update -qq >&2 && apt-get download -qq nginx >&2; }
      ) || fail "cannot download nginx; run: apt-get download nginx"
      dpkg -x "$folder"/here/nginx_*.deb "$folder/here"
      ln -sf "$folder/here/usr/sbin/nginx" "$folder/bin/nginx"
    fi
    "$folder/bin/nginx" -v >/dev/null 2>&1 || fail "nginx cannot be run; install it, then run this again"
    debian_newest "$folder/next" nginx libc6 libcrypt1 libpcre2-8-0 libssl3t64 zlib1g libzstd1 docker-compose \
      prometheus-nginx-exporter || say "Cannot download packages of Debian unstable: the edge is tested with one version of nginx only."
    newest_program "$folder" nginx-next usr/sbin/nginx -v
    newest_program "$folder" docker-compose usr/libexec/docker/cli-plugins/docker-compose version
    newest_program "$folder" nginx-exporter usr/bin/prometheus-nginx-exporter --version
    touch "$folder/complete"
  fi
  printf '%s\n' "$(cd "$folder" && pwd)/bin"
}
