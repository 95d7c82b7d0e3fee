#!/usr/bin/env bash
# Breaks one rule of the engine at a time (`cfg!(lakebed_break = "...")` marks the five places) and
# tells which seed of a storm is the first to notice, and by which invariant.
#
#   scenarios/breakages.sh [SEEDS_MAX] [STORM]
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-5000}
storm=${2:-storm_of_five}
target=${CARGO_TARGET_DIR:-target}
missed=0
for breakage in acknowledge_before_durable vote_before_second_copy count_older_terms \
    truncate_without_conflict torn_tail_is_whole; do
    found=$(SIM_FIRST=1 RUSTFLAGS="--cfg lakebed_break=\"$breakage\"" \
        CARGO_TARGET_DIR="$target/breakages" \
        cargo run -q -p lakebed-scenarios --example sweep -- "$storm" "0..$seeds" 1) && missed=1
    runs=$(sed -n "s/^$storm: \([0-9]*\) runs.*/\1/p" <<<"$found")
    broken=$(sed -n 's/^  broken: //p' <<<"$found" | head -1)
    echo "$breakage: ${broken:+caught after $runs seeds: }${broken:-MISSED by $runs seeds}"
done
exit $missed
