//! What a disk says that is not so, or not yet.

use super::*;

fn read(file: File, sector: u64) -> DiskRequest {
    DiskRequest::Read { file, offset: sector * SECTOR as u64, len: SECTOR as u32 }
}

fn byte(result: Result<Completion, DiskError>) -> u8 {
    let Ok(Completion::Read(bytes)) = result else { panic!("it read {result:?}") };
    uniform(&bytes)
}

#[test]
fn a_failure_that_is_told_late_is_told_once_by_whatever_is_to_be_durable_next() {
    for next in [sync(), durable(4, &[4])] {
        let mut probe = Probe::with_log();
        probe.run(write(1, &[1])).unwrap();
        let op = probe.submit(sync());
        assert_eq!(probe.disk.complete_too_soon(op, Failure::CleanKeep), Ok(Completion::Done));
        let other = probe.submit(read(LOG, 1));
        assert_eq!(probe.disk.late_failure(other), None, "a read tells nothing of it");
        assert_eq!(byte(probe.disk.complete(other)), 1, "the cache has what the disk has not");
        let op = probe.submit(next);
        let late = probe.disk.late_failure(op).expect("it is told now");
        probe.disk.fail(op, late).unwrap_err();
        let op = probe.submit(sync());
        assert_eq!(probe.disk.late_failure(op), None, "it was told");
        probe.disk.complete(op).unwrap();
        assert_eq!(
            probe.after_crash(Survivors::None, 0).unwrap()[..2],
            [0, 0],
            "nor is it written"
        );
    }
}

#[test]
fn a_power_cut_forgets_what_was_to_be_told_and_a_kill_does_not() {
    let mut probe = Probe::with_log();
    let op = probe.submit(sync());
    probe.disk.complete_too_soon(op, Failure::CleanKeep).unwrap();
    probe.disk.kill(&mut draw(0));
    let mut cut = probe.clone();
    cut.disk.cut_power(Survivors::All, &mut draw(0));
    for (mut probe, told) in [(probe, Some(Failure::CleanKeep)), (cut, None)] {
        let op = probe.submit(sync());
        assert_eq!(probe.disk.late_failure(op), told);
    }
}

#[test]
fn a_misdirected_read_shows_another_place_once_and_changes_nothing() {
    let mut probe = Probe::with_log();
    probe.run(durable(0, &[1, 2])).unwrap();
    probe.run(create(File::Segment(2), 2 * SECTOR as u64)).unwrap();
    let at = extent(1, &[3]);
    let file = File::Segment(2);
    probe.run(DiskRequest::Write { file, at, and: None, durable: true }).unwrap();
    let mut shown = BTreeSet::new();
    for pick in (0..400).map(|n| n * 0x1_2345_6789) {
        let mut probe = probe.clone();
        let op = probe.submit(read(LOG, 0));
        assert_eq!(probe.disk.read_of(op), Some(LOG));
        match probe.disk.complete_from_elsewhere(op, pick) {
            Some(completion) => shown.insert(byte(Ok(completion))),
            None => shown.insert(byte(probe.disk.complete(op)) + 100),
        };
        assert_eq!(byte(probe.run(read(LOG, 0))), 1, "once");
    }
    assert!(
        shown.iter().eq(&[0, 2, 3, 101]),
        "another place, or none if the same is there: {shown:?}"
    );
}

#[test]
fn a_misfiled_write_lands_in_another_file_and_never_in_the_hard_state() {
    let mut probe = Probe::with_log();
    let others = [File::Segment(2), File::HardState];
    for file in others {
        probe.run(create(file, 2 * SECTOR as u64)).unwrap();
    }
    probe.run(DiskRequest::SyncDirectory).unwrap();
    let mut struck = BTreeSet::new();
    for pick in (0..64).map(|n| n * 0x1_2345_6789) {
        let mut probe = probe.clone();
        let op = probe.submit(durable(0, &[9]));
        assert_eq!(probe.disk.complete_misfiled(op, pick), Ok(Completion::Done));
        probe.disk.cut_power(Survivors::All, &mut draw(0));
        assert_eq!(byte(probe.run(read(LOG, 0))), 0, "not where it belongs");
        let [other, promises] =
            others.map(|file| [0, 1].map(|sector| byte(probe.run(read(file, sector)))));
        assert_eq!(promises, [0, 0]);
        struck.insert(other);
    }
    assert!(struck.iter().eq(&[[0, 9], [9, 0]]), "either sector of the other one: {struck:?}");
}

#[test]
fn a_misfiled_write_lands_in_its_own_file_where_there_is_no_other() {
    let mut probe = Probe::with_log();
    let op = probe.submit(durable(0, &[9]));
    probe.disk.complete_misfiled(op, 1 << 16).unwrap();
    assert_eq!(probe.after_crash(Survivors::All, 0).unwrap()[..2], [0, 9]);
}

#[test]
fn names_that_a_sync_lost_are_made_durable_by_the_next() {
    let mut probe = Probe::with_log();
    assert!(!probe.disk.has_promised());
    probe.run(create(File::HardState, SECTOR as u64)).unwrap();
    let op = probe.submit(DiskRequest::SyncDirectory);
    assert_eq!(probe.disk.complete_falsely(op), Ok(Completion::Done));
    assert!(!probe.disk.has_promised());
    let mut cut = probe.clone();
    cut.disk.cut_power(Survivors::None, &mut draw(0));
    assert_eq!(cut.run(read(File::HardState, 0)), Err(DiskError::NotFound));
    probe.run(DiskRequest::SyncDirectory).unwrap();
    assert!(probe.disk.has_promised());
    probe.disk.cut_power(Survivors::None, &mut draw(0));
    assert_eq!(byte(probe.run(read(File::HardState, 0))), 0);
}
