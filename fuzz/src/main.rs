//! Every decoder under libFuzzer: `just fuzz`, docs/fuzzing.md.
//!
//! One program: `LAKEBED_FUZZ` names the target. Beside what each target promises, memory is
//! watched: no length that is only announced is believed.
#![no_main]

mod memory;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

type Target = fn(&[u8]);

/// The most memory that a run may hold at one time: so much, and so much more for each byte of its
/// input. A value in memory is larger than its bytes, and each target tries its input a few times.
const BYTES_MAX: usize = 1 << 20;
const BYTES_MAX_EACH: usize = 256;

/// Room beside that: an engine with its directory, and the buffers of connections.
const TARGETS: [(&str, Target, usize); 15] = [
    ("message", lakebed::fuzzing::message, 0),
    ("entry", lakebed::fuzzing::entry, 0),
    ("batch", lakebed::fuzzing::batch, 0),
    ("hard_state", lakebed::fuzzing::hard_state, 0),
    ("segment", lakebed::fuzzing::segment, 0),
    ("snapshot", lakebed::fuzzing::snapshot, 0),
    ("tape", lakebed::fuzzing::tape, 0),
    ("session", lakebed::fuzzing::session, 0),
    ("directory", lakebed::fuzzing::directory, 32 << 20),
    ("frame", lakebed_runtime::fuzzing::frame, 2 << 20),
    ("handshake", lakebed_runtime::fuzzing::handshake, 0),
    ("plan", lakebed_sim::fuzzing::plan, 0),
    ("command", lakebed_kv::fuzzing::command, 0),
    ("state", lakebed_kv::fuzzing::state, 0),
    ("resp", lakebed_kv::fuzzing::resp, 0),
];

static TARGET: LazyLock<(Target, usize)> = LazyLock::new(|| {
    let name = std::env::var("LAKEBED_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, ..)| *known == name);
    let Some((_, run, room)) = found else {
        let known: Vec<_> = TARGETS.iter().map(|(known, ..)| *known).collect();
        eprintln!("LAKEBED_FUZZ is {name:?}; expected one of {}", known.join(", "));
        std::process::exit(2);
    };
    // What is made once is nobody's input's fault.
    run(&[0]);
    (*run, *room)
});

fuzz_target!(|input: &[u8]| {
    let (run, room) = *TARGET;
    let held = memory::most_held(|| run(input));
    let most = room + BYTES_MAX + input.len() * BYTES_MAX_EACH;
    assert!(held <= most, "{} bytes of input held {held} bytes of memory, not {most}", input.len());
});
