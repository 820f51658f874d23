#!/bin/sh
# Unpacks the newest lavapipe, a Vulkan driver for the CPU that has cooperative matrices, and prints the path of a
# script that starts a program with it:  $(sh tools/lavapipe.sh FOLDER) build/tools/csmoe selftest
# Usage: sh tools/lavapipe.sh FOLDER      exit status 1, with the reason on stderr, where it cannot be had
set -eu

sh "$(dirname "$0")/debian.sh" "$1" sid mesa-vulkan-drivers vulkan-validationlayers
cd "$1"
driver=$(find "$PWD/root/usr/share/vulkan/icd.d" -name 'lvp_icd*.json' | head -n 1)
[ -n "$driver" ] || { echo "mesa-vulkan-drivers holds no lavapipe" >&2; exit 1; }
cat >lavapipe <<END
#!/bin/sh
export VK_DRIVER_FILES="$driver" VK_LAYER_PATH="$PWD/root/usr/share/vulkan/explicit_layer.d"
exec "$PWD/run" "\$@"
END
chmod +x lavapipe
echo "$PWD/lavapipe"
