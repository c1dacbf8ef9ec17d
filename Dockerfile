# syntax=docker/dockerfile:1

# One small image with every command: `docker run bellhop worker`, `... enqueue`.
ARG GO_VERSION=1.26

FROM --platform=$BUILDPLATFORM golang:${GO_VERSION}-bookworm AS build
WORKDIR /src

# The modules are downloaded again only when they change.
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download

COPY . .
ARG VERSION=devel TARGETOS TARGETARCH
# Static; timetzdata brings the time zones along, for schedules.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -tags timetzdata \
      -ldflags "-s -w -X github.com/bellhop-dev/bellhop/internal/version.version=${VERSION}" \
      -o /out/ ./cmd/...

FROM scratch
ARG VERSION=devel
LABEL org.opencontainers.image.title="bellhop" \
      org.opencontainers.image.description="Event-driven jobs for Go on Redis" \
      org.opencontainers.image.source="https://github.com/bellhop-dev/bellhop" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/ /usr/local/bin/
ENV PATH=/usr/local/bin
# No name: there is no /etc/passwd. A number is also what runAsNonRoot checks.
USER 65532:65532
# SIGTERM, docker's default, drains the worker; give it the time (stop_grace_period).
CMD ["worker"]
