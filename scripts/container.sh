#!/bin/sh
# Runs TokenMan in its container, where it has to listen on all addresses: with a token, which is made and printed where
# nobody has set one.

data=${TOKENMAN_SERVER_DATA_DIR:-/data}
config=$data/tokenman.toml

if [ -z "$TOKENMAN_CONFIG" ] && [ -f "$config" ]; then
  TOKENMAN_CONFIG=$config
  export TOKENMAN_CONFIG
fi

has_auth() {
  [ -n "$TOKENMAN_AUTH_TOKEN" ] || [ -n "$TOKENMAN_AUTH_ENABLED" ] || [ -n "$TOKENMAN_SERVER_ALLOW_OPEN_BIND" ] && return 0
  [ -n "$TOKENMAN_CONFIG" ] && grep -Eq '^[[:space:]]*(\[auth\]|auth[[:space:]]*[.=]|allow_open_bind[[:space:]]*=)' "$TOKENMAN_CONFIG"
}

if ! has_auth; then
  file=$data/auth-token
  if [ ! -s "$file" ]; then
    (umask 077 && node -p 'crypto.randomBytes(24).toString("base64url")' > "$file") || exit 73
    echo "tokenman: made a token for [auth]; it is kept in $file" >&2
  fi
  TOKENMAN_AUTH_ENABLED=true
  TOKENMAN_AUTH_TOKEN=$(cat "$file")
  export TOKENMAN_AUTH_ENABLED TOKENMAN_AUTH_TOKEN
  echo "tokenman: clients need the token: $TOKENMAN_AUTH_TOKEN" >&2
fi

exec tokenman "$@"
