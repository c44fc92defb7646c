#!/usr/bin/env bash
# Debian packages that the tests drive for real. Installs what is missing where it may (root, apt);
# elsewhere it names what is missing, and the tests that need it skip (with CI=true they fail).
set -euo pipefail
declare -A needs=(
  [redis-server]=redis-server [chromium]=chromium [dockerd]=docker.io [iptables]=iptables
  [mmdebstrap]=mmdebstrap [npm]=npm [wrk]=wrk
)
missing=()
for program in "${!needs[@]}"; do
  command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] || missing+=("${needs[$program]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "tests: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1 || { tail -5 "$log"; echo "tests: could not install ${missing[*]}"; }
  rm -f "$log"
else
  echo "tests: not installed, tests that need them skip: ${missing[*]}"
fi
