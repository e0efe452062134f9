#!/usr/bin/env bash
# pin.sh VERSION: build garo for every system as a release does, and write the
# SHA-256 of each to node/release.json. Commit that, and tag the commit VERSION: the
# action at that commit runs these programs and no others.
set -euo pipefail

version=${1:?give the version, such as v1.2.3}
if [[ ! $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+$ ]]; then
	echo "$version: want a version such as v1.2.3" >&2
	exit 1
fi
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

sums=()
for os in darwin linux windows; do
	for arch in amd64 arm64; do
		name=garo_${os}_$arch
		if [[ $os == windows ]]; then
			name+=.exe
		fi
		CGO_ENABLED=0 GOOS=$os GOARCH=$arch go build -trimpath -buildvcs=false -ldflags="-s -w -X main.version=$version" -o "$dir/$name" ./cmd/garo
		sum=$(sha256sum "$dir/$name")
		sums+=("    \"$name\": \"${sum%% *}\"")
	done
done
{
	printf '{\n  "version": "%s",\n  "go": "%s",\n  "sha256": {\n' "$version" "$(go env GOVERSION)"
	printf '%s\n' "${sums[@]:0:${#sums[@]}-1}" | sed 's/$/,/'
	printf '%s\n  }\n}\n' "${sums[-1]}"
} >client/action/node/release.json
