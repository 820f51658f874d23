#!/bin/sh
# Installs the distribution packages that csmoe needs and this machine lacks (Debian 12), as root or through sudo.
# Usage: sh tools/setup.sh [test]     "test" adds what only tools/test.sh needs.
# CSMOE_NO_INSTALL=1: installs nothing and checks nothing.
set -eu

[ "${CSMOE_NO_INSTALL:-}" = 1 ] && exit 0

# Packages by purpose: one "purpose: packages" per line.
packages="compilers and build: gcc g++ libc6-dev meson ninja-build pkg-config
shader compiler: glslc
Vulkan headers and loader: libvulkan-dev
Vulkan driver for the CPU (a GPU's own driver works as well): mesa-vulkan-drivers
kernels compiled at run time (optional): libshaderc-dev
JSON: libjansson-dev
pictures (PNG, JPEG): libstb-dev
tokenizer: libsentencepiece-dev"
test_packages="unit tests: libcmocka-dev
Vulkan validation: vulkan-validationlayers"
[ "${1:-}" = test ] && packages="$packages
$test_packages"

fail() {
    echo "setup: $*" >&2
    exit 1
}

list() {
    echo "$packages" | sed 's/^/  /'
}

is_installed() {
    dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | grep -q '^installed$'
}

distribution=unknown
if [ -r /etc/os-release ]; then
    # shellcheck disable=SC1091
    distribution=$(. /etc/os-release && echo "${ID:-unknown} ${VERSION_ID:-}")
fi
if [ "$distribution" != "debian 12" ]; then
    echo "csmoe needs these packages (Debian 12's names, by purpose):" >&2
    list >&2
    fail "this is '$distribution', not Debian 12: install their counterparts, then run again with CSMOE_NO_INSTALL=1"
fi

missing=
for package in $(echo "$packages" | sed 's/.*: //'); do
    is_installed "$package" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ]; then
    as_root="env"
elif command -v sudo >/dev/null 2>&1; then
    as_root="sudo env"
else
    fail "these packages are missing, and this is neither root nor is there sudo; as root run: apt-get install$missing"
fi

echo "setup: installing with apt-get${as_root#env}:$missing" | sed 's/sudo env/ through sudo/'
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086  # words on purpose
if ! $as_root DEBIAN_FRONTEND=noninteractive apt-get update >"$log" 2>&1 ||
    ! $as_root DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "apt-get could not install:$missing"
fi
