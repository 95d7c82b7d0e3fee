# One word is the gate, for people and for CI.
default: check

# Format, lints, tests, documentation, layers (engine/tests/layers.rs is one of the tests).
check: fmt clippy test doc

fmt:
    cargo fmt --all --check

clippy:
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# The same of what is built apart, each with its own flags.
clippy-apart:
    cd madsim && env -u RUSTFLAGS cargo clippy --all-targets -- -D warnings
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/loom RUSTFLAGS="--cfg lakebed_loom" cargo clippy -p lakebed-runtime --all-targets -- -D warnings
    cd fuzz && env -u RUSTFLAGS cargo clippy --all-targets -- -D warnings
    cd benches && cargo clippy --all-targets -- -D warnings
    cd mutants && cargo clippy --all-targets -- -D warnings

test:
    cargo test --workspace

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features

# Licences and duplicate dependencies (cargo install cargo-deny).
deny:
    cargo deny check licenses bans sources

# A three-node replicated store on this machine.
up *args:
    cargo run --release -- up {{args}}

# Many seeds of one storm, on all processors.
sweep storm="storm_of_three" seeds="0..10000" *args:
    cargo run --release -- sim run {{storm}} --seeds {{seeds}} {{args}}

# The real driver, its sockets and the server under a simulated tokio, in a build of their own.
madsim seeds="20":
    cd madsim && env -u RUSTFLAGS SIM_SEEDS={{seeds}} cargo test --test storms -- --nocapture

# Whoever waits is woken, in all orders of what threads do (runtime/src/woken.rs), in a build of its own.
loom:
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/loom RUSTFLAGS="--cfg lakebed_loom" cargo test -p lakebed-runtime --lib woken

# Every decoder, or one, under libFuzzer for so many seconds each (docs/fuzzing.md).
fuzz target="" seconds="10":
    fuzz/run {{seconds}} {{target}}

# Every crash of every story, and of each recovery; each bit of a cluster's disks.
exhaust *args:
    cargo run --release -- sim exhaust --twice {{args}}

flips *args:
    cargo run --release -- sim flips {{args}}

# Every state of three nodes within limits (docs/simulation.md), by name.
explore name="elections" *args:
    cargo run --release -p lakebed-explore -- {{name}} {{args}}

# Storage alone, crashed at every operation.
crash seeds="4000":
    CRASH_SEEDS={{seeds}} cargo test --release -p lakebed crash

# Storage alone, asked for anything: with failures and damage, over the simulator's disk.
walk seeds="20000":
    WALK_SEEDS={{seeds}} cargo test --release -p lakebed storage::tests::walk

# Consensus alone, in any weather, over pretended disks.
weather seeds="5000":
    STORM_SEEDS={{seeds}} cargo test --release -p lakebed raft::tests::storm

# Who notices a mutant of the engine (docs/simulation.md), every N-th from the I-th on.
mutants shard="1/1" jobs="1":
    mutants/run {{shard}} {{jobs}}

# Lakebed beside its peers, in one run; builds raft, raft-engine and protobuf.
bench what="consensus":
    cargo run --release --manifest-path benches/Cargo.toml -- {{what}}

# Golden bytes that are missing are written; those that exist never change.
golden:
    LAKEBED_GOLDEN=write cargo test -p lakebed golden
