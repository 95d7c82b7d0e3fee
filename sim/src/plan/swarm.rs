//! From a seed to the faults of a storm: which kinds exist at all, how often, and when.

use super::{Fault, FaultKind, Harm, MS, Moment, Part, Retuning, Times, US, site::Site};
use crate::{
    disk::{EIO, Failure, Survivors, Victim},
    prng::Draw,
};
use lakebed::DiskError;

/// Draws the faults of a storm: each kind in a lane of its own, so that taking one kind away
/// leaves the others as they were.
pub(super) struct Faults {
    seed: u64,
    nodes: usize,
    list: Vec<Fault>,
}

/// Whether answers come late in a storm: in those without a lease, or without somebody who only reads, it
/// would be seen by nobody.
pub(super) fn answers_come_late(seed: u64) -> bool {
    Site::LateAnswers.draw(seed).ratio(1, 4)
}

impl Faults {
    pub(super) const fn new(seed: u64, nodes: usize) -> Self {
        Self { seed, nodes, list: Vec::new() }
    }

    pub(super) fn draw(mut self) -> Vec<Fault> {
        self.power_cuts();
        self.kills();
        self.recoveries();
        self.partitions();
        self.disks();
        self.stops();
        self.early();
        self.gray();
        self.sluggish();
        self.hung();
        self.hung_stops();
        self.operations();
        self.names();
        self.pauses();
        self.clocks();
        self.isolations();
        self.flapping();
        self.slow_links();
        self.damage();
        self.bad_entries();
        self.transfers();
        self.backups();
        self.tunes();
        self.times();
        self.late_answers();
        self.list.sort_by_key(|fault| fault.at);
        self.list
    }

    fn lane(&self, site: Site) -> Draw {
        site.draw(self.seed)
    }

    fn at(draw: &mut Draw) -> u64 {
        draw.between(100 * MS, 1_500 * MS)
    }

    fn add(&mut self, at: u64, kind: FaultKind) {
        self.list.push(Fault { at, kind });
    }

    /// At least two in every run: that is what a storm is for.
    fn power_cuts(&mut self) {
        let mut draw = self.lane(Site::PowerCuts);
        for _ in 0..draw.between(3, 7) {
            let nodes = self.some_nodes(&mut draw);
            let moments =
                [Moment::Pending, Moment::Pending, Moment::PendingHardState, Moment::PendingName];
            let moment = *draw.pick(&moments);
            let survivors = *draw.pick(&Survivors::ALL);
            let rot = draw.ratio(1, 4).then(|| draw.below(2) as u8);
            let down = draw.delay(MS, 60 * MS);
            let kind = FaultKind::PowerCut { nodes, moment, survivors, rot, down };
            self.add(Self::at(&mut draw), kind);
        }
    }

    /// One node, rarely a majority or all.
    fn some_nodes(&self, draw: &mut Draw) -> Vec<usize> {
        let first = draw.below(self.nodes as u64) as usize;
        let count = match draw.below(8) {
            0 => self.nodes,
            1 => self.nodes / 2 + 1,
            _ => 1,
        };
        (0..count).map(|n| (first + n) % self.nodes).collect()
    }

    fn kills(&mut self) {
        let mut draw = self.lane(Site::Kills);
        if draw.ratio(1, 2) {
            for _ in 0..draw.between(1, 4) {
                let node = draw.below(self.nodes as u64) as usize;
                let down = draw.delay(MS, 40 * MS);
                self.add(Self::at(&mut draw), FaultKind::Kill { node, down });
            }
        }
    }

    /// A node falls again while it recovers from a process that was killed, whose names and bytes the
    /// cache alone may hold.
    fn recoveries(&mut self) {
        let mut draw = self.lane(Site::Recoveries);
        if !draw.ratio(1, 2) {
            return;
        }
        for _ in 0..draw.between(1, 4) {
            let node = draw.below(self.nodes as u64) as usize;
            let (at, down) = (Self::at(&mut draw), draw.delay(MS, 20 * MS));
            let moment = *draw.pick(&[Moment::PendingName, Moment::PendingName, Moment::Pending]);
            let survivors = *draw.pick(&Survivors::ALL);
            self.add(at, FaultKind::KillAndCut { node, moment, survivors, down });
        }
    }

    fn partitions(&mut self) {
        let mut draw = self.lane(Site::Partitions);
        if self.nodes > 1 && draw.ratio(3, 4) {
            for _ in 0..draw.between(1, 4) {
                let kind = FaultKind::Partition {
                    side: self.side(&mut draw),
                    both_ways: draw.ratio(2, 3),
                    noticed: draw.ratio(1, 2),
                    lasts: draw.delay(20 * MS, 150 * MS),
                };
                self.add(Self::at(&mut draw), kind);
            }
        }
    }

    /// Mostly one node alone: nine in ten failures by partition need no more.
    fn side(&self, draw: &mut Draw) -> Vec<bool> {
        let alone = draw.below(self.nodes as u64) as usize;
        let mut side: Vec<bool> = (0..self.nodes).map(|node| node == alone).collect();
        if draw.ratio(1, 3) {
            side.iter_mut().for_each(|first| *first = draw.ratio(1, 2));
        }
        if draw.ratio(1, 2) {
            side.iter_mut().for_each(|first| *first = !*first);
        }
        side
    }

    fn disks(&mut self) {
        let mut draw = self.lane(Site::Disks);
        let node = draw.below(self.nodes as u64) as usize;
        if draw.ratio(1, 5) {
            let errors = [
                Failure::CleanKeep,
                Failure::CleanRevert,
                Failure::Nothing(DiskError::Io { errno: EIO }),
            ];
            let failure = *draw.pick(&errors);
            self.add(Self::at(&mut draw), FaultKind::SyncFailure { node, failure });
        }
        if draw.ratio(1, 6) {
            let lasts = draw.delay(50 * MS, 200 * MS);
            self.add(Self::at(&mut draw), FaultKind::DiskFull { node, lasts });
        }
        if draw.ratio(1, 4) {
            let (factor, lasts) = (draw.between(5, 50), draw.delay(20 * MS, 100 * MS));
            self.add(Self::at(&mut draw), FaultKind::SlowDisk { node, factor, lasts });
        }
    }

    /// While nodes are still being built and the cluster forms.
    fn early(&mut self) {
        let mut draw = self.lane(Site::Early);
        if draw.ratio(1, 8) {
            let (nodes, at) = (self.some_nodes(&mut draw), draw.below(15 * MS));
            let survivors = *draw.pick(&Survivors::ALL);
            let (moment, rot, down) = (Moment::Pending, None, draw.delay(MS, 5 * MS));
            self.add(at, FaultKind::PowerCut { nodes, moment, survivors, rot, down });
        }
    }

    /// A node that nobody hears and whose disk is slow: what it has on its way when it is heard
    /// again, others have replaced.
    fn gray(&mut self) {
        let mut draw = self.lane(Site::Gray);
        if self.nodes > 1 && draw.ratio(1, 4) {
            let (at, node) = (Self::at(&mut draw), draw.below(self.nodes as u64) as usize);
            let (lasts, factor) = (draw.delay(60 * MS, 60 * MS), draw.between(20, 100));
            let side = (0..self.nodes).map(|of| of == node).collect();
            let noticed = draw.ratio(1, 2);
            self.add(at, FaultKind::Partition { side, both_ways: true, noticed, lasts });
            let lasts = lasts + draw.delay(20 * MS, 60 * MS);
            self.add(at, FaultKind::SlowDisk { node, factor, lasts });
        }
    }

    /// A disk that is slow for long, and ends all that it is given: others commit without it, also when
    /// its node leads.
    fn sluggish(&mut self) {
        let mut draw = self.lane(Site::Sluggish);
        if draw.ratio(1, 5) {
            let (at, node) = (Self::at(&mut draw), draw.below(self.nodes as u64) as usize);
            let (factor, lasts) = (draw.between(10, 60), draw.between(200 * MS, 600 * MS));
            self.add(at, FaultKind::SlowDisk { node, factor, lasts });
        }
    }

    fn stops(&mut self) {
        let mut draw = self.lane(Site::Stops);
        if draw.ratio(1, 4) {
            let node = draw.below(self.nodes as u64) as usize;
            let hand_over = draw.ratio(1, 2);
            self.add(Self::at(&mut draw), FaultKind::Stop { node, hand_over });
        }
    }

    fn node(&self, draw: &mut Draw) -> usize {
        draw.below(self.nodes as u64) as usize
    }

    fn hung(&mut self) {
        let mut draw = self.lane(Site::Hung);
        if draw.ratio(1, 6) {
            let (node, lasts) = (self.node(&mut draw), draw.delay(30 * MS, 100 * MS));
            self.add(Self::at(&mut draw), FaultKind::HungDisk { node, lasts });
        }
    }

    /// A node is asked to stop whose disk hangs for longer than it waits for it.
    fn hung_stops(&mut self) {
        let mut draw = self.lane(Site::HungStops);
        if draw.ratio(1, 8) {
            let (node, at) = (self.node(&mut draw), draw.between(100 * MS, 700 * MS));
            self.add(at, FaultKind::HungDisk { node, lasts: 700 * MS });
            let hand_over = draw.ratio(1, 2);
            self.add(at + draw.below(80 * MS), FaultKind::Stop { node, hand_over });
        }
    }

    /// Single operations that fail, and of which a part may have been done.
    fn operations(&mut self) {
        let mut draw = self.lane(Site::Operations);
        if draw.ratio(1, 4) {
            for _ in 0..draw.between(1, 3) {
                let node = self.node(&mut draw);
                let victim = *draw.pick(&[Victim::Write, Victim::Create, Victim::Read]);
                let full = draw.ratio(1, 2) && victim != Victim::Read;
                let error = if full { DiskError::Full } else { DiskError::Io { errno: EIO } };
                let kind = FaultKind::FailedOperation { node, victim, error };
                self.add(Self::at(&mut draw), kind);
            }
        }
    }

    /// Names that are not changed, or not durably.
    fn names(&mut self) {
        let mut draw = self.lane(Site::Names);
        if draw.ratio(1, 6) {
            for _ in 0..draw.between(1, 2) {
                let node = self.node(&mut draw);
                let victim = *draw.pick(&[Victim::Rename, Victim::Remove, Victim::SyncDirectory]);
                let full = draw.ratio(1, 4) && victim == Victim::Rename;
                let error = if full { DiskError::Full } else { DiskError::Io { errno: EIO } };
                let kind = FaultKind::FailedOperation { node, victim, error };
                self.add(Self::at(&mut draw), kind);
            }
        }
    }

    fn pauses(&mut self) {
        let mut draw = self.lane(Site::Pauses);
        if draw.ratio(1, 4) {
            for _ in 0..draw.between(1, 3) {
                let (node, lasts) = (self.node(&mut draw), draw.delay(5 * MS, 60 * MS));
                self.add(Self::at(&mut draw), FaultKind::Pause { node, lasts });
            }
        }
    }

    /// Wall clocks are set by up to a day; the others stand still.
    fn clocks(&mut self) {
        const DAY_MS: u64 = 86_400_000;
        let mut draw = self.lane(Site::Clocks);
        if draw.ratio(1, 6) {
            let by = draw.delay(1, 10_000).min(DAY_MS) as i64 * *draw.pick(&[1, 1_000]);
            let (node, by_ms) = (self.node(&mut draw), *draw.pick(&[by, -by]));
            self.add(Self::at(&mut draw), FaultKind::SetClock { node, by_ms });
        }
        if draw.ratio(1, 6) {
            let (node, lasts) = (self.node(&mut draw), draw.delay(10 * MS, 100 * MS));
            self.add(Self::at(&mut draw), FaultKind::StalledClock { node, lasts });
        }
    }

    /// Whoever leads is to hand over to one of them, whether or not that one can lead.
    fn transfers(&mut self) {
        let mut draw = self.lane(Site::Transfers);
        if self.nodes > 1 && draw.ratio(1, 3) {
            for _ in 0..draw.between(1, 4) {
                let heir = self.node(&mut draw);
                self.add(Self::at(&mut draw), FaultKind::Transfer { node: heir });
            }
        }
    }

    /// Somebody takes backups, quickly or slowly.
    fn backups(&mut self) {
        let mut draw = self.lane(Site::BackUps);
        if draw.ratio(1, 3) {
            for _ in 0..draw.between(1, 5) {
                let (node, least) = (self.node(&mut draw), *draw.pick(&[50 * US, MS, 20 * MS]));
                let pause = draw.delay(least, least);
                self.add(Self::at(&mut draw), FaultKind::BackUp { node, pause });
            }
        }
    }

    /// Whoever runs the cluster has other wishes, for one node after the other.
    fn tunes(&mut self) {
        let mut draw = self.lane(Site::Tunes);
        if draw.ratio(1, 4) {
            for _ in 0..draw.between(1, 5) {
                let (node, to) = (self.node(&mut draw), Retuning::drawn(&mut draw));
                self.add(Self::at(&mut draw), FaultKind::Tune { node, to });
            }
        }
    }

    /// And others for all of them.
    fn times(&mut self) {
        let mut draw = self.lane(Site::Times);
        if draw.ratio(1, 8) {
            for _ in 0..draw.between(1, 3) {
                let to = Times::drawn(&mut draw);
                self.add(Self::at(&mut draw), FaultKind::Times { to });
            }
        }
    }

    /// Nodes alone, one after the other and beside each other, heard again in any order.
    fn isolations(&mut self) {
        let mut draw = self.lane(Site::Isolations);
        if self.nodes > 1 && draw.ratio(1, 5) {
            let (from, first) = (Self::at(&mut draw), self.node(&mut draw));
            for n in 0..draw.between(1, self.nodes as u64) as usize {
                let (node, noticed) = ((first + n) % self.nodes, draw.ratio(1, 2));
                let at = from + draw.below(80 * MS);
                let lasts = draw.delay(20 * MS, 60 * MS);
                self.add(at, FaultKind::Isolated { node, noticed, lasts });
            }
        }
    }

    /// The same partition, on and off.
    fn flapping(&mut self) {
        let mut draw = self.lane(Site::Flapping);
        if self.nodes > 1 && draw.ratio(1, 6) {
            let (mut at, side) = (Self::at(&mut draw), self.side(&mut draw));
            let (both_ways, noticed) = (draw.ratio(2, 3), draw.ratio(1, 2));
            for _ in 0..draw.between(3, 8) {
                let (side, lasts) = (side.clone(), draw.delay(2 * MS, 10 * MS));
                self.add(at, FaultKind::Partition { side, both_ways, noticed, lasts });
                at += lasts + draw.delay(2 * MS, 10 * MS);
            }
        }
    }

    /// One direction, or what one node sends to all.
    fn slow_links(&mut self) {
        let mut draw = self.lane(Site::SlowLinks);
        if self.nodes > 1 && draw.ratio(1, 5) {
            let (at, from) = (Self::at(&mut draw), self.node(&mut draw));
            let bytes_per_ms = *draw.pick(&[0, 4, 32, 256]);
            let lasts = draw.delay(20 * MS, 100 * MS);
            let others = if draw.ratio(1, 2) { self.nodes - 1 } else { 1 };
            for n in 1..=others {
                let to = (from + n) % self.nodes;
                self.add(at, FaultKind::SlowLink { from, to, bytes_per_ms, lasts });
            }
        }
    }

    /// What all others answer to one node takes ever longer, and then nobody hears it any more, while it is
    /// still told what they said before.
    fn late_answers(&mut self) {
        let mut draw = self.lane(Site::LateAnswers);
        let is_drawn = draw.ratio(1, 4);
        if self.nodes > 1 && is_drawn {
            let (first, bytes_per_ms) = (self.node(&mut draw), *draw.pick(&[4, 16, 32]));
            let mut at = draw.between(100 * MS, 500 * MS);
            // One after the other, as one of them leads.
            for turn in 0..self.nodes.min(3) {
                let (to, lasts) = ((first + turn) % self.nodes, draw.delay(150 * MS, 60 * MS));
                for n in 1..self.nodes {
                    let from = (to + n) % self.nodes;
                    self.add(at, FaultKind::SlowLink { from, to, bytes_per_ms, lasts });
                }
                let side = (0..self.nodes).map(|node| node == to).collect();
                let parted = at + draw.delay(10 * MS, 20 * MS);
                let (both_ways, noticed) = (false, false);
                self.add(parted, FaultKind::Partition { side, both_ways, noticed, lasts });
                at += 400 * MS;
            }
        }
    }

    /// What a node has twice is damaged, once.
    fn damage(&mut self) {
        let mut draw = self.lane(Site::Damage);
        if draw.ratio(1, 3) {
            for _ in 0..draw.between(1, 4) {
                let parts = [Part::Slots, Part::Header, Part::EndRecord, Part::Snapshot];
                let kind = FaultKind::Damage {
                    node: self.node(&mut draw),
                    part: *draw.pick(&parts),
                    harm: *draw.pick(&[Harm::Rot, Harm::Zero]),
                    pick: draw.any(),
                    survivors: *draw.pick(&Survivors::ALL),
                    down: draw.delay(MS, 40 * MS),
                };
                self.add(Self::at(&mut draw), kind);
            }
        }
    }

    /// Entries that others hold are damaged; in half of the runs the oldest, on one node and then, as far
    /// as the budget goes, on another.
    fn bad_entries(&mut self) {
        let mut draw = self.lane(Site::BadEntries);
        let places = if self.lane(Site::SameEntries).ratio(1, 2) { 2 } else { u64::MAX };
        if self.nodes > 1 && draw.ratio(1, 4) {
            for _ in 0..draw.between(1, 5) {
                let kind = FaultKind::Damage {
                    node: self.node(&mut draw),
                    part: Part::Entries,
                    harm: *draw.pick(&[Harm::Rot, Harm::Zero]),
                    pick: draw.any() % places,
                    survivors: *draw.pick(&Survivors::ALL),
                    down: draw.delay(MS, 40 * MS),
                };
                self.add(Self::at(&mut draw), kind);
            }
        }
    }
}
