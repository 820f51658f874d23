#!/bin/sh
# Finds or unpacks SwiftShader, a second Vulkan driver for the CPU, and prints the path of its driver file (for
# VK_DRIVER_FILES). It comes from Debian's chromium-common, which is downloaded and unpacked, not installed.
# Usage: sh tools/swiftshader.sh FOLDER      exit status 1, with the reason on stderr, where it cannot be had
set -eu

mkdir -p "$1"
cd "$1"
driver=$PWD/usr/lib/chromium/vk_swiftshader_icd.json
library=$PWD/usr/lib/chromium/libvk_swiftshader.so

if [ ! -f "$library" ] || [ ! -f "$driver" ]; then
    command -v apt-get >/dev/null 2>&1 || { echo "SwiftShader: no apt-get to download chromium-common with" >&2; exit 1; }
    # As root, apt-get downloads as another user where it can write; this folder need not be such a place.
    if ! apt-get -o APT::Sandbox::User=root download chromium-common >apt.log 2>&1; then
        echo "SwiftShader: chromium-common cannot be downloaded: $(tail -n 1 apt.log)" >&2
        exit 1
    fi
    for package in chromium-common_*.deb; do
        dpkg-deb --fsys-tarfile "$package" |
            tar -x ./usr/lib/chromium/libvk_swiftshader.so ./usr/lib/chromium/vk_swiftshader_icd.json
        rm -f "$package"
    done
fi
echo "$driver"
