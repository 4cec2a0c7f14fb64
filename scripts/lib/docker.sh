# A temporary Docker engine for tests, on its own Debian root file system in its own namespaces. It has no network and
# sees only the files that are mounted into it, does not affect other engines, and ends with its first process. The images
# that the Dockerfile and the compose file name are built from Debian's packages, under the same names.
# Sourced, not run.
# shellcheck shell=bash

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

docker_home=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools/docker

need_debootstrap() {
  command -v debootstrap >/dev/null && return
  if [ ! -e "$docker_home/debootstrap/usr" ]; then
    command -v apt-get >/dev/null || fail "debootstrap is missing; install it, or set DOCKER_HOST to an engine that can pull images"
    say "Downloading debootstrap ..."
    rm -rf "$docker_home/debootstrap" && mkdir -p "$docker_home/debootstrap/packages"
    (
      cd "$docker_home/debootstrap/packages"
      apt-get download -qq debootstrap >&2 || { apt-get update -qq >&2 && apt-get download -qq debootstrap >&2; }
    ) || fail "cannot download debootstrap; run: apt-get install debootstrap"
    dpkg -x "$docker_home"/debootstrap/packages/*.deb "$docker_home/debootstrap"
  fi
  export DEBOOTSTRAP_DIR=$docker_home/debootstrap/usr/share/debootstrap
  PATH=$docker_home/debootstrap/usr/sbin:$PATH
}

# Builds a Debian root file system, once: build_rootfs NAME SUITE PACKAGE,...
build_rootfs() {
  local folder=$docker_home/$1 mirror script
  [ "$(cat "$folder.made-of" 2>/dev/null)" = "$2 $3" ] && return
  need_debootstrap
  say "Building the Debian root file system: $1 ..."
  rm -rf "$folder" && mkdir -p "$folder" "$docker_home/packages-$2"
  # The mirror of this system if it is Debian; otherwise the default of debootstrap.
  # shellcheck disable=SC2016 # apt-get expands it
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -1)
  # A suite unknown to this debootstrap is built like sid.
  script=${DEBOOTSTRAP_DIR:-/usr/share/debootstrap}/scripts/$2
  [ -e "$script" ] || script=$(dirname "$script")/sid
  nice timeout 900 debootstrap --variant=minbase --cache-dir="$docker_home/packages-$2" --include="$3" \
    "$2" "$folder" "$mirror" "$script" >"$folder.log" 2>&1 || fail "debootstrap failed, see $folder.log"
  rm -rf "$docker_home/packages-$2"
  printf '%s' "$2 $3" >"$folder.made-of"
}

# Starts the engine, and prepends a `docker` client for it to the PATH.
engine_start() {
  build_rootfs engine trixie docker.io,docker-cli,docker-buildx,docker-compose,iptables,iproute2,ca-certificates
  mkdir -p "$docker_home/data"
  exec 9>"$docker_home/lock"
  flock --nonblock 9 || fail "another run is using $docker_home; wait for its end"
  engine_folder=$(mktemp -d /tmp/revwallet-docker.XXXXXX)
  mkdir "$engine_folder/bin"
  nice -n 10 unshare --mount --net --pid --fork --kill-child \
    scripts/lib/docker-engine "$docker_home/engine" "$docker_home/data" "$PWD" "$engine_folder" \
    >"$engine_folder/log" 2>&1 9>&- &
  engine_launcher=$!
  for _ in $(seq 300); do
    kill -0 "$engine_launcher" 2>/dev/null || fail "the engine did not start: $(tail -3 "$engine_folder/log")"
    [ ! -e "$engine_folder/docker.sock" ] || break
    sleep 0.2
  done
  engine=$(cat "/proc/$engine_launcher/task/$engine_launcher/children")
  engine=${engine%% *}
  cat >"$engine_folder/bin/docker" <<WRAPPER
#!/bin/sh
exec nsenter --target $engine --mount --net --pid --wdns="\$PWD" -- \\
  /usr/bin/env HOME=/root DOCKER_HOST=unix://$engine_folder/docker.sock /usr/bin/docker "\$@"
WRAPPER
  chmod +x "$engine_folder/bin/docker"
  PATH=$engine_folder/bin:$PATH
  docker version >/dev/null || fail "cannot connect to the engine: $(tail -3 "$engine_folder/log")"
  # Removes leftovers of an interrupted run.
  docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
  docker network prune --force >/dev/null
  docker volume prune --all --force >/dev/null
}

# Runs a command in the network namespace of the engine, where published ports are reachable.
in_engine_network() {
  if [ -n "${engine:-}" ]; then nsenter --target "$engine" --net -- "$@"; else "$@"; fi
}

engine_stop() {
  [ -n "${engine_launcher:-}" ] || return 0
  kill "${engine:-$engine_launcher}" 2>/dev/null || true
  for _ in $(seq 100); do
    kill -0 "$engine_launcher" 2>/dev/null || break
    sleep 0.2
  done
  # The end of this process kills every process in its namespaces.
  kill -KILL "$engine_launcher" 2>/dev/null || true
  wait "$engine_launcher" 2>/dev/null || true
  find /sys/fs/cgroup -depth -type d -path "*/revwallet-test-engine*" -exec rmdir {} + 2>/dev/null || true
  rm -rf "$engine_folder"
}

# Whether an image exists that was built from the same inputs: is_up_to_date IMAGE STAMP
is_up_to_date() {
  [ "$(docker image inspect --format '{{index .Config.Labels "made-of"}}' "$1" 2>/dev/null)" = "$2" ]
}

# Builds the Rust image: a C compiler from Debian, the Rust toolchain of this system, and vendored crates, because there
# is no network.
build_rust_image() {
  local image=$1 stamp sysroot
  sysroot=$(rustc --print sysroot)
  stamp="$(rustc --version) $(sha256sum <Cargo.lock)"
  is_up_to_date "$image" "$stamp" && return
  build_rootfs rust "${image##*-}" gcc,libc6-dev,make,ca-certificates
  say "Building $image ..."
  mkdir -p "$engine_folder/cargo"
  printf '[source.crates-io]\nreplace-with = "vendored"\n[source.vendored]\ndirectory = "/usr/local/cargo/vendor"\n' \
    >"$engine_folder/cargo/config.toml"
  cargo vendor --quiet --locked --versioned-dirs "$engine_folder/cargo/vendor" >/dev/null
  tar -c -C "$docker_home/rust" . -C "$sysroot" --transform='s,^\(bin\|lib\|libexec\)\(/\|$\),./usr/local/rust/\1\2,' \
    bin lib libexec -C "$engine_folder" --transform='s,^cargo,./usr/local/cargo,' cargo |
    docker import --change 'ENV CARGO_HOME=/usr/local/cargo' --change "LABEL made-of=\"$stamp\"" \
      --change 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$image" >/dev/null
  rm -rf "$engine_folder/cargo"
}

# Builds the distroless image for C programs: the same packages, without shell, package manager and documentation.
build_distroless_image() {
  local image=$1 rootfs=$docker_home/rust folder=$engine_folder/distroless package stamp="packages of Debian, 1"
  is_up_to_date "$image" "$stamp" && return
  say "Building $image ..."
  mkdir -p "$folder"
  for package in base-files ca-certificates libc6 libgcc-s1 libgomp1 libssl3t64 libstdc++6 libzstd1 tzdata zlib1g; do
    cat "$rootfs/var/lib/dpkg/info/$package.list" "$rootfs/var/lib/dpkg/info/$package:"*.list 2>/dev/null || true
  done | grep -vE '^/\.$|^/usr/(s?bin|share/(man|lintian|bash-completion))/|^/usr/share/doc/.*/(examples|changelog|NEWS|README)' |
    sed 's,^/,,' | sort -u >"$folder.list"
  tar -c -C "$rootfs" --no-recursion --ignore-failed-read -T "$folder.list" etc/ssl/certs/ca-certificates.crt 2>/dev/null | tar -x -C "$folder"
  printf '%s\n' root:x:0:0:root:/root:/sbin/nologin nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin >"$folder/etc/passwd"
  printf '%s\n' root:x:0: nonroot:x:65532: >"$folder/etc/group"
  install -d -o 65532 -g 65532 -m 700 "$folder/home/nonroot"
  tar -c -C "$folder" . | docker import --change 'USER 65532' --change 'WORKDIR /home/nonroot' --change "LABEL made-of=\"$stamp\"" \
    --change 'ENV PATH=/usr/local/bin:/usr/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' - "$image" >/dev/null
}

# Builds the images of the other services under the names in the compose file. They contain the real programs and behave
# like the official images, as far as the compose file depends on it.
build_service_images() {
  local stamp image
  build_rootfs servers forky nginx,postgresql,prometheus,prometheus-alertmanager,prometheus-nginx-exporter,wget,ca-certificates
  stamp=$(sha256sum scripts/lib/docker-postgres "$docker_home/servers.made-of")
  stamp=${stamp//$'\n'/ }
  if ! is_up_to_date revwallet-test-servers "$stamp"; then
    say "Building the images of the services ..."
    install scripts/lib/docker-postgres "$docker_home/servers/usr/local/bin/docker-entrypoint.sh"
    install -d -o nobody -g nogroup "$docker_home/servers/prometheus" "$docker_home/servers/alertmanager"
    tar -c -C "$docker_home/servers" . | docker import --change "LABEL made-of=\"$stamp\"" - revwallet-test-servers >/dev/null
  fi
  sed -n 's/^ *image: //p' docker-compose.yml | sort -u | while read -r image; do
    case $image in
      nginx:*) build_service_image "$image" 'ENTRYPOINT ["nginx", "-g", "daemon off;"]' ;;
      postgres:*) build_service_image "$image" "ENV PATH=/$(cd "$docker_home/servers" && echo usr/lib/postgresql/*/bin):/usr/local/bin:/usr/bin" \
        'RUN rm -rf /var/lib/postgresql/*' 'VOLUME /var/lib/postgresql' 'ENTRYPOINT ["docker-entrypoint.sh"]' 'CMD ["postgres"]' ;;
      prom/prometheus:*) build_service_image "$image" 'USER nobody' 'WORKDIR /prometheus' 'VOLUME /prometheus' 'ENTRYPOINT ["prometheus"]' ;;
      prom/alertmanager:*) build_service_image "$image" 'RUN ln -s prometheus-alertmanager /usr/bin/alertmanager' 'USER nobody' 'WORKDIR /alertmanager' 'VOLUME /alertmanager' 'ENTRYPOINT ["prometheus-alertmanager"]' ;;
      nginx/nginx-prometheus-exporter:*) build_service_image "$image" 'USER nobody' 'ENTRYPOINT ["prometheus-nginx-exporter"]' ;;
    esac
  done
}

# Builds an image from revwallet-test-servers: build_service_image IMAGE INSTRUCTION...
build_service_image() {
  local image=$1
  shift
  printf '%s\n' "FROM revwallet-test-servers" "$@" | docker build --quiet --tag "$image" - >/dev/null
}
