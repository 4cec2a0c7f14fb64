# Multi-stage build: compiles on the official Rust image; the final image has a C library, certificates and the program.
#
#   docker build --build-arg REVISION="$(git rev-parse --short=12 HEAD)" --tag revwallet .
#   docker buildx build --platform linux/amd64,linux/arm64 ...
#
# Other platforms are cross-compiled, not emulated: that installs a cross compiler and a standard library, which requires
# the mirrors of Debian and Rust. A build for the native platform requires crates.io only.
# A profile (`scripts/build-optimized --profile-only`) makes the program faster: `--build-context profiles=FOLDER`. It
# must be recorded on the platform of the build, and serves only the image for this platform.
# Requires BuildKit. Base images are pinned by tag; to pin them by digest as well, add `@sha256:...` to the two FROM lines
# that name one.

# Replaced by the folder of the profile, if the build names one.
FROM scratch AS profiles

# The Rust version equals the one in rust-toolchain.toml, and both stages use the same Debian release, so that the program
# runs with the C library it was linked against. `tests/deploy` checks both.
FROM --platform=$BUILDPLATFORM rust:1.95.0-trixie AS toolchain
ARG BUILDARCH
ARG TARGETARCH
# Target-prefixed compiler names work for native and cross builds.
ENV CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CC_x86_64_unknown_linux_gnu=x86_64-linux-gnu-gcc \
    CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
# hadolint ignore=DL3008
RUN set -eu; \
    case "$TARGETARCH" in \
      amd64) target=x86_64-unknown-linux-gnu compiler=gcc-x86-64-linux-gnu ;; \
      arm64) target=aarch64-unknown-linux-gnu compiler=gcc-aarch64-linux-gnu ;; \
      *) echo "unsupported platform: $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    if [ "$TARGETARCH" != "$BUILDARCH" ]; then \
      apt-get update; \
      apt-get install -y --no-install-recommends "$compiler" "libc6-dev-$TARGETARCH-cross"; \
      rm -rf /var/lib/apt/lists/*; \
      rustup target add "$target"; \
    fi; \
    echo "$target" >/target
# Both builds below use the profile, so that the program matches the compiled dependencies.
COPY --from=profiles / /profiles/
RUN set -eu; \
    target=$(cat /target) profile="/profiles/$(cat /target).profdata"; \
    [ ! -e "$profile" ] || \
      printf '[target.%s]\nrustflags = ["-Cprofile-use=%s"]\n' "$target" "$profile" >>"$CARGO_HOME/config.toml"

# Dependencies, compiled with an empty program: a cached layer that changes only with the manifests.
FROM toolchain AS dependencies
WORKDIR /revwallet
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir src \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin revwallet --target "$(cat /target)"

# The program. Cargo compares modification times, and files of a checkout are older than the layer above: touch them.
FROM dependencies AS build
COPY build.rs sqlx.toml ./
COPY .sqlx .sqlx
COPY docs/operations.md docs/operations.md
COPY docs/runbooks docs/runbooks
COPY migrations migrations
COPY src src
ARG REVISION=unknown
RUN touch src/main.rs src/lib.rs \
    && REVWALLET_REVISION="$REVISION" cargo build --release --locked --offline --bin revwallet --target "$(cat /target)" \
    && install -D "target/$(cat /target)/release/revwallet" /program/revwallet

# No shell, no package manager. The user is numeric, so that Kubernetes can verify that it is not root.
FROM gcr.io/distroless/cc-debian13:nonroot AS image
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="revwallet" \
      org.opencontainers.image.description="A wallet backend with exact money, double entry and full observability" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian13:nonroot"
COPY --from=build /program/revwallet /usr/local/bin/revwallet
# Listens on all addresses of the container. 8080 is for the edge, 9000 for internal use only.
ENV REVWALLET_LISTEN=0.0.0.0:8080 \
    REVWALLET_INTERNAL_LISTEN=0.0.0.0:9000 \
    REVWALLET_LOG_FORMAT=json
EXPOSE 8080 9000
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/usr/local/bin/revwallet", "health"]
ENTRYPOINT ["/usr/local/bin/revwallet"]
