#!/bin/sh
# Unpacks packages of a newer Debian, with all that they depend on, into FOLDER/root: nothing is installed, the system is
# left as it is. Also writes FOLDER/run, which starts a program with the libraries of FOLDER/root before the system's.
# Usage: sh tools/debian.sh FOLDER SUITE PACKAGE...      exit status 1, with the reason on stderr, where it cannot be had
set -eu

fail()
{
    echo "$1" >&2
    exit 1
}

mkdir -p "$1"
cd "$1"
folder=$PWD
suite=$2
shift 2
made="$suite $*"
[ "$(cat made 2>/dev/null)" = "$made" ] && exit 0

command -v apt-get >/dev/null 2>&1 || fail "no apt-get to download $* with"
rm -rf root state cache made
mkdir -p root state/lists/partial cache/archives/partial parts
: >state/status
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" >sources.list
# As root, apt-get downloads as another user where it can write; this folder need not be such a place.
cat >apt.conf <<END
Dir::State "$folder/state";
Dir::State::status "$folder/state/status";
Dir::Cache "$folder/cache";
Dir::Etc::sourcelist "$folder/sources.list";
Dir::Etc::sourceparts "$folder/parts";
Dir::Etc::preferencesparts "$folder/parts";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
END
export APT_CONFIG="$folder/apt.conf"
apt-get update >apt.log 2>&1 && apt-get install -y --download-only "$@" >>apt.log 2>&1 ||
    fail "$* of Debian $suite cannot be downloaded: $(tail -n 1 apt.log)"
# Newer packages hold /usr only; older ones may still name /lib.
mkdir -p root/usr/lib root/usr/lib64 root/usr/bin root/usr/sbin
for name in lib lib64 bin sbin; do
    ln -s "usr/$name" "root/$name"
done
for package in cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C root --keep-directory-symlink
done
rm -rf cache state

loader=$(find "$folder/root/usr" -name 'ld-linux*.so.*' | head -n 1)
[ -n "$loader" ] || fail "Debian $suite: no program loader among the packages of $*"
libraries=$(dirname "$(find "$folder/root/usr/lib" -name 'libc.so.6' | head -n 1)")
cat >run <<END
#!/bin/sh
# Starts PROGRAM [ARGUMENT...] with the libraries unpacked here, then the system's.
exec "$loader" --library-path "$libraries:/usr/lib/$(basename "$libraries")" "\$@"
END
chmod +x run
echo "$made" >made
