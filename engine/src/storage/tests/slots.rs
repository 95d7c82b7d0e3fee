//! An entry and its slot are two witnesses of one thing, or of none.

use super::*;

/// Same place, length, term and predecessor: only what it holds is another. As if the write of the entry
/// was lost, and what lay there before was no worse.
#[test]
fn another_entry_under_a_slot_is_torn() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, [40, 50, 60]);
    let before = node.last;
    let fork = |body: u8| {
        let mut node = Node::start(node.disk.clone(), Start::Run);
        let id = LogId::new(Term(1), before.index.next());
        let (seed, batch) = (node.recovered().seed, Batch::one(&[body; 70]));
        let (head, frame) = batch.seal(seed, id, before.term, Timestamp(9));
        node.storage.append(head, frame, 0);
        node.settle();
        assert_eq!(node.storage.durable(), id.index);
        let active = node.storage.journal.active.as_ref().expect("it was written to");
        let slot = *active.slot(id.index).expect("it has one");
        (node.disk, File::Segment(active.sequence), slot)
    };
    let ((mut disk, file, slot), (other, other_file, other_slot)) = (fork(1), fork(2));
    assert_eq!((file, slot.offset, slot.end()), (other_file, other_slot.offset, other_slot.end()));
    assert_ne!(slot.digest, other_slot.digest);
    let last = |disk: &Disk| Node::start(disk.clone(), Start::Run).recovered().last;
    assert_eq!(last(&disk), slot.id);
    let at = slot.offset as usize..slot.end() as usize;
    let entry = other.files[&file][at.clone()].to_vec();
    disk.files.get_mut(&file).expect("it is there")[at].copy_from_slice(&entry);
    assert_eq!(last(&disk), before);
}
