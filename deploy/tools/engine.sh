#!/usr/bin/env bash
# A Docker Engine for the tests: the one that is there, or else a private one that is ours to stop.
#
#   engine.sh start FOLDER [PID]   prints DOCKER_HOST=…, BASE_IMAGE=…, STAND_IN=yes|no,
#                                  PRIVATE=yes|no; a private engine ends when process PID does
#   engine.sh stop FOLDER          ends a private engine and unmounts what it left; nothing else
#
# The private engine keeps its images and its build cache in FOLDER, and its sockets in a short
# path, since a Unix socket's path must stay under 108 characters. It makes no default bridge.
#
# BASE_IMAGE is python:3.11-slim where that can be pulled. Elsewhere a STAND-IN is made of Debian 12
# packages (Debian's own Python 3.11): near enough to run the same Dockerfile, but it is not the
# published image, and images built on it are for tests only.
#
# Exit 77: no engine can be had here; the last line says what is missing.
set -euo pipefail
usage="usage: engine.sh start FOLDER [PID] | stop FOLDER"
verb=${1:?$usage}
mkdir -p "${2:?$usage}"
owner=${3:-}
self=$(realpath "$0")
dir=$(cd "$2" && pwd -P)
run=/run/lesionlens-engine-$(printf %s "$dir" | cksum | cut -d' ' -f1)
published=python:3.11-slim
stand_in=lesionlens-test/python-3.11-stand-in:debian12

missing() { echo "SKIP: $*" >&2; exit 77; }
answers() { docker version >/dev/null 2>&1; }

start() {
  command -v docker >/dev/null || missing "docker is not installed (Debian: docker.io)"
  local private=no
  if ! answers; then
    private=yes
    start_private
  fi
  choose_base
  echo "DOCKER_HOST=${DOCKER_HOST:-}"
  echo "BASE_IMAGE=$base"
  echo "STAND_IN=$is_stand_in"
  echo "PRIVATE=$private"
}

start_private() {
  command -v dockerd >/dev/null || missing "dockerd is not installed (Debian: docker.io)"
  command -v iptables >/dev/null || missing "iptables is not installed"
  [ "$(id -u)" = 0 ] || missing "no engine answers, and starting one needs root"
  export DOCKER_HOST=unix://$run/docker.sock
  if answers; then return; fi
  stop_private
  mkdir -m 700 "$run"
  setsid nice -n 5 dockerd --data-root "$dir/data" --exec-root "$run/exec" --pidfile "$run/docker.pid" \
    --host "$DOCKER_HOST" --bridge none --shutdown-timeout 5 >"$dir/dockerd.log" 2>&1 </dev/null &
  local pid=$!
  for _ in $(seq 120); do
    if answers; then watch_owner "$pid"; return; fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.5
  done
  stop_private
  missing "dockerd did not come up: $(tail -n1 "$dir/dockerd.log")"
}

# Ends this engine, and no later one, once its owner is gone: a killed test run leaves nothing.
watch_owner() {
  [ -n "$owner" ] || return 0
  setsid bash -c '
    while kill -0 "$1" 2>/dev/null; do
      kill -0 "$2" 2>/dev/null || exit 0
      sleep 2
    done
    if [ "$(cat "$3/docker.pid" 2>/dev/null)" = "$2" ]; then exec bash "$4" stop "$5"; fi
  ' _ "$owner" "$1" "$run" "$self" "$dir" >/dev/null 2>&1 </dev/null &
}

choose_base() {
  base=$published is_stand_in=no
  if docker image inspect "$published" >/dev/null 2>&1; then return; fi
  if ! docker image inspect "$stand_in" >/dev/null 2>&1; then
    if timeout 60 docker pull -q "$published" >"$dir/pull.log" 2>&1; then return; fi
    make_stand_in
  fi
  base=$stand_in is_stand_in=yes
}

make_stand_in() {
  command -v mmdebstrap >/dev/null ||
    missing "$published cannot be pulled, and mmdebstrap is not installed to make a stand-in"
  if [ ! -f "$dir/stand-in.tar" ]; then
    mmdebstrap --quiet --format=tar --variant=minbase \
      --include=ca-certificates,python3,python3-pip,python3-venv \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' \
      --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
      --customize-hook='ln -s python3 "$1"/usr/bin/python' \
      bookworm "$dir/stand-in.tar.part" >"$dir/mmdebstrap.log" 2>&1 ||
      missing "mmdebstrap could not make a stand-in: $(tail -n1 "$dir/mmdebstrap.log")"
    mv "$dir/stand-in.tar.part" "$dir/stand-in.tar"
  fi
  docker import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'CMD ["python3"]' "$dir/stand-in.tar" "$stand_in" >/dev/null
  rm -f "$dir/stand-in.tar"
}

# Ends dockerd, which ends its containerd; then whatever of the two is left, by its own id.
stop_private() {
  local file pid
  for file in "$run/docker.pid" "$run/exec/containerd/containerd.pid"; do
    [ -f "$file" ] || continue
    pid=$(cat "$file")
    # The id may have been given to another process since: ask what it runs.
    if ! tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q "$run"; then continue; fi
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 60); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.25
    done
    kill -9 "$pid" 2>/dev/null || true
  done
  cut -d" " -f2 /proc/mounts | { grep -E "^($dir|$run)/" || true; } | sort -r | while read -r mount; do
    umount "$mount" 2>/dev/null || umount -l "$mount" || true
  done
  rm -rf "$run"
}

case $verb in
  start) start ;;
  stop) stop_private ;;
  *) echo "$usage" >&2; exit 2 ;;
esac
