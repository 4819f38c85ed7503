#!/bin/bash
# Downloads Debian's Postfix and OpenSMTPD and unpacks them below DIR, once; installs the libraries that they want.
# The packages themselves are not installed, or they would take over the machine's mail: `unpack.sh DIR`.
set -euo pipefail
mkdir -p "$1/debs"
cd "$1"
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
for name in postfix opensmtpd; do
    [ -d "$name/usr" ] && continue
    if ! compgen -G "debs/${name}_*.deb" > /dev/null; then
        get() { (cd debs && apt-get -qq -o APT::Sandbox::User=root download "$name"); }
        get || { "${as_root[@]}" apt-get -qq update && get; }
    fi
    deb=$(compgen -G "debs/${name}_*.deb")
    missing=()
    for library in $(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed -n 's/^ *\(lib[^ (|]*\).*/\1/p'); do
        dpkg -s "$library" 2> /dev/null | grep -q '^Status: install ok installed' || missing+=("$library")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
    fi
    # Whole or not at all, should this be stopped half way.
    rm -rf "$name.new"
    dpkg-deb -x "$deb" "$name.new"
    mv "$name.new" "$name"
done
