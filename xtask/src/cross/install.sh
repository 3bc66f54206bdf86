#!/bin/sh
# Installs those of the named packages of Debian that are missing.
missing=
for package in "$@"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! apt-get --version > /dev/null 2>&1; then
    echo "needed are a compiler with that target's standard library (\`rustup target add\`), a linker for it and, to run" \
        "programs, wine or qemu-user; Debian 12 has them as$missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -q -y update && apt-get -q -y --no-install-recommends install $missing && exit
echo "cannot install; as an administrator: apt-get install$missing" >&2
exit 1
