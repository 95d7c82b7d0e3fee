#!/usr/bin/env bash
# Breaks one rule of the engine at a time (`cfg!(lakebed_break = "...")` marks the places), tells
# which seed of a storm is the first to notice, by which invariant, and how small its plan becomes.
#
#   scenarios/breakages.sh [SEEDS_MAX] [STORMS] [DIRECTORY-FOR-PLANS] [BREAKAGES]
#
# Storms are tried one after the other until one notices; `groups` is one of them. What none of them notices the
# stories must. All breakages are built at once: in a copy of the sources each looks whether the environment names it.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-5000}
read -ra storms <<<"${2:-storm_of_five beyond_the_budget churn storm_of_leases storm_of_installs churn_of_installs ruin_of_installs}"
plans=${3:-$(mktemp -d)}
breakages=${4:-$(grep -rhoP 'lakebed_break = "\K[a-z_]+' engine/src | sort -u)}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/breakages
tree=$target/tree
mkdir -p "$plans"
plans=$(realpath "$plans")

rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- --create | tar --extract --directory="$tree"
cd "$tree"
# A function that asks the environment is not constant any more.
grep -rlZ 'cfg!(lakebed_break' engine/src | xargs -0 perl -0pi -e '
    s/cfg!\(lakebed_break = ("[a-z_]+")\)/crate::is_broken($1)/g;
    1 while s/\bconst fn ((?:(?!\bfn ).)*?crate::is_broken\()/fn $1/s;'
cat >>engine/src/lib.rs <<'RUST'
fn is_broken(name: &str) -> bool {
    static BROKEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    BROKEN.get_or_init(|| std::env::var("LAKEBED_BROKEN").ok()).as_deref() == Some(name)
}
RUST
# A test's panic is told with its numbers; where it stands in the library is no news.
export RUST_BACKTRACE=0 CARGO_TARGET_DIR="$target"
test=(cargo test -q --release -p lakebed-scenarios --test all)
"${test[@]}" --no-run

missed=0
for breakage in $breakages; do
    begun=$SECONDS caught=
    for storm in "${storms[@]}"; do
        case $storm in groups) room=groups ;; *) room=storms ;; esac
        if ! found=$(LAKEBED_BROKEN=$breakage SIM_SEEDS=$seeds SIM_SHRINK="$plans/$breakage.plan" \
            "${test[@]}" -- --exact "$room::$storm" 2>&1); then
            caught=$storm
            break
        fi
    done
    if [ -z "$caught" ]; then
        # Some need so much at one moment that a story brings it about, or every crash is tried.
        if told=$(LAKEBED_BROKEN=$breakage "${test[@]}" -- --skip storms:: 2>&1); then
            echo "$breakage: MISSED by $seeds seeds of each, and by all stories"
            missed=1
        else
            names=$(sed -n 's/^    \([a-z_]*::[a-z_:]*\)$/\1/p' <<<"$told" | sort -u)
            echo "$breakage: missed by $seeds seeds of each, caught by" $names
        fi
        continue
    fi
    seed=$(sed -n 's/^seed //p' "$plans/$breakage.plan")
    broken=$(sed -n 's/^  broken: //p' <<<"$found" | head -1)
    shrunk=$(sed -n 's/^  \(shrunk from .*\), in .*/\1/p' <<<"$found" | head -1)
    echo "$breakage: caught after $((seed + 1)) seeds of $caught: $broken"
    echo "  $shrunk; $((SECONDS - begun)) s with the search"
done
exit $missed
