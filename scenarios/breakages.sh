#!/usr/bin/env bash
# Breaks one rule of the engine at a time (`cfg!(lakebed_break = "...")` marks the places), tells
# which seed of a storm is the first to notice, by which invariant, and how small its plan becomes.
#
#   scenarios/breakages.sh [SEEDS_MAX] [STORMS] [DIRECTORY-FOR-PLANS] [BREAKAGES]
#
# Storms are tried one after the other until one notices; `groups` is one of them.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-5000}
read -ra storms <<<"${2:-storm_of_five beyond_the_budget churn storm_of_leases storm_of_installs churn_of_installs}"
plans=${3:-$(mktemp -d)}
breakages=${4:-$(grep -rhoP 'lakebed_break = "\K[a-z_]+' engine/src | sort -u)}
target=${CARGO_TARGET_DIR:-target}
# A test's panic is told with its numbers; where it stands in the library is no news.
export RUST_BACKTRACE=0 CARGO_TARGET_DIR="$target/breakages"
mkdir -p "$plans"
missed=0
for breakage in $breakages; do
    export RUSTFLAGS="--cfg lakebed_break=\"$breakage\""
    test=(cargo test -q --release -p lakebed-scenarios --test all)
    "${test[@]}" --no-run
    begun=$SECONDS caught=
    for storm in "${storms[@]}"; do
        case $storm in groups) room=groups ;; *) room=storms ;; esac
        if ! found=$(SIM_SEEDS=$seeds SIM_SHRINK="$plans/$breakage.plan" \
            "${test[@]}" -- --exact "$room::$storm" 2>&1); then
            caught=$storm
            break
        fi
    done
    if [ -z "$caught" ]; then
        echo "$breakage: MISSED by $seeds seeds of each"
        missed=1
        continue
    fi
    seed=$(sed -n 's/^seed //p' "$plans/$breakage.plan")
    broken=$(sed -n 's/^  broken: //p' <<<"$found" | head -1)
    shrunk=$(sed -n 's/^  \(shrunk from .*\), in .*/\1/p' <<<"$found" | head -1)
    echo "$breakage: caught after $((seed + 1)) seeds of $caught: $broken"
    echo "  $shrunk; $((SECONDS - begun)) s with the search"
done
exit $missed
