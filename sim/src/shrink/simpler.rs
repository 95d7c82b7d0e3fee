//! What is simpler than a setting or a fault.

use crate::{
    disk::Survivors,
    plan::{FaultKind, Moment, Plan, Step},
};

/// Each makes one group of settings calm, or lets less be needed for the same.
pub(super) const SETTINGS: [fn(&mut Plan, &Plan); 29] = [
    |plan, calm| plan.links = calm.links,
    |plan, calm| plan.disk = calm.disk,
    |plan, calm| plan.drift_ppm.clone_from(&calm.drift_ppm),
    |plan, calm| plan.tuning = calm.tuning.clone(),
    |plan, calm| plan.think = calm.think,
    |plan, calm| plan.manner = calm.manner,
    |plan, calm| plan.manner.batch = calm.manner.batch,
    |plan, calm| plan.manner.readers = calm.manner.readers,
    |plan, calm| plan.keeps = calm.keeps,
    |plan, calm| plan.sessions = calm.sessions,
    |plan, calm| plan.minority = calm.minority,
    |plan, _| plan.minority.iter_mut().for_each(|minority| minority.most = 1),
    |plan, _| plan.sessions.iter_mut().for_each(|sessions| sessions.early = 0),
    |plan, calm| plan.segment_bytes = calm.segment_bytes,
    |plan, calm| plan.first_segment_bytes = calm.first_segment_bytes,
    |plan, calm| plan.geometry = calm.geometry,
    |plan, _| plan.geometry.tears = false,
    |plan, _| plan.geometry.sync_names = false,
    |plan, _| plan.links.loss = 0,
    |plan, _| plan.links.duplicate = 0,
    |plan, _| plan.links.reorder = false,
    |plan, _| plan.links.silent = false,
    |plan, calm| plan.links.latency = calm.links.latency,
    |plan, calm| plan.disk.read = calm.disk.read,
    |plan, calm| plan.disk.write = calm.disk.write,
    |plan, calm| plan.disk.sync = calm.disk.sync,
    |plan, _| plan.tuning.append_bytes_max = plan.tuning.append_bytes_max.min(1 << 10),
    |plan, _| plan.segment_bytes = plan.segment_bytes.min(8 << 10),
    |plan, _| {
        plan.tuning.snapshot_log_bytes = plan.tuning.snapshot_log_bytes.min(1 << 10);
    },
];

/// Takes a node away, and the faults that are about it alone; those behind it move up.
pub(super) fn remove_node(plan: &mut Plan, node: usize) {
    if node >= plan.nodes - plan.joining {
        plan.joining -= 1;
    }
    plan.nodes -= 1;
    plan.drift_ppm.remove(node);
    plan.faults.retain(|fault| !fault.kind.is_about(node));
    for fault in &mut plan.faults {
        match &mut fault.kind {
            FaultKind::PowerCut { nodes, .. } => {
                nodes.retain(|of| *of != node);
                nodes.iter_mut().for_each(|of| move_up(of, node));
            }
            FaultKind::Partition { side, .. } => drop(side.remove(node)),
            FaultKind::SlowLink { from, to, .. } => {
                move_up(from, node);
                move_up(to, node);
            }
            FaultKind::Change { steps } => {
                steps.0.retain(|&(mut step)| step.node_mut().is_none_or(|of| *of != node));
                steps.0.iter_mut().filter_map(Step::node_mut).for_each(|of| move_up(of, node));
            }
            kind => {
                if let Some(of) = kind.node_mut() {
                    move_up(of, node);
                }
            }
        }
    }
    // A change of which nothing is left is none, and could not be written down.
    let is_empty =
        |kind: &FaultKind| matches!(kind, FaultKind::Change { steps } if steps.0.is_empty());
    plan.faults.retain(|fault| !is_empty(&fault.kind));
}

const fn move_up(of: &mut usize, gone: usize) {
    if *of > gone {
        *of -= 1;
    }
}

/// How long a fault lasts, or how long a node is down after it.
pub(super) const fn lasting(kind: &mut FaultKind) -> Option<&mut u64> {
    match kind {
        FaultKind::PowerCut { down, .. }
        | FaultKind::PowerCutAt { down, .. }
        | FaultKind::KillAt { down, .. }
        | FaultKind::KillAndCut { down, .. }
        | FaultKind::Flip { down, .. }
        | FaultKind::Kill { down, .. }
        | FaultKind::UnheardFailure { down, .. }
        | FaultKind::Damage { down, .. }
        | FaultKind::Ruin { down, .. }
        | FaultKind::DiskGone { down, .. } => Some(down),
        FaultKind::Partition { lasts, .. }
        | FaultKind::DiskFull { lasts, .. }
        | FaultKind::SlowDisk { lasts, .. }
        | FaultKind::HungDisk { lasts, .. }
        | FaultKind::Pause { lasts, .. }
        | FaultKind::StalledClock { lasts, .. }
        | FaultKind::Isolated { lasts, .. }
        | FaultKind::SlowLink { lasts, .. }
        | FaultKind::OldImage { lasts, .. } => Some(lasts),
        FaultKind::SyncFailure { .. }
        | FaultKind::FailAt { .. }
        | FaultKind::Stop { .. }
        | FaultKind::Transfer { .. }
        | FaultKind::BackUp { .. }
        | FaultKind::Change { .. }
        | FaultKind::Tune { .. }
        | FaultKind::Times { .. }
        | FaultKind::FailedOperation { .. }
        | FaultKind::SetClock { .. }
        | FaultKind::Rot { .. }
        | FaultKind::LostWrite { .. }
        | FaultKind::MisdirectedWrite { .. }
        | FaultKind::MisfiledWrite { .. }
        | FaultKind::LostNames { .. }
        | FaultKind::LateReport { .. }
        | FaultKind::MisdirectedRead { .. } => None,
    }
}

/// The same kind of fault with less to it, the simplest first.
pub(super) fn kinds(kind: &FaultKind) -> Vec<FaultKind> {
    let mut kinds = match kind {
        FaultKind::PowerCut { nodes, moment, survivors, rot, down } => {
            power_cuts(nodes, *moment, *survivors, *rot, *down)
        }
        FaultKind::Partition { side, lasts, .. } => {
            let (side, lasts) = (side.clone(), *lasts);
            vec![FaultKind::Partition { side, both_ways: true, noticed: true, lasts }]
        }
        FaultKind::Isolated { node, lasts, .. } => {
            vec![FaultKind::Isolated { node: *node, noticed: true, lasts: *lasts }]
        }
        FaultKind::SlowLink { from, to, lasts, .. } => {
            let (from, to, lasts) = (*from, *to, *lasts);
            vec![FaultKind::SlowLink { from, to, bytes_per_ms: 0, lasts }]
        }
        FaultKind::Damage { node, part, harm, pick, down, .. } => {
            let (node, part, harm, pick, down) = (*node, *part, *harm, *pick, *down);
            let survivors = Survivors::None;
            vec![FaultKind::Damage { node, part, harm, pick, survivors, down }]
        }
        FaultKind::SetClock { node, by_ms } => {
            let less = [by_ms.signum(), by_ms / 1_000, by_ms / 2];
            less.map(|by_ms| FaultKind::SetClock { node: *node, by_ms }).into()
        }
        _ => Vec::new(),
    };
    kinds.retain(|simpler| details(simpler) < details(kind));
    kinds.sort_by_key(details);
    kinds
}

fn power_cuts(
    nodes: &[usize],
    moment: Moment,
    survivors: Survivors,
    rot: Option<u8>,
    down: u64,
) -> Vec<FaultKind> {
    let mut cuts = Vec::new();
    for survivors in [Survivors::None, Survivors::All, survivors] {
        for moment in [Moment::Pending, moment] {
            for rot in [None, rot] {
                for nodes in fewer(nodes) {
                    cuts.push(FaultKind::PowerCut { nodes, moment, survivors, rot, down });
                }
            }
        }
    }
    cuts
}

/// How much there is to a fault.
fn details(kind: &FaultKind) -> usize {
    match kind {
        FaultKind::PowerCut { nodes, moment, survivors, rot, .. } => {
            let special = match survivors {
                Survivors::None => 0,
                Survivors::All => 1,
                _ => 2,
            };
            let moment = usize::from(*moment != Moment::Pending);
            nodes.len() + special + moment + usize::from(rot.is_some())
        }
        FaultKind::Partition { both_ways, noticed, .. } => {
            usize::from(!both_ways) + usize::from(!noticed)
        }
        FaultKind::Damage { survivors, .. } => usize::from(*survivors != Survivors::None),
        FaultKind::Isolated { noticed, .. } => usize::from(!noticed),
        FaultKind::SlowLink { bytes_per_ms, .. } => usize::from(*bytes_per_ms > 0),
        FaultKind::SetClock { by_ms, .. } => by_ms.unsigned_abs() as usize,
        _ => 0,
    }
}

/// Single nodes of some, then all of them.
fn fewer(nodes: &[usize]) -> Vec<Vec<usize>> {
    let mut fewer: Vec<Vec<usize>> = nodes.iter().map(|node| vec![*node]).collect();
    if nodes.len() > 1 {
        fewer.push(nodes.to_vec());
    }
    fewer
}
