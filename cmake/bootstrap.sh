#!/bin/sh
# Installs what is missing for one purpose, on Debian 12, Ubuntu 24.04 and later, as root or with sudo:
#
#   cmake/bootstrap.sh bench | test | ci
#
# Does nothing, and needs no rights, where everything is there.
set -eu

build="g++ cmake ninja-build libeigen3-dev libxsimd-dev xtl-dev nlohmann-json3-dev python3"
bench="libbenchmark-dev libdnnl-dev libopenblas-dev libfftw3-dev python3-numpy python3-matplotlib"
test="catch2 pkg-config"
case "${1-}" in
bench) packages="$build $bench" ;;
test) packages="$build $test" ;;
ci) packages="$build $bench $test clang-14 libclang-rt-14-dev libomp-14-dev clang-format-14 ccache valgrind libxnnpack-dev libpthreadpool-dev" ;;
*)
    echo "usage: $0 bench | test | ci" >&2
    exit 2
    ;;
esac

if ! command -v apt-get >/dev/null; then
    echo "$0: no apt-get here; on Debian the packages would be: $packages" >&2
    exit 0 # CMake says what is missing, and fetches the libraries itself
fi

missing=
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "Installing:$missing"
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
$as_root apt-get update -qq
# shellcheck disable=SC2086 # lists of words
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
