//! Directories that a node is not configured for, and clusters that it cannot form.

use super::*;

fn written() -> Disk {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    node.disk
}

/// What a start is refused for: the row, what was expected and what was found.
fn refusal(config: &Config, disk: Disk, start: Start) -> (&'static str, String, String) {
    let before = disk.files.clone();
    let node = Node::start_as(config, disk, start);
    assert_eq!(node.disk.files, before, "nothing is written");
    match node.halted {
        Some(Halt::Refused { row, expected, found, .. }) => {
            (row, expected.to_string(), found.to_string())
        }
        other => panic!("not refused: {other:?}"),
    }
}

/// It was taken for a disk whose log has been torn to pieces, and was gated or given up.
#[test]
fn a_disk_in_other_units_is_left_alone() {
    let disk = written();
    for units in [1024, 4096] {
        let mut other = config();
        other.disk_align = units;
        other.segment_bytes = 64 << 10;
        let (row, expected, found) = refusal(&other, disk.clone(), Start::Run);
        assert_eq!(row, "other-align");
        assert!(expected.contains(&units.to_string()) && found.contains("512"), "{found}");
        let force = Start::ForceSoleVoter { acknowledged_loss: true };
        assert_eq!(refusal(&other, disk.clone(), force).0, "other-align");
    }
    let again = Node::start(disk, Start::Run);
    assert_eq!(again.recovered().last.index, LogIndex(3));
}

/// Whoever only looks need not know what the node was configured for.
#[test]
fn a_look_takes_the_units_that_are_there() {
    let disk = written();
    for start in [Start::Inspect, Start::Verify] {
        let config = Config::new(GroupId(1), NodeId(1));
        let node = Node::start_as(&config, disk.clone(), start);
        let Some(Halt::Inspected(found)) = node.halted else { panic!("{:?}", node.halted) };
        assert_eq!(found.defects, []);
        assert_eq!(found.log.expect("it has one").last, LogId::new(Term(1), LogIndex(3)));
        assert_eq!(found.hard_state.expect("it has one").disk_align, 512);
    }
}

/// It was told that its hard state was lost, and to come back as another node.
#[test]
fn a_directory_of_another_group_is_named() {
    let mut other = config();
    other.group = GroupId(2);
    let (row, expected, found) = refusal(&other, written(), Start::Run);
    assert_eq!(row, "foreign");
    assert!(expected.contains("group 2") && found.contains("group 1"), "{expected}, {found}");
}

#[test]
fn a_cluster_is_formed_by_its_members_each_of_them_once() {
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let format = |ids: &[u64]| Start::Format {
        cluster: ClusterId(5),
        members: Arc::new(Membership::of(ids.iter().copied().map(member))),
    };
    for (ids, row) in [(&[][..], "no-member"), (&[2, 3], "no-member"), (&[1, 2, 2], "member-twice")]
    {
        let node = Node::start_as(&config(), Disk::default(), format(ids));
        let Some(Halt::Refused { row: found, .. }) = &node.halted else {
            panic!("{ids:?}: {:?}", node.halted)
        };
        assert_eq!(*found, row, "{ids:?}");
        // Nothing is there that another attempt would stumble over.
        let again = Node::start(node.disk, super::format());
        assert_eq!(again.recovered().last, LogId::ZERO);
    }
}

/// A segment has sixteen units at least: one of 256 KiB, as the first is by default, has no room for four
/// of 64 KiB and their slots.
#[test]
fn large_units_make_large_segments() {
    let mut config = config();
    config.disk_align = 64 << 10;
    config.segment_bytes = 2 << 20;
    let mut node = Node::start_as(&config, Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    let node = Node::start_as(&config, node.disk, Start::Run);
    assert_eq!(node.recovered().last, LogId::new(Term(1), LogIndex(3)));
}
