#!/usr/bin/env bash
# Breaks one rule of the engine at a time (`cfg!(lakebed_break = "...")` marks the places), tells
# which seed of a storm is the first to notice, by which invariant, and how small its plan becomes.
#
#   scenarios/breakages.sh [SEEDS_MAX] [STORM] [DIRECTORY-FOR-PLANS]
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-5000}
storm=${2:-storm_of_five}
plans=${3:-$(mktemp -d)}
target=${CARGO_TARGET_DIR:-target}
# A test's panic is told with its numbers; where it stands in the library is no news.
export RUST_BACKTRACE=0 CARGO_TARGET_DIR="$target/breakages"
missed=0
for breakage in $(grep -rhoP 'lakebed_break = "\K[a-z_]+' engine/src | sort -u); do
    export RUSTFLAGS="--cfg lakebed_break=\"$breakage\""
    test=(cargo test -q --release -p lakebed-scenarios --test storms)
    "${test[@]}" --no-run
    begun=$SECONDS
    if found=$(SIM_SEEDS=$seeds SIM_SHRINK="$plans/$breakage.plan" \
        "${test[@]}" -- --exact "$storm" 2>&1); then
        echo "$breakage: MISSED by $seeds seeds"
        missed=1
        continue
    fi
    seed=$(sed -n 's/^seed //p' "$plans/$breakage.plan")
    broken=$(sed -n 's/^  broken: //p' <<<"$found" | head -1)
    shrunk=$(sed -n 's/^  \(shrunk from .*\), in .*/\1/p' <<<"$found" | head -1)
    echo "$breakage: caught after $((seed + 1)) seeds: $broken"
    echo "  $shrunk; $((SECONDS - begun)) s with the search"
done
exit $missed
