#!/bin/sh
# Installs the real programs that the tests talk to, from Debian's packages, where they are missing. It starts no
# service: the tests run their own instances.
set -eu

packages="spiped openssh-server openssh-client postfix swaks redis-server redis-tools haproxy nginx-light strace
iproute2 procps netcat-openbsd bsdutils socat pv systemd man-db groff mandoc
curl chromium zsh fish"

missing=""
for package in $packages; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "not root: tests that need these packages will be skipped:$missing" >&2
  exit 0
fi

# Debian starts a package's service when it is installed, unless this file says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
