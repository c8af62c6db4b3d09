# syntax=docker/dockerfile:1
# Two images from one build: `tollgate` (roles and services) and `envoy` (a proxy
# that knows nothing but where its control plane is).
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/tollgate ./cmd/tollgate

FROM python:3.12-slim-bookworm AS proxy
WORKDIR /opt
COPY --from=build /out/tollgate /usr/local/bin/tollgate
RUN tollgate envoy install

FROM gcr.io/distroless/static-debian12 AS tollgate
COPY --from=build /out/tollgate /usr/local/bin/tollgate
ENTRYPOINT ["/usr/local/bin/tollgate"]

FROM debian:bookworm-slim AS envoy
COPY --from=build /out/tollgate /usr/local/bin/tollgate
COPY --from=proxy /opt/.tools/envoy /usr/local/bin/envoy
# It drains Envoy on SIGTERM and ends when Envoy has.
ENTRYPOINT ["/usr/local/bin/tollgate", "envoy", "run"]
