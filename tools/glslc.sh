#!/bin/sh
# Unpacks a glslc newer than the system's, which knows cooperative matrices, and prints the path of a script that runs
# it (for meson's -Dglslc=PATH).
# Usage: sh tools/glslc.sh FOLDER      exit status 1, with the reason on stderr, where it cannot be had
set -eu

sh "$(dirname "$0")/debian.sh" "$1" sid glslc
cd "$1"
cat >glslc <<END
#!/bin/sh
exec "$PWD/run" "$PWD/root/usr/bin/glslc" "\$@"
END
chmod +x glslc
echo "$PWD/glslc"
