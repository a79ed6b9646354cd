#!/bin/sh
# Runs TokenMan with a Node that is new enough: the one on the PATH, else the one that came with the dependencies.

need_major=24
need_minor=16

self=$0
while [ -L "$self" ]; do
  target=$(readlink "$self")
  case $target in
    /*) self=$target ;;
    *) self=$(dirname "$self")/$target ;;
  esac
done
root=$(CDPATH='' cd -P "$(dirname "$self")/.." && pwd -P) || exit 69

new_enough() {
  version=$("$1" --version 2>/dev/null) || return 1
  version=${version#v}
  major=${version%%.*}
  rest=${version#*.}
  minor=${rest%%.*}
  case $major$minor in
    '' | *[!0-9]*) return 1 ;;
  esac
  [ "$major" -gt "$need_major" ] || { [ "$major" -eq "$need_major" ] && [ "$minor" -ge "$need_minor" ]; }
}

# The least limit of V8's heap with the bodies beside it, in MB. Some 70 MB of bodies come and go between two young
# collections, which free them; where that, with what is held for long, went over the limit, large requests would set off a
# full collection every 50 or so. Measured with 520 KB bodies, us of CPU a request: without features, one at a time, 310
# in the place of 840; with the cache and the compressors, 32 at a time, 780 at a limit of 96, 550 at 144, 470 at 192.
# A later Node may not know the flag.
heap_for() {
  [ "$major" -le 26 ] && echo --initial-old-space-size=192
}

on_path=$(command -v node 2>/dev/null)
for node in "$on_path" "$root/node_modules/node/bin/node"; do
  if [ -n "$node" ] && new_enough "$node"; then
    # Unquoted: a flag, or nothing.
    exec "$node" $(heap_for) "$root/dist/tokenman/main.mjs" "$@"
  fi
done

found="none is on the PATH"
[ -n "$on_path" ] && found="$on_path is $("$on_path" --version 2>/dev/null || echo 'not a working Node')"
echo "tokenman: needs Node $need_major.$need_minor or newer; $found. Run \"npm ci\" in $root to get one." >&2
exit 69
