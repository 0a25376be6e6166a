# syntax=docker/dockerfile:1
# Two stages: the toolchain stays behind. Tags are pinned; the toolchain's is the one in rust-toolchain.toml
# (`cargo xtask tidy` compares them).

FROM rust:1.95.0-slim-bookworm AS build
# The embedded store compiles SQLite.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev make pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches are the builder's own and never part of the image, so the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package contextkeep-server --bin contextkeep \
 && install -D target/release/contextkeep /out/contextkeep

FROM debian:12.11-slim
# Certificates for TLS upstreams; bash, for the health check, is in the image already.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/contextkeep --create-home contextkeep
COPY --from=build /out/contextkeep /usr/local/bin/contextkeep
USER 10001
WORKDIR /var/lib/contextkeep
# The embedded store, used when no database is configured.
VOLUME /var/lib/contextkeep
EXPOSE 7400
STOPSIGNAL SIGTERM
# A request over bash's own TCP: the image needs no client for it.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=6 \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7400 && printf 'GET /healthz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["contextkeep"]
CMD ["serve"]
