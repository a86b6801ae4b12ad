#!/bin/sh
# Docker Compose v2 for the tests, where the machine has none: out of Debian 13's package, which runs on older ones as
# well, into the file named. Needs apt, but neither root nor an engine; changes nothing else on the machine.
set -eu
target=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] http://deb.debian.org/debian trixie main" >"$scratch/sources.list"
cd "$scratch"
for step in update "download docker-compose"; do
    # shellcheck disable=SC2086 # a step may have an argument
    apt-get -qq -o Dir::Etc::SourceList="$scratch/sources.list" -o Dir::Etc::SourceParts=- -o APT::Sandbox::User="" \
        -o Dir::State::Lists="$scratch/lists" -o Dir::Cache="$scratch/cache" $step >/dev/null
done
dpkg-deb -x docker-compose_*.deb package
install -m 755 package/usr/libexec/docker/cli-plugins/docker-compose "$target"
