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

/// The slots and the room of each peer that had ever lagged were kept.
#[test]
fn a_reader_is_forgotten_when_it_is_no_member_any_more() {
    let mut node = Node::start(Disk::default(), format());
    node.append_all(1, sizes());
    let member = |id| Member { id: NodeId(id), incarnation: 0, address: Bytes::new() };
    let of = |ids: [u64; 2]| Arc::new(Membership::of(ids.map(member)));
    for id in 2..50 {
        for reader in [Reader::Peer(NodeId(id)), Reader::Refill(NodeId(id))] {
            node.storage.read(reader, LogIndex(1), LogIndex(9), 1000);
            node.settle();
            assert_eq!(node.storage.take_read().map(|(reader, _)| reader), Some(reader));
        }
        node.storage.set_membership(of([1, id + 1]), of([1, id]));
        node.settle();
    }
    assert_eq!(node.storage.reads.readers.len(), 2);
    assert_eq!(node.read(1).len(), 300, "others read on");
}
