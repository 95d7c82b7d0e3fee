//! The command line, and what of it cannot be meant.
//!
//! Knows no socket and no file. Invariant: what leaves here is consistent in itself; the rest is
//! refused with what was found, where, and what to write instead.

use crate::{
    addresses::{Addresses, Peers, parse_address, parse_addresses, parse_peer_address},
    log,
};
use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use lakebed::{Tuning, membership::MEMBERS_MAX};
use lakebed_kv::slots::GROUPS_MAX;
use lakebed_runtime::DiskKind;
use std::{env, fmt::Display, net::SocketAddr, path::PathBuf, time::Duration};

/// How much of its log each group of a node keeps in memory: as much as is on its way to a peer at most. Whoever lags
/// further is read to from disk; more would only drive the store out of the processor's caches.
const CACHE_BYTES_MAX: u64 = 16 << 20;

/// A replicated store that survives crashes, spoken to in RESP (redis-cli).
#[derive(Parser, Debug)]
#[command(name = "lakebed", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Start a cluster in this process, on loopback
    Up(Up),
    /// Run one node of a cluster
    Serve(Serve),
    /// Ask a node how it is
    Status(Status),
    /// Ask a node which groups its keys are spread over, who leads them, and how far they are
    Groups(Groups),
    /// Make a node take a snapshot now
    Snapshot(Snapshot),
    /// Take the state of a running cluster out of one of its nodes, into a file
    Backup(Backup),
    /// Let another node lead
    Transfer(Transfer),
    /// See, add, promote, demote, move, remove or replace nodes of a running cluster
    #[command(subcommand)]
    Member(Member),
    /// Make a node of a new cluster out of a backup
    Restore(Restore),
    /// Go on from one node that does not run, when a majority of the voters is lost for ever
    Recover(Recover),
    /// Tell what is in the directory of a node that does not run, and what a restart would do
    Inspect(Inspect),
    /// Read every byte that a node needs, and tell what is wrong
    Verify(Verify),
    /// Run whole clusters in simulated time, on disks that tear and links that break
    #[command(subcommand)]
    Sim(crate::sim::args::Sim),
    /// Replay a tape that a node recorded, or compare two, and name the first difference
    Tape(TapeArgs),
}

#[derive(clap::Args, Debug)]
pub(crate) struct TapeArgs {
    /// What `serve --tape` recorded
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Another tape to compare it with [default: what this build's engine does of the same events]
    #[arg(value_name = "OTHER")]
    pub(crate) other: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Up {
    /// How many nodes [default: 3, or as many as the directory has]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=MEMBERS_MAX as i64))]
    pub(crate) nodes: Option<u8>,
    /// Where the nodes keep their data, a folder each [default: lakebed in the user's data
    /// directory, such as ~/.local/share/lakebed]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// The first node's port for clients; the others' follow
    #[arg(long, default_value_t = 7401, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// The first node's port for peers, when the cluster is new [default: --port + 1000]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) peer_port: Option<u16>,
    /// Over how many groups, 1 to 64, each with a leader and a log of its own, the keys are spread; fixed when
    /// the cluster is made [default: 1, or as many as the directory has]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(GROUPS_MAX)))]
    pub(crate) groups: Option<u16>,
    /// Make the cluster out of what `lakebed backup` wrote; it is only read. With several groups: the
    /// name that it was given, which the files' names begin with. Or a directory that holds it alone
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) restore: Option<PathBuf>,
    /// The port at which Prometheus may ask how all nodes are: http://127.0.0.1:PORT/metrics
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) metrics_port: Option<u16>,
    #[command(flatten)]
    pub(crate) tuning: TuningArgs,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Serve {
    /// This node's id: one of those in --peers, or with --join a new one
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) id: u64,
    /// Where the node keeps its data; an empty directory is formatted for a new cluster
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Where to listen for peers
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub(crate) listen: SocketAddr,
    /// All nodes that the cluster is begun with, alike on all of them: 1=ADDR,2=ADDR,3=ADDR. They stay as they
    /// are, whoever joins or leaves later
    #[arg(long)]
    pub(crate) peers: Peers,
    /// Wait in an empty directory to be added to a cluster that was founded without this node
    /// (`lakebed member add`); --peers are those it was founded with
    #[arg(long)]
    pub(crate) join: bool,
    /// Where to listen for clients
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub(crate) resp: SocketAddr,
    /// The cluster's name, alike on all its nodes [default: --peers]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) cluster: Option<String>,
    /// The cluster's number instead, as cluster.json of `lakebed up` has it: to join that one
    #[arg(long, value_name = "ID", conflicts_with = "cluster", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) cluster_id: Option<u64>,
    /// Over how many groups, 1 to 64, each with a leader and a log of its own, the keys are spread; alike on
    /// all nodes, and fixed when the cluster is formed [default: 1, or as many as the directory has]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(GROUPS_MAX)))]
    pub(crate) groups: Option<u16>,
    /// Where Prometheus may ask how the node is: http://ADDR/metrics
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub(crate) metrics: Option<SocketAddr>,
    /// Listen on other addresses than loopback, though nothing is encrypted and nobody has to say who it
    /// is: whoever reaches the ports may read and write, and speak as one of the nodes
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Record all that the node decides by, for a bug report: every command and message, without
    /// end. A file that is there is left alone, and FILE.2, FILE.3 ... written; `lakebed tape`
    /// reads them
    #[arg(long, value_name = "FILE")]
    pub(crate) tape: Option<PathBuf>,
    /// How much longer than others this node waits before it stands for leader, in milliseconds:
    /// nodes with a second or more lead when those without are away
    #[arg(long, value_name = "MS", default_value_t = 0)]
    election_delay_ms: u64,
    #[command(flatten)]
    pub(crate) tuning: TuningArgs,
}

impl Serve {
    /// The node's timing and limits.
    pub(crate) fn tuning(&self) -> Tuning {
        let mut tuning = self.tuning.tuning();
        tuning.election_delay = Duration::from_millis(self.election_delay_ms);
        tuning
    }
}

#[derive(clap::Args, Debug)]
pub(crate) struct Status {
    /// Where the node listens for clients
    #[arg(value_name = "RESP-ADDR", value_parser = parse_address)]
    pub(crate) address: SocketAddr,
    /// One of several groups
    #[arg(long, value_name = "GROUP", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) group: Option<u64>,
    /// One JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Groups {
    /// Where the node listens for clients; or several, ADDR,ADDR,ADDR, of which the first that answers
    /// is asked
    #[arg(value_name = "RESP-ADDR", value_parser = parse_addresses)]
    pub(crate) addresses: Addresses,
    /// One JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which group is meant, where the keys are spread over several.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct OfGroup {
    /// One of several groups [default: each in turn]
    #[arg(long, value_name = "GROUP", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) group: Option<u64>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Snapshot {
    /// Where the node listens for clients
    #[arg(value_name = "RESP-ADDR", value_parser = parse_address)]
    pub(crate) address: SocketAddr,
    #[command(flatten)]
    pub(crate) of: OfGroup,
    /// One JSON object instead of a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Backup {
    /// Where a node, any of the cluster, listens for clients
    #[arg(value_name = "RESP-ADDR", value_parser = parse_address)]
    pub(crate) address: SocketAddr,
    /// Where to put the backup; a file that is there is left alone. Of several groups each has a
    /// file of its own: FILE.group-1 and so on
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) of: OfGroup,
    /// One JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Transfer {
    /// Where the leader listens for clients; of several groups those are handed over that it leads. Or several
    /// nodes, the leader among them: ADDR,ADDR,ADDR
    #[arg(value_name = "RESP-ADDR", value_parser = parse_addresses)]
    pub(crate) addresses: Addresses,
    #[command(flatten)]
    pub(crate) of: OfGroup,
    /// Who shall lead [default: the voter that is furthest]
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) to: Option<u64>,
    /// One JSON object instead of a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// What becomes of the members of a cluster.
#[derive(Subcommand, Debug)]
pub(crate) enum Member {
    /// Tell who is in it, and how far the leader knows them to be
    List(Ask),
    /// Add a node that waits with `lakebed serve --join`; it learns, and does not vote
    Add {
        #[command(flatten)]
        ask: Ask,
        /// The node's id, greater than any that was used before
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// Where it listens for peers; a name is kept as it is written, and looked up
        /// whenever a member connects
        #[arg(value_name = "PEER-ADDR", value_parser = parse_peer_address)]
        peer: String,
    },
    /// Give a learner a vote, once it has caught up
    Promote {
        #[command(flatten)]
        ask: Ask,
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
    },
    /// Take a voter its vote; it goes on to learn
    Demote {
        #[command(flatten)]
        ask: Ask,
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
    },
    /// Let a node go for good: its id is not used again, and it stops
    Remove {
        #[command(flatten)]
        ask: Ask,
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
    },
    /// Tell the others where a node listens for them now that was started again at another address
    Move {
        #[command(flatten)]
        ask: Ask,
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// Where it listens for peers now; a name is kept as it is written, and looked up
        /// whenever a member connects
        #[arg(value_name = "PEER-ADDR", value_parser = parse_peer_address)]
        peer: String,
    },
    /// Put a new node in an old one's place: add it, wait until it has caught up, then change both
    /// at once
    Replace {
        #[command(flatten)]
        ask: Ask,
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        old: u64,
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        new: u64,
        /// Where the new node listens for peers; a name is kept as it is written, and looked up
        /// whenever a member connects
        #[arg(value_name = "PEER-ADDR", value_parser = parse_peer_address)]
        peer: String,
    },
}

/// Whom to ask.
#[derive(clap::Args, Debug)]
pub(crate) struct Ask {
    /// Where the leader listens for clients; or several nodes, the leaders of all groups among them:
    /// ADDR,ADDR,ADDR
    #[arg(value_name = "RESP-ADDR", value_parser = parse_addresses)]
    pub(crate) addresses: Addresses,
    #[command(flatten)]
    pub(crate) of: OfGroup,
    /// One JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Restore {
    /// What `lakebed backup` wrote; it is only read. Of several groups: the name that it was given,
    /// which the files' names begin with; or a directory that holds one backup
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Over how many groups the keys are spread, as they were [default: as the backup says]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(GROUPS_MAX)))]
    pub(crate) groups: Option<u16>,
    /// Where the node will keep its data: an empty directory, or none yet
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The node's id: one of those in --peers
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) id: u64,
    /// All nodes of the new cluster, as for `lakebed serve`: 1=ADDR,2=ADDR,3=ADDR
    #[arg(long)]
    pub(crate) peers: Peers,
    /// The new cluster's name, as for `lakebed serve` [default: --peers]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) cluster: Option<String>,
    /// Refuse a backup of any other cluster than this, as `lakebed backup` has called it
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) of: Option<u64>,
    /// One JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Recover {
    /// The directory of the survivor that has come furthest
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Make it the only voter: acknowledged writes that it lacks are lost, and no other member of
    /// before can come back
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// With --yes: also where the node itself knows of entries that it lacks
    #[arg(long, requires = "yes")]
    pub(crate) accept_known_loss: bool,
    /// With --yes: also where something answers at another member's address
    #[arg(long, requires = "yes")]
    pub(crate) though_others_answer: bool,
    /// One JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Inspect {
    /// The node's directory; nothing in it is changed
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// One JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Verify {
    /// The node's directory, or what `lakebed backup` wrote; nothing in it is changed
    #[arg(value_name = "DIR|FILE")]
    pub(crate) dir: PathBuf,
    /// One JSON object instead of lines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct TuningArgs {
    /// How to write: auto, files (threads that write and sync) or uring (the kernel's queue)
    #[arg(long, default_value = "auto")]
    pub(crate) disk: DiskKind,
    /// How often an idle leader is heard of
    #[arg(long, hide = true, value_name = "MS")]
    heartbeat_ms: Option<u64>,
    /// The least silence after which a follower campaigns; the most is twice that
    #[arg(long, hide = true, value_name = "MS")]
    election_ms: Option<u64>,
    /// How many bytes of log make a snapshot worth its while
    #[arg(long, hide = true, value_name = "BYTES")]
    snapshot_log_bytes: Option<u64>,
    /// How many seconds old a snapshot may grow before the next is taken, if there is news; the log
    /// may demand one before [default: only the log does]
    #[arg(long, hide = true, value_name = "SECONDS")]
    snapshot_age: Option<u64>,
    /// How many bytes of log are kept for members that lag, before they are sent a snapshot
    #[arg(long, hide = true, value_name = "BYTES")]
    retain_log_bytes: Option<u64>,
    /// How many bytes of log are kept behind a snapshot that is being sent, at most; where more is written
    /// meanwhile, the newest is sent instead [default: 8 GiB]
    #[arg(long, value_name = "BYTES")]
    transfer_log_bytes: Option<u64>,
    /// How many bytes of snapshots a leader sends in a second, at most and evenly, so that those who write
    /// meanwhile notice little; zero: no limit [default: 0]
    #[arg(long, value_name = "BYTES")]
    transfer_bytes_per_second: Option<u64>,
    /// In how many hours log and snapshots are read again, slowly, to find what went bad on the disk
    /// while there is another one; zero: never
    #[arg(long, value_name = "HOURS", default_value_t = 168)]
    scrub_hours: u32,
    /// Answer reads under the leader's lease, if no two nodes' clocks drift apart by more than this,
    /// in parts per million, 1 at least; alike on all nodes [default: no lease, reads ask a majority]
    #[arg(long, value_name = "PPM", value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    lease_drift_ppm: Option<u32>,
}

impl TuningArgs {
    /// Groups share the threads that write for them.
    pub(crate) fn check_for_groups(&self) {
        if self.disk == DiskKind::Uring {
            refuse("--disk uring writes for one group: with --groups it is files, or auto");
        }
    }

    /// The node's timing and limits.
    pub(crate) fn tuning(&self) -> Tuning {
        let mut tuning = Tuning::default();
        tuning.cache_bytes_max = CACHE_BYTES_MAX;
        if let Some(heartbeat) = self.heartbeat_ms {
            tuning.heartbeat = Duration::from_millis(heartbeat);
        }
        if let Some(election) = self.election_ms {
            let least = Duration::from_millis(election);
            tuning.election = (least, least * 2);
        }
        if let Some(bytes) = self.snapshot_log_bytes {
            tuning.snapshot_log_bytes = bytes;
        }
        if let Some(seconds) = self.snapshot_age {
            tuning.snapshot_age = Duration::from_secs(seconds);
        }
        if let Some(bytes) = self.retain_log_bytes {
            tuning.retain_log_bytes = bytes;
        }
        if let Some(bytes) = self.transfer_log_bytes {
            tuning.transfer_log_bytes_max = bytes;
        }
        if let Some(bytes) = self.transfer_bytes_per_second {
            tuning.transfer_bytes_per_second = bytes;
        }
        tuning.lease_drift_ppm = self.lease_drift_ppm;
        tuning.scrub_interval = Duration::from_secs(60 * 60) * self.scrub_hours;
        if let Err(error) = tuning.validate() {
            refuse(error);
        }
        tuning
    }
}

/// Ends the process as clap does when it is clap who finds the mistake.
pub(crate) fn refuse(why: impl Display) -> ! {
    log::flush();
    let mut command = Args::command();
    command.build();
    // The subcommand that was given: its usage is shown.
    for word in env::args_os().skip(1) {
        let Some(named) = command.find_subcommand(&word) else { break };
        command = named.clone();
    }
    command.error(ErrorKind::ValueValidation, why).exit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
