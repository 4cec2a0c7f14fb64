# A Docker engine for tests: a Debian of its own, beside the build, in namespaces of its own. It reaches no network and
# nothing of this system's but what is lent to it, disturbs no engine that runs here, and is gone when its first process
# is. Images that the Dockerfile and the compose file name are put together from Debian's packages, under their names.
# Sourced, not run.
# shellcheck shell=bash

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

docker_home=$(realpath -m "${CARGO_TARGET_DIR:-target}")/tools/docker

need_debootstrap() {
  command -v debootstrap >/dev/null && return
  if [ ! -e "$docker_home/debootstrap/usr" ]; then
    command -v apt-get >/dev/null || fail "debootstrap is missing; install it, or set DOCKER_HOST to an engine that can fetch images"
    say "Fetching debootstrap ..."
    rm -rf "$docker_home/debootstrap" && mkdir -p "$docker_home/debootstrap/packages"
    (
      cd "$docker_home/debootstrap/packages"
      apt-get download -qq debootstrap >&2 || { apt-get update -qq >&2 && apt-get download -qq debootstrap >&2; }
    ) || fail "debootstrap could not be fetched; run: apt-get install debootstrap"
    dpkg -x "$docker_home"/debootstrap/packages/*.deb "$docker_home/debootstrap"
  fi
  export DEBOOTSTRAP_DIR=$docker_home/debootstrap/usr/share/debootstrap
  PATH=$docker_home/debootstrap/usr/sbin:$PATH
}

# Puts a Debian together, once: tree NAME SUITE PACKAGE,...
tree() {
  local folder=$docker_home/$1 mirror script
  [ "$(cat "$folder.made-of" 2>/dev/null)" = "$2 $3" ] && return
  need_debootstrap
  say "Putting together a Debian: $1 ..."
  rm -rf "$folder" && mkdir -p "$folder" "$docker_home/packages-$2"
  # Where this system's packages come from, if that is Debian; else where debootstrap looks by itself.
  # shellcheck disable=SC2016 # apt-get fills it in
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -1)
  # A suite that this debootstrap has not heard of is made as the newest one.
  script=${DEBOOTSTRAP_DIR:-/usr/share/debootstrap}/scripts/$2
  [ -e "$script" ] || script=$(dirname "$script")/sid
  nice timeout 900 debootstrap --variant=minbase --cache-dir="$docker_home/packages-$2" --include="$3" \
    "$2" "$folder" "$mirror" "$script" >"$folder.log" 2>&1 || fail "debootstrap failed; $folder.log says why"
  rm -rf "$docker_home/packages-$2"
  printf '%s' "$2 $3" >"$folder.made-of"
}

# Starts the engine, and puts a `docker` that speaks to it first in the PATH.
engine_start() {
  tree engine trixie docker.io,docker-cli,docker-buildx,docker-compose,iptables,iproute2,ca-certificates
  mkdir -p "$docker_home/data"
  exec 9>"$docker_home/lock"
  flock --nonblock 9 || fail "another run uses $docker_home"
  engine_folder=$(mktemp -d /tmp/revwallet-docker.XXXXXX)
  mkdir "$engine_folder/bin"
  nice -n 10 unshare --mount --net --pid --fork --kill-child \
    scripts/lib/docker-engine "$docker_home/engine" "$docker_home/data" "$PWD" "$engine_folder" \
    >"$engine_folder/log" 2>&1 9>&- &
  engine_outside=$!
  for _ in $(seq 300); do
    kill -0 "$engine_outside" 2>/dev/null || fail "the engine did not start: $(tail -3 "$engine_folder/log")"
    [ ! -e "$engine_folder/docker.sock" ] || break
    sleep 0.2
  done
  engine=$(cat "/proc/$engine_outside/task/$engine_outside/children")
  engine=${engine%% *}
  cat >"$engine_folder/bin/docker" <<WRAPPER
#!/bin/sh
exec nsenter --target $engine --mount --net --pid --wdns="\$PWD" -- \\
  /usr/bin/env HOME=/root DOCKER_HOST=unix://$engine_folder/docker.sock /usr/bin/docker "\$@"
WRAPPER
  chmod +x "$engine_folder/bin/docker"
  PATH=$engine_folder/bin:$PATH
  docker version >/dev/null || fail "the engine does not answer: $(tail -3 "$engine_folder/log")"
  # What a run that was cut off left behind.
  docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
  docker network prune --force >/dev/null
  docker volume prune --all --force >/dev/null
}

# Runs a command on the engine's network, where what it publishes is found.
beside_engine() {
  if [ -n "${engine:-}" ]; then nsenter --target "$engine" --net -- "$@"; else "$@"; fi
}

engine_stop() {
  [ -n "${engine_outside:-}" ] || return 0
  kill "${engine:-$engine_outside}" 2>/dev/null || true
  for _ in $(seq 100); do
    kill -0 "$engine_outside" 2>/dev/null || break
    sleep 0.2
  done
  # Everything in its namespaces dies with it.
  kill -KILL "$engine_outside" 2>/dev/null || true
  wait "$engine_outside" 2>/dev/null || true
  find /sys/fs/cgroup -depth -type d -path "*/revwallet-test-engine*" -exec rmdir {} + 2>/dev/null || true
  rm -rf "$engine_folder"
}

# Whether an image is there that was made of this: made IMAGE STAMP
made() {
  [ "$(docker image inspect --format '{{index .Config.Labels "made-of"}}' "$1" 2>/dev/null)" = "$2" ]
}

# Rust's image: a compiler for C from Debian, this system's Rust, and every crate, as there is no network to fetch them.
image_of_rust() {
  local image=$1 stamp sysroot
  sysroot=$(rustc --print sysroot)
  stamp="$(rustc --version) $(sha256sum <Cargo.lock)"
  made "$image" "$stamp" && return
  tree rust "${image##*-}" gcc,libc6-dev,make,ca-certificates
  say "Making $image ..."
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

# Distroless' image for programs in C: the same packages, without what makes a system of them.
image_of_distroless() {
  local image=$1 tree=$docker_home/rust folder=$engine_folder/distroless package stamp="packages of Debian, 1"
  made "$image" "$stamp" && return
  say "Making $image ..."
  mkdir -p "$folder"
  for package in base-files ca-certificates libc6 libgcc-s1 libgomp1 libssl3t64 libstdc++6 libzstd1 tzdata zlib1g; do
    cat "$tree/var/lib/dpkg/info/$package.list" "$tree/var/lib/dpkg/info/$package:"*.list 2>/dev/null || true
  done | grep -vE '^/\.$|^/usr/(s?bin|share/(man|lintian|bash-completion))/|^/usr/share/doc/.*/(examples|changelog|NEWS|README)' |
    sed 's,^/,,' | sort -u >"$folder.list"
  tar -c -C "$tree" --no-recursion --ignore-failed-read -T "$folder.list" etc/ssl/certs/ca-certificates.crt 2>/dev/null | tar -x -C "$folder"
  printf '%s\n' root:x:0:0:root:/root:/sbin/nologin nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin >"$folder/etc/passwd"
  printf '%s\n' root:x:0: nonroot:x:65532: >"$folder/etc/group"
  install -d -o 65532 -g 65532 -m 700 "$folder/home/nonroot"
  tar -c -C "$folder" . | docker import --change 'USER 65532' --change 'WORKDIR /home/nonroot' --change "LABEL made-of=\"$stamp\"" \
    --change 'ENV PATH=/usr/local/bin:/usr/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' - "$image" >/dev/null
}

# The servers that stand around the program, under the names that the compose file gives them. They are the real
# programs, and behave as far as that file needs it as in the images of their makers.
images_of_servers() {
  local stamp image
  tree servers forky nginx,postgresql,prometheus,prometheus-alertmanager,prometheus-nginx-exporter,wget,ca-certificates
  stamp=$(sha256sum scripts/lib/docker-postgres "$docker_home/servers.made-of")
  stamp=${stamp//$'\n'/ }
  if ! made revwallet-test-servers "$stamp"; then
    say "Making the images of servers ..."
    install scripts/lib/docker-postgres "$docker_home/servers/usr/local/bin/docker-entrypoint.sh"
    install -d -o nobody -g nogroup "$docker_home/servers/prometheus" "$docker_home/servers/alertmanager"
    tar -c -C "$docker_home/servers" . | docker import --change "LABEL made-of=\"$stamp\"" - revwallet-test-servers >/dev/null
  fi
  sed -n 's/^ *image: //p' docker-compose.yml | sort -u | while read -r image; do
    case $image in
      nginx:*) server "$image" 'ENTRYPOINT ["nginx", "-g", "daemon off;"]' ;;
      postgres:*) server "$image" "ENV PATH=/$(cd "$docker_home/servers" && echo usr/lib/postgresql/*/bin):/usr/local/bin:/usr/bin" \
        'RUN rm -rf /var/lib/postgresql/*' 'VOLUME /var/lib/postgresql' 'ENTRYPOINT ["docker-entrypoint.sh"]' 'CMD ["postgres"]' ;;
      prom/prometheus:*) server "$image" 'USER nobody' 'WORKDIR /prometheus' 'VOLUME /prometheus' 'ENTRYPOINT ["prometheus"]' ;;
      prom/alertmanager:*) server "$image" 'USER nobody' 'WORKDIR /alertmanager' 'VOLUME /alertmanager' 'ENTRYPOINT ["prometheus-alertmanager"]' ;;
      nginx/nginx-prometheus-exporter:*) server "$image" 'USER nobody' 'ENTRYPOINT ["prometheus-nginx-exporter"]' ;;
    esac
  done
}

# server IMAGE INSTRUCTION...
server() {
  local image=$1
  shift
  printf '%s\n' "FROM revwallet-test-servers" "$@" | docker build --quiet --tag "$image" - >/dev/null
}
