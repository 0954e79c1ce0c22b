#!/bin/bash
# Builds an arm64 Debian root with adbd, dropbear and the runtimes, for the tests of tests/arm64.
#
#   tests/arm64/target.sh [FOLDER]      $WB_ARM64_ROOT, or ~/.cache/workbench-tests/arm64, without it
#
# Packages come from where this machine's apt and pip are set to get them. apt needs root, or the
# programs installed already: adb mmdebstrap openssh-client proot qemu-user-static. Nothing is
# mounted or registered. Remove again with: rm -rf --one-file-system FOLDER
set -euo pipefail
root=${1:-${WB_ARM64_ROOT:-$HOME/.cache/workbench-tests/arm64}}
python=${PYTHON:-python3}

if [ -e "$root/.ready" ] || { [ -x "$root/usr/sbin/adbd" ] && [ -d "$root/opt/site/onnxruntime" ]; }; then
  echo "ready: $root"; exit 0
fi

needed=()
for pair in adb:adb mmdebstrap:mmdebstrap ssh:openssh-client proot:proot qemu-aarch64-static:qemu-user-static; do
  command -v "${pair%%:*}" >/dev/null || needed+=("${pair#*:}")
done
if [ ${#needed[@]} -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ]; then echo "install first: ${needed[*]}" >&2; exit 1; fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${needed[@]}" >/dev/null
fi

# Built beside its place: a folder that is there is whole.
mkdir -p "$(dirname "$root")"
new=$(mktemp -d "$root.XXXXXX")
trap 'rm -rf --one-file-system "$new"' EXIT

# --variant=extract unpacks only: no maintainer script runs, so nothing is emulated.
mmdebstrap -q --arch=arm64 --variant=extract --skip=check/qemu \
  --include=base-files,bash,dash,coreutils,findutils,grep,sed,procps,util-linux,hostname,adbd,dropbear-bin,python3-minimal,libpython3-stdlib,libstdc++6,libgomp1,libc-bin \
  trixie "$new"
echo 'root:x:0:0:root:/root:/bin/sh' > "$new/etc/passwd"
echo 'root:x:0:' > "$new/etc/group"
mkdir -p "$new/small" "$new/data/local/tmp" "$new/etc/dropbear" "$new/root/.ssh"
chmod 700 "$new/root" "$new/root/.ssh"

# What runtimes read of the processor: with the host's x86 /sys they crash or fail.
mkdir -p "$new/sys/devices/system/cpu"
for file in possible present online; do echo 0-1 > "$new/sys/devices/system/cpu/$file"; done
for i in 0 1; do
  printf 'processor\t: %d\nBogoMIPS\t: 100.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n' $i
done > "$new/etc/cpuinfo.arm64"

# The runtimes' shared libraries are inside their wheels, and so are those of the native runner.
"$python" -m pip install -q --target "$new/opt/site" --no-deps --only-binary=:all: \
  --implementation cp --python-version 313 \
  --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
  onnxruntime ai-edge-litert numpy flatbuffers protobuf packaging ml_dtypes typing_extensions

chmod 755 "$new"
touch "$new/.ready"
mv -T "$new" "$root"
trap - EXIT
echo "ready: $root"
