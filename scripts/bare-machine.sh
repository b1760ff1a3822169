#!/usr/bin/env bash
# Runs the README's two commands on a machine that has Node, npm and git and nothing else, as a new user would:
#
#     scripts/bare-machine.sh [NODE_VERSION...]        by default 20 22 24 26
#
# For each version it makes a fresh Debian or Ubuntu root, the same release as this machine's, clones the last commit
# of this repository into it, and runs there
#   - npm ci && npm start, as root, until Ctrl-C;
#   - npm ci && npm test, as a user who cannot install programs: tests may be skipped, and none may fail;
#   - npm ci && npm test, as root: no test may fail or be skipped.
# It ends with one line for each of these and with status 1 if one was not as it should be. The root has processes and
# mounts of its own, which end with it, and the network of this machine. Programs for the tests are installed in the
# root only.
#
# Needs root, and the programs debootstrap, git, npm and unshare. Packages come from where apt and npm of this machine
# get theirs.
set -euo pipefail

fail() {
  echo "bare-machine: $*" >&2
  exit 1
}

[ "$(id -u)" -eq 0 ] || fail "must be run as root"
for program in debootstrap git npm unshare; do
  command -v "$program" >/dev/null || fail "needs $program: apt-get install $program"
done
[ $# -gt 0 ] || set -- 20 22 24 26

repository=$(cd "$(dirname "$0")/.." && pwd)
commit=$(git -C "$repository" rev-parse HEAD)
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
sources=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' "Codename: $release" "Created-By: Packages" | sort -u)
[ -n "$sources" ] || fail "apt knows no source of packages for $release: run apt-get update"
mirror=${sources%% *}
# Node needs libatomic from version 26 on.
packages=git,libatomic1
[[ $mirror != https:* ]] || packages+=,ca-certificates
components=$(cut -d ' ' -f 2 <<<"$sources" | paste -sd ,)

work=$(mktemp -d "${TMPDIR:-/tmp}/bare-machine-XXXXXX")
child=
clean_up() {
  if [ -n "$child" ]; then
    kill -KILL "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  fi
  rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# isolated COMMAND...: runs a command with processes and mounts of its own, all of which are gone when it ends, however
# it ends, and shows its output, which is kept in $log. It runs in the background, so that a signal to this script ends
# it.
log=$work/log
isolated() {
  : >"$log"
  unshare --mount --pid --fork --kill-child "$@" >"$log" 2>&1 &
  child=$!
  tail --follow --lines=+1 --sleep-interval=0.2 --pid=$child "$log" &
  local ended=0
  wait "$child" || ended=$?
  child=
  wait
  return $ended
}

echo "== a bare $release"
base=$work/base
isolated debootstrap --variant=minbase --include="$packages" --components="$components" \
  "$release" "$base" "$mirror" || fail "debootstrap failed"
apt-config dump | grep -E '^Acquire::(http|https|Check|Retries|ForceIPv)' >"$base/etc/apt/apt.conf.d/99host" || true
cp /etc/hosts /etc/resolv.conf "$base/etc/"
chroot "$base" useradd --create-home --shell /bin/bash somebody

# How this machine reaches the npm registry, but for what is secret.
environment=(LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
environment+=("npm_config_registry=$(npm config get registry)")
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
  [ -z "${!name:-}" ] || environment+=("$name=${!name}")
done
certificates=${NODE_EXTRA_CA_CERTS:-$(npm config get cafile)}
if [ -f "$certificates" ]; then
  cp "$certificates" "$base/etc/host-certificates.pem"
  environment+=(NODE_EXTRA_CA_CERTS=/etc/host-certificates.pem)
fi

# enter ROOT USER SCRIPT: runs a bash script in a root, as a user, in the clone that the user has.
enter() {
  local root=$1 user=$2 script=$3
  # pivot_root, unlike chroot, leaves a root in which mounts and namespaces can be made, as the tests do.
  # shellcheck disable=SC2016 # expanded by the inner shell
  isolated bash -euc '
    root=$1 user=$2 script=$3; shift 3
    mount --bind "$root" "$root"
    cd "$root"
    mount -t proc proc proc
    mount --rbind /sys sys
    mount --rbind /dev dev
    pivot_root . mnt
    umount -l mnt
    exec chroot . setpriv --reuid="$user" --regid="$user" --init-groups env -i "$@" \
      bash -c "cd && cd spiped && { $script
      }"
  ' isolated "$root" "$user" "$script" "HOME=$(awk -F : -v user="$user" '$1 == user { print $6 }' "$root/etc/passwd")" \
    "USER=$user" "${environment[@]}"
}

status=0
results=()
# report NAME GOOD TEXT
report() {
  local verdict=ok
  "$2" || { verdict="NOT OK"; status=1; }
  results+=("$1: $verdict: $3")
}

for version in "$@"; do
  echo "== Node $version"
  root=$work/root
  cp -a "$base" "$root"
  architecture=$(dpkg --print-architecture | sed 's/amd64/x64/')
  # The npm that this Node comes with.
  npm_version=$([ "${version%%.*}" -lt 24 ] && echo 10 || echo 11)
  npm install --loglevel=error --prefix "$root/opt/node" "node-linux-$architecture@$version" "npm@$npm_version"
  ln -s "/opt/node/node_modules/node-linux-$architecture/bin/node" "$root/usr/local/bin/"
  for program in npm npx; do ln -s "/opt/node/node_modules/npm/bin/$program-cli.js" "$root/usr/local/bin/$program"; done
  git clone --quiet --no-hardlinks "$repository" "$root/root/spiped"
  git -C "$root/root/spiped" checkout --quiet --detach "$commit"
  cp -a "$root/root/spiped" "$root/home/somebody/"
  chroot "$root" chown -R somebody:somebody /home/somebody/spiped
  node="Node $(chroot "$root" node -p process.versions.node), npm $(chroot "$root" npm -v)"
  echo "$node, commit $(git -C "$root/root/spiped" log -1 --format='%h %s')"

  echo "-- root: npm ci && npm start, until Ctrl-C"
  ended=0
  # Job control gives the command a process group of its own, to which Ctrl-C is a SIGINT.
  # shellcheck disable=SC2016
  enter "$root" root '
    set -m
    { npm ci && npm start; } >../log 2>&1 &
    deadline=$((SECONDS + 600))
    until grep -q Ctrl-C ../log || ! kill -0 %1 2>/dev/null || [ $SECONDS -gt $deadline ]; do sleep 0.1; done
    kill -INT %1; status=0; wait %1 || status=$?
    cat ../log
    left=$(readlink /proc/[0-9]*/exe | grep -c node || true)
    echo "exit status $status, $left processes left"
    grep -q "the echo was identical" ../log && [ "$left" -eq 0 ]' || ended=1
  report "$node: npm start" "$([ $ended -eq 0 ] && echo true || echo false)" "$(tail -n 1 "$log")"

  for user in somebody root; do
    echo "-- $user: npm ci && npm test"
    ended=0
    enter "$root" $user 'npm ci && npm test' || ended=1
    result=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
    [ $user = somebody ] && wanted='^[0-9]+ passed, 0 failed' || wanted='^[0-9]+ passed, 0 failed$'
    [ $ended -eq 0 ] && grep -qE "$wanted" <<<"$result" && good=true || good=false
    report "$node: npm test as $user" "$good" "${result:-no result}"
  done
  rm -rf --one-file-system "$root"
done

echo "== results"
printf '%s\n' "${results[@]}"
exit $status
