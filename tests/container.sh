#!/bin/bash
# Build the image, and run the demo in it as Singularity would: an ordinary user, root and home not to
# be written to, no network. `make container` runs it; docs/containers.md says more.
# ENGINE is docker or what takes the same arguments; arguments go to the build.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${ENGINE:-docker}
user=$(id -u)
[ "$user" != 0 ] || user=1234

$engine build -t tumorreg "$@" .
echo "Built in $SECONDS s"
$engine images tumorreg

rm -rf demo
mkdir demo
[ "$(id -u)" != 0 ] || chown "$user" demo
run() {
    $engine run --rm --read-only --tmpfs /tmp --network none --user "$user" --env HOME=/home \
        --volume "$PWD/demo:/demo" "$@"
}
# what is to be shown must be so
run --entrypoint sh tumorreg -c \
    'test "$(id -u)" != 0 && ! touch /file 2>/dev/null && ! touch ~/file 2>/dev/null && test "$(ls /sys/class/net)" = lo'
run --entrypoint tumorreg-simulate tumorreg /demo/bids
run tumorreg /demo/bids /demo/derivatives participant -w /demo/work
echo "Report: $(ls "$PWD"/demo/derivatives/sub-*.html)"
