#!/bin/sh
# Makes a real Kubernetes, control plane and node, in a folder: `tests/kubernetes/build.sh var/kubernetes`.
#
# No registry ships a kube-apiserver; Debian's source package is one that can be had. It is 1.20.2, and
# wants the Go of its time (with a newer one it refuses CRDs that have `default: ""`). Nothing here is
# installed: packages are unpacked below the folder. About ten minutes and 3 GB on two cores, of which
# 0.5 GB stay; there already, nothing is done. Versions and hashes are pinned; what Debian withdraws
# has to be pinned anew.
set -eu
umask 022
script=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
mkdir -p "$1"
cd "$1"
folder=$(pwd)
stamp=$folder/.built-$(cksum <"$script" | cut -d ' ' -f 1)
test -e "$stamp" && exit 0

for program in make gcc rsync jq patch; do
    command -v $program >/dev/null && continue
    echo "the build of Kubernetes needs $program; installing it"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends make gcc libc6-dev rsync jq patch
done
echo "building Kubernetes in $1; this takes about ten minutes, once"
rm -rf build .built-*
mkdir -p build/apt/state/lists/partial build/apt/cache/archives/partial build/home bin
cd build

# A list of packages of our own, so that the machine's stays as it is.
keys=signed-by=/usr/share/keyrings/debian-archive-keyring.gpg
cat >apt/sources.list <<END
deb-src [$keys] http://deb.debian.org/debian bookworm main
deb-src [$keys] http://deb.debian.org/debian-security bookworm-security main
deb [$keys arch=amd64] http://deb.debian.org/debian bookworm main
deb [$keys arch=amd64] http://deb.debian.org/debian bullseye main
deb [$keys arch=amd64] http://deb.debian.org/debian trixie main
END
cat >apt/apt.conf <<END
Dir::State "$folder/build/apt/state";
Dir::Cache "$folder/build/apt/cache";
Dir::Etc::SourceList "$folder/build/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Acquire::Languages "none";
APT::Sandbox::User "root";
END
export APT_CONFIG="$folder/build/apt/apt.conf"
apt-get update -qq
apt-get source -qq --download-only kubernetes=1.20.5+really1.20.2-1.1+deb12u1
apt-get download -qq golang-1.15-go=1.15.15-1~deb11u4 golang-1.15-src=1.15.15-1~deb11u4 \
    etcd-server=3.4.23-4+b4 kubectl=1.32.3+ds-2
sha256sum --check --quiet <<END
b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc  kubernetes_1.20.5+really1.20.2.orig.tar.gz
9b6e5fd41769d2b5badf2e73b274e3bcd90f85e13d06a1a4a845ccce018127d8  kubernetes_1.20.5+really1.20.2-1.1+deb12u1.debian.tar.xz
33f6680406698b60370322aa5710be199006b3d66fbb0974b44da012de3aa82a  golang-1.15-go_1.15.15-1~deb11u4_amd64.deb
e580f570f706d801191f9a17e55156736fc5979a6a878bab9304ca007ae29941  golang-1.15-src_1.15.15-1~deb11u4_amd64.deb
3a9445d4560ad6de1c375756b2a17d97713df44cbd20a658c871fe108af7ef5d  etcd-server_3.4.23-4+b4_amd64.deb
9825aaf4c14913027aae04af8688e580459f781c829bd5de00cc4dc2cc5a867f  kubectl_1.32.3+ds-2_amd64.deb
END
for package in ./*.deb; do dpkg -x "$package" unpacked; done
tar xzf kubernetes_*.orig.tar.gz
cd kubernetes-1.20.2
tar xJf ../kubernetes_*.debian.tar.xz
while read -r each; do patch --quiet -p1 <"debian/patches/$each"; done <debian/patches/series

# As debian/rules does it.
mkdir -p .go/src/k8s.io
ln -sfn ../../.. .go/src/k8s.io/kubernetes
go=$folder/build/unpacked/usr/lib/go-1.15
env -i PATH="$go/bin:$PATH" HOME="$folder/build/home" GOROOT="$go" GOPATH="$PWD/.go" GO111MODULE=off CGO_ENABLED=0 \
    KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_COMMIT=debian KUBE_GIT_TREE_STATE=archive \
    make WHAT="cmd/kube-apiserver cmd/kube-controller-manager cmd/kube-scheduler cmd/kubelet cmd/kube-proxy" >../make.log 2>&1 ||
    { tail -n 30 ../make.log >&2; exit 1; }
cp _output/bin/kube* "$folder/bin"
cp "$folder/build/unpacked/usr/bin/etcd" "$folder/build/unpacked/usr/bin/kubectl" "$folder/bin"
cd "$folder"
chmod -R u+w build # Go's cache is read-only
rm -rf build
touch "$stamp"
