#!/usr/bin/env bash
# Unpacks Debian's promtool into DIR if there is none: the package would start a server if it were installed. Without Debian's
# archive in reach it says so and the tests that want it do without.
set -euo pipefail
dir=$1
if command -v promtool >/dev/null || [[ -x $dir/usr/bin/promtool ]]; then exit 0; fi
mkdir -p "$dir"
fetch() {
  apt-get download -qq prometheus || { [[ $(id -u) == 0 ]] && apt-get update -qq && apt-get download -qq prometheus; }
}
if command -v apt-get >/dev/null && (cd "$dir" && fetch && dpkg -x prometheus_*.deb . && rm prometheus_*.deb) >/dev/null 2>&1; then
  exit 0
fi
echo "promtool is not here and Debian's package prometheus is not in reach: the metrics are not checked by it" >&2
