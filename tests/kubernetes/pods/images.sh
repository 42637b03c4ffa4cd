#!/bin/sh
# Makes the images that the pods run: `tests/kubernetes/pods/images.sh var/kubernetes/images`.
#
# video-orchestrator.tar is what the Dockerfile makes with DEVICE=cpu, on a root of Debian's Python, since
# python:3.11-slim-bookworm is in no registry of packages. trial.tar stands in for the two images of a
# trial: Debian's PostgreSQL with an entrypoint that reads the official image's variables, and SeaweedFS.
# Wheels are fetched here and not in the build, so that what this machine's pip is told about indexes
# holds; where that is not of PyTorch without CUDA, TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
# is needed. The first time takes ten minutes and 12 GB; later only changed code is made again.
set -eu
umask 022
source=$(cd "$(dirname "$0")/../../.." && pwd)
script=$source/tests/kubernetes/pods/images.sh
python=$source/.venv/bin/python
[ "$("$python" -c 'import sys; print(sys.version_info[:2])')" = "(3, 11)" ] ||
    { echo "$python is not Python 3.11, which Debian 12 has: the wheels would not fit" >&2; exit 1; }
mkdir -p "$1"
cd "$1"
for program in buildah debootstrap; do
    command -v $program >/dev/null && continue
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends buildah debootstrap
done
buildah="buildah --root $PWD/storage --runroot $PWD/run --storage-driver overlay"
trap '$buildah rm --all >/dev/null' EXIT
pip="$python -m pip download --quiet --disable-pip-version-check --dest wheels"

# A folder of a Debian with these packages, as an image of that name.
debian() {
    $buildah images --quiet "localhost/$1" >/dev/null 2>&1 && return
    echo "making a root of Debian with $2"
    rm -rf --one-file-system "root-$1"
    debootstrap --variant=minbase --include="$2" bookworm "root-$1" http://deb.debian.org/debian >debootstrap.log ||
        { tail -n 20 debootstrap.log >&2; exit 1; }
    rm -rf "root-$1/var/cache/apt" "root-$1/var/lib/apt/lists"
    container=$($buildah from scratch)
    $buildah add --quiet "$container" "root-$1" / >/dev/null
    $buildah commit --quiet --rm "$container" "localhost/$1" >/dev/null
    rm -rf "root-$1"
}

# An image as an archive, unless it is there.
archive() {
    id=$($buildah images --quiet --no-trunc "localhost/$1")
    [ -e "$1.tar" ] && [ "$(cat "$1.id")" = "$id" ] && return
    rm -f "$1.tar" "$1.id"
    $buildah push --quiet --disable-compression "localhost/$1" "docker-archive:$1.tar:localhost/$1"
    echo "$id" >"$1.id"
}

wanted=$(cat "$script" "$source/constraints.txt" "$source/pyproject.toml" "$source/Dockerfile" | cksum)
if [ "$(cat made-of 2>/dev/null)" != "$wanted" ]; then
    $buildah rmi --all --force >/dev/null # gigabytes of layers that are made anew
    rm -rf wheels
    echo "fetching the wheels of constraints.txt"
    # With what builds a wheel; a build without a network asks for that as well.
    {
        $pip -c "$source/constraints.txt" --no-deps ${TORCH_CPU_INDEX:+--index-url "$TORCH_CPU_INDEX"} torch &&
            $pip -c "$source/constraints.txt" --find-links wheels "$source[server]" 'setuptools>=77'
    } >wheels.log 2>&1 || { tail -n 20 wheels.log >&2; exit 1; }
fi
debian python python3,python3-venv,ca-certificates
debian postgresql postgresql
printf '[global]\nno-index = true\nfind-links = /wheels\n' >pip.conf
$buildah build --layers --isolation chroot --build-arg PYTHON_IMAGE=localhost/python \
    --build-arg DEVICE=cpu --volume "$PWD/wheels:/wheels:ro" --volume "$PWD/pip.conf:/etc/pip.conf:ro" \
    --tag localhost/video-orchestrator "$source" >build.log 2>&1 || { tail -n 20 build.log >&2; exit 1; }
echo "$wanted" >made-of
archive video-orchestrator

mkdir -p trial
cp "$(dirname "$python")/weed" "$source/tests/kubernetes/pods/postgresql.sh" trial
$buildah build --quiet --layers --isolation chroot --tag localhost/trial -f - trial >/dev/null <<'END'
FROM localhost/postgresql
RUN useradd --uid 10001 orchestrator
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin
COPY weed postgresql.sh /usr/local/bin/
CMD ["postgresql.sh"]
END
archive trial

# What holds a pod's network while its containers come and go.
$buildah build --quiet --layers --isolation chroot --tag localhost/pause -f - trial >/dev/null <<'END'
FROM localhost/python
ENTRYPOINT ["sleep", "infinity"]
END
archive pause
