use super::*;

#[test]
fn a_seed_is_always_the_same_plan_and_another_seed_another() {
    assert_eq!(Plan::storm(7, 3), Plan::storm(7, 3));
    assert_ne!(Plan::storm(7, 3), Plan::storm(8, 3));
}

#[test]
fn every_storm_is_a_plan_that_works() {
    for seed in 0..300 {
        let plan = Plan::storm(seed, 5);
        plan.validate().unwrap();
        let cuts = plan.faults.iter().filter(|f| matches!(f.kind, FaultKind::PowerCut { .. }));
        assert!(cuts.count() >= 3);
    }
}

#[test]
fn a_sweep_of_storms_has_every_kind_of_fault() {
    let all = |plan: fn(u64, usize) -> Plan| -> Vec<Fault> {
        (0..100).flat_map(|seed| plan(seed, 3).faults).collect()
    };
    let (within, beyond) = (all(Plan::storm), all(Plan::beyond_the_budget));
    for (kind, blank) in fields::KINDS {
        if blank().is_enumerated() {
            continue;
        }
        // Two storms of their own have it beside what is drawn (`scenarios`).
        if matches!(blank(), FaultKind::UnheardFailure { .. }) {
            continue;
        }
        let has = |faults: &[Fault]| faults.iter().any(|fault| fault.kind.name() == kind);
        // Members change in some storms, beside the others.
        if matches!(blank(), FaultKind::Change { .. }) {
            assert!(has(&all(Plan::swarm)), "{kind}");
            continue;
        }
        assert_eq!(has(&within), !blank().is_beyond(), "{kind}");
        assert!(has(&beyond), "{kind}");
    }
}

#[test]
fn what_is_printed_is_what_is_read() {
    for seed in 0..4000_u64 {
        let nodes = 1 + seed as usize % 7;
        let number = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut plan = match seed % 3 {
            0 => Plan::beyond_the_budget(number, nodes),
            _ => Plan::storm(number, nodes),
        };
        plan.clients[0] = (1..40).filter(|n| (seed >> (n % 13)) & 1 == 1).collect();
        let mut file = PlanFile::new("storm", plan);
        file.bug = format!("bug {seed}");
        let text = file.to_string();
        assert_eq!(text.parse::<PlanFile>().as_ref(), Ok(&file), "{text}");
        assert_eq!(text.parse::<PlanFile>().unwrap().to_string(), text);
    }
}

#[test]
fn what_is_enumerated_is_a_line_like_any_other() {
    let outcomes = [
        (Outcome::Exactly(5), "exactly-5"),
        (Outcome::Drawn(Survivors::AllButFirst, 31), "all-but-first-31"),
    ];
    for (outcome, printed) in outcomes {
        let kind = FaultKind::PowerCutAt { node: 1, step: 231, outcome, rot: Some(0), down: MS };
        let line = format!("power-cut-at node 2 step 231 survivors {printed} rot 0 down 1.000ms");
        check_line(kind, &line);
    }
    let kind = FaultKind::KillAt { node: 2, step: 24, down: MS };
    check_line(kind, "kill-at node 3 step 24 down 1.000ms");
    let mishap = Mishap::Partly(DiskError::Full);
    let kind = FaultKind::FailAt { node: 0, operation: 17, mishap };
    check_line(kind, "fail-at node 1 operation 17 how partly-full");
    let kind = FaultKind::Flip { node: 2, file: File::Segment(8), bit: 5776, down: 0 };
    check_line(kind, "flip node 3 file log-8 bit 5776 down 0.000ms");
    let line = "at 1ms power-cut-at node 1 step 1 survivors some-1 rot none down 0ms";
    assert!(refusal(line).contains("exactly or one of none, all, prefix"), "{}", refusal(line));
    let two = "at 1ms flip node 1 file log-1 bit 1 down 0ms\nat 1ms flip node 2 file log-1 bit 1 down 0ms";
    assert!(refusal(two).contains("leave a quorum"), "{}", refusal(two));
}

#[test]
fn what_a_node_is_tuned_to_is_a_line() {
    let to = Retuning { heartbeat: 150, snapshot_age: 80 * MS, ..retuning::BLANK };
    let line = "tune node 2 heartbeat-percent 150 election-percent 100 inflight-bytes 0 cache-bytes 0 \
                snapshot-log-bytes 0 snapshot-age 80.000ms retain-log-bytes 0";
    check_line(FaultKind::Tune { node: 1, to }, line);
    let too_seldom = format!("at 1ms {}", line.replace("150", "400"));
    assert!(refusal(&too_seldom).contains("does not fit"), "{}", refusal(&too_seldom));
}

#[test]
fn what_all_nodes_are_tuned_to_is_a_line() {
    let to = Times { heartbeat: 50, election: 200 };
    check_line(FaultKind::Times { to }, "times heartbeat-percent 50 election-percent 200");
    let at_once = "at 1ms times heartbeat-percent 100 election-percent 0";
    assert!(refusal(at_once).contains("does not fit"), "{}", refusal(at_once));
}

fn check_line(kind: FaultKind, line: &str) {
    assert_eq!(kind.to_string(), line);
    let mut plan = Plan::calm(7, 3);
    plan.faults = vec![Fault { at: MS, kind }];
    let file = PlanFile::new("story", plan);
    assert_eq!(file.to_string().parse::<PlanFile>().as_ref(), Ok(&file));
}

#[test]
fn the_text_of_a_plan_is_what_people_review() {
    let mut plan = Plan::calm(7, 3);
    plan.clients = vec![Asks::all(), "1-3,8".parse().unwrap()];
    let cut = FaultKind::PowerCut {
        nodes: vec![0, 2],
        moment: Moment::PendingHardState,
        survivors: Survivors::OnlyLast,
        rot: Some(1),
        down: MS + 7,
    };
    plan.faults = vec![Fault { at: 120 * MS, kind: cut }];
    let text = PlanFile::new("storm_of_three", plan).to_string();
    let expected = "lakebed plan 1
scenario storm_of_three
seed 7
nodes 3
targets events 0 answers 0 crashes 0
disk sector 512 align 512 tears false sync-names false
log segment-bytes 65536 first-segment-bytes 262144
tuning heartbeat 10.000ms election-least 60.000ms election-most 120.000ms commit-notice 1.000ms \
forward true lease-drift-ppm none entry-commands 4294967295 append-bytes 16384 \
inflight-bytes 65536 writes-inflight 8 propose-bytes 65536 apply-bytes 65536 cache-bytes 65536 catch-up-bytes 65536 \
restore-bytes 16384 snapshot-log-bytes 32768 retain-log-bytes 1073741824 transfer-log-bytes 8589934592 \
transfers 2 transfer-bytes-per-second 0 snapshot-age 0.000ms scrub-interval 0.000ms election-delay 0.000ms
links least 0.100ms tail 0.050ms loss 0 duplicate 0 reorder false silent false
read least 0.100ms tail 0.050ms
write least 0.100ms tail 0.050ms
sync least 0.100ms tail 0.050ms
think least 1.000ms tail 1.000ms
asking rounds 0 local 0 stale 0.000ms batch 1 readers 0
clocks drift-ppm 0,0,0
client 1 asks 1-
client 2 asks 1-3,8
at 120.000ms power-cut nodes 1,3 moment pending-hard-state survivors only-last rot 1 \
down 1.000007ms
";
    assert_eq!(text, expected);
}

#[test]
fn what_a_file_leaves_out_is_calm() {
    let text = "lakebed plan 1\n\n# a comment\nseed 7\nnodes 3\nlinks loss 9\n";
    let mut expected = Plan::calm(7, 3);
    expected.links.loss = 9;
    assert_eq!(expected.first_segment_bytes.min(expected.segment_bytes), expected.segment_bytes);
    assert_eq!(text.parse::<PlanFile>().unwrap().plan, expected);
}

/// What is said about a plan with these lines after a sound beginning.
fn refusal(lines: &str) -> String {
    format!("lakebed plan 1\nseed 7\nnodes 3\n{lines}").parse::<PlanFile>().unwrap_err().to_string()
}

#[test]
fn what_is_no_plan_is_refused_with_line_found_and_expected() {
    let cut = "at 1ms power-cut moment pending survivors none rot";
    let cases = [
        ("seed 8", "line 4: found \"seed 8\", expected no second line of seed"),
        (
            "weather fine",
            "line 4: found \"weather\", expected seed, nodes, joining, keeps, targets, disk",
        ),
        ("\nlinks loss many", "line 5: found \"loss many\", expected loss with a whole number"),
        ("links luck 3", "found \"luck\", expected least, tail, loss"),
        ("links loss 3 loss 4", "found \"loss\", expected least, tail,"),
        ("links loss", "found \"loss \", expected loss with a whole number"),
        ("read least 5", "expected least with milliseconds such as 1.250ms"),
        ("read least 3600001ms", "an hour at most"),
        ("client 2 asks 1-", "line 4: found \"2\", expected client 1"),
        ("client 1 asks 5-1", "expected asks with operations such as 1-, 3,5-9 or nothing"),
        ("client 1", "expected also asks"),
        ("at noon kill node 1 down 1ms", "found \"noon\", expected a time such as"),
        ("at 1ms flood node 1", "found \"flood\", expected one of power-cut, kill, partition"),
        ("at 1ms kill node 0 down 1ms", "a node, counting from 1"),
        ("at 1ms kill node 1", "expected also down"),
        ("at 1ms stop node 1 hand-over maybe", "true or false"),
        ("at 1ms partition side abc both-ways true noticed true lasts 1ms", "a letter per node"),
        ("at 1ms kill node 4 down 1ms", "does not fit a cluster of 3 nodes"),
        ("at 1ms partition side ab both-ways true noticed true lasts 1ms", "does not fit"),
        (&format!("{cut} 2 nodes 1 down 1ms"), "does not fit"),
        (&format!("{cut} none nodes 1,x down 1ms"), "nodes such as 1,3"),
        ("at 2ms stop node 1 hand-over true\nat 1ms stop node 1 hand-over true", "order of time"),
        ("clocks drift-ppm 1,2", "clocks need 3 drifts"),
        ("disk sector 100", "sectors of 512 or 4096"),
        ("tuning heartbeat 0ms", "at least two heartbeats"),
        ("log segment-bytes 1000", "segment_bytes must be a power of two"),
        ("log first-segment-bytes 1000", "segment_bytes must be a power of two"),
        ("think least 0ms tail 0ms", "a client waits 0.001ms at least"),
        ("at 1ms change steps", "expected steps with steps such as add-4"),
        ("links loss 65537", "65536 messages"),
        // Who joins knows nothing of those.
        (
            "joining 2\nat 1ms disk-gone node 1 formatted true down 0ms",
            "one disk at least of those that do not join",
        ),
        (
            "at 1ms kill-at node 1 step 9 down 1ms\n\
             at 1ms power-cut-at node 1 step 9 survivors none-0 rot none down 1ms",
            "two faults are for step 9 of node 1",
        ),
        ("joining 1\nat 1ms flip node 1 file log-1 bit 1 down 0ms", "leave a quorum"),
    ];
    for (lines, expected) in cases {
        let refusal = refusal(lines);
        assert!(refusal.contains(expected), "{lines}: {refusal}");
    }
    let short = "lakebed plan 1\nseed 7\n".parse::<PlanFile>().unwrap_err().to_string();
    assert!(short.contains("no line says the nodes"), "{short}");
}

#[test]
fn another_version_says_what_to_do() {
    for (version, age) in [(0, "an older"), (2, "a newer")] {
        let text = format!("lakebed plan {version}\nseed 1\n");
        let error = text.parse::<PlanFile>().unwrap_err().to_string();
        assert!(error.contains(age) && error.contains("lakebed sim plan SCENARIO SEED"), "{error}");
    }
    let error = "seed 7".parse::<PlanFile>().unwrap_err().to_string();
    assert_eq!(error, "line 1: found \"seed 7\", expected lakebed plan 1");
}
