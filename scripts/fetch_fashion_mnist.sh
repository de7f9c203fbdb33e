#!/usr/bin/env bash
# Puts Fashion-MNIST into data/fashion-mnist: the Debian package dataset-fashion-mnist, unpacked without root.
# Nothing is fetched when the four files are there and whole.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

package=dataset-fashion-mnist
target=data/fashion-mnist
# Each file with its length once decompressed: the IDX header and the data.
files=(
    train-images-idx3-ubyte.gz:47040016
    train-labels-idx1-ubyte.gz:60008
    t10k-images-idx3-ubyte.gz:7840016
    t10k-labels-idx1-ubyte.gz:10008
)

fail() {
    echo "fetch_data: $*" >&2
    exit 1
}

whole() { # whole FOLDER: all four files are there, intact and of the right length
    local entry file length
    for entry in "${files[@]}"; do
        file="$1/${entry%%:*}"
        [ -f "$file" ] || return 1
        length=$(gzip -dc "$file" 2>/dev/null | wc -c) || return 1
        [ "$length" -eq "${entry##*:}" ] || return 1
    done
}

if whole "$target"; then
    echo "Fashion-MNIST is in $target"
    exit 0
fi

for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || fail "$tool is missing: Fashion-MNIST comes as the Debian package $package." \
        "Without Debian, put ${files[*]%%:*} into $target yourself."
done

mkdir -p data
work=$(mktemp -d "$PWD/data/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT
# As root, apt would otherwise complain that its own user cannot write here.
options=(-q -o APT::Sandbox::User=root)

download() { (cd "$work" && apt-get "${options[@]}" download "$package") >>"$work/log" 2>&1; }

echo "fetching the Debian package $package"
if ! download; then
    # The package lists may be absent or old; fresh ones in a folder of our own need no root.
    mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
    options+=(-o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache")
    apt-get "${options[@]}" update >>"$work/log" 2>&1 || true
    download || fail "apt-get could not fetch $package, not even after an update: $(grep '^[EW]:' "$work/log" | tail -n 1)"
fi

dpkg-deb -x "$work"/"$package"_*.deb "$work/root" || fail "the package $package could not be unpacked"
whole "$work/root/usr/share/datasets/fashion-mnist" || fail "the package $package does not hold the four whole IDX files"
mkdir -p "$target"
for entry in "${files[@]}"; do
    mv -f "$work/root/usr/share/datasets/fashion-mnist/${entry%%:*}" "$target/"
done
echo "Fashion-MNIST is in $target"
