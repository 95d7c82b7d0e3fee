//! Several groups beside one: three nodes in one process, each on its own thread and directory,
//! talking over loopback, durable on all of them. The same clients with the same commands of 256
//! bytes go to one group, or are spread over several.
//!
//! ```text
//! cargo bench -p lakebed-runtime --bench groups [-- [DIR]]    throughput; the ratio is that of rounds
//!                                                             of the same seconds, to one group
//! cargo bench -p lakebed-runtime --bench groups -- idle [N [DIR]]   the processor's time for N groups
//!                                                             in which nothing happens, and what memory
//!                                                             and disk each of them takes on a node
//! ```

mod machine;

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use lakebed::{Batch, ClusterId, Config, GroupId, NodeId, Role};
use lakebed_runtime::{DiskKind, Groups, GroupsNode, GroupsOptions, Handle, Listen, Node, Options};
use machine::{COMMAND, Count};
use std::{
    fs,
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const NODES: u64 = 3;
/// Of one store with one load.
const RUN: Duration = Duration::from_millis(700);
const ROUNDS: usize = 5;
/// Commands of a batch, and clients, each of which waits for its answer.
const LOADS: [(u32, usize); 4] = [(1, 64), (1, 1024), (16, 64), (256, 64)];
const CLUSTER: ClusterId = ClusterId(1);

/// What serves: a node that has one group and no host, or a node of groups.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Node,
    Groups(u64),
}

struct Store {
    name: String,
    /// By group, node by node.
    handles: Vec<Vec<Handle>>,
    groups: Vec<(Groups, JoinHandle<()>)>,
}

impl Store {
    fn start(kind: Kind, dir: &Path) -> Self {
        let bind = |_| TcpListener::bind("127.0.0.1:0").expect("a port");
        let listeners: Vec<_> = (0..NODES).map(bind).collect();
        let address = |l: &TcpListener| l.local_addr().expect("it is bound").to_string();
        let addresses: Vec<String> = listeners.iter().map(address).collect();
        let members = || (1..).zip(addresses.iter().map(String::as_str));
        let places = (1..).map(|id: u64| (id, dir.join(id.to_string())));
        let mut store = Self { name: "one node".into(), handles: vec![Vec::new()], groups: vec![] };
        for ((id, dir), listener) in places.zip(listeners) {
            let (node, listen) = (NodeId(id), Listen::Bound(listener));
            match kind {
                Kind::Node => {
                    let config = Config::new(GroupId(1), node);
                    let options = Options::new(dir, CLUSTER, config, listen);
                    let mut options = options.members(members());
                    options.disk = DiskKind::Files;
                    store.handles[0].push(Node::spawn(options, Count::default()).expect("a node"));
                }
                Kind::Groups(count) => {
                    store.name = format!("{count} group{}", if count == 1 { "" } else { "s" });
                    store.handles.resize(count as usize, Vec::new());
                    let (groups, thread) = spawn(GroupsOptions::new(dir, CLUSTER, node, listen));
                    for (handles, group) in store.handles.iter_mut().zip((1..).map(GroupId)) {
                        handles.push(groups.create(group, members()).expect("a group"));
                    }
                    store.groups.push((groups, thread));
                }
            }
        }
        store
    }

    /// Each group's leader.
    async fn leaders(&self) -> Vec<Handle> {
        join_all(self.handles.iter().map(|handles| leader(handles))).await
    }

    async fn stop(self) {
        if self.groups.is_empty() {
            let stops = self.handles.iter().flatten().map(|handle| handle.shutdown(false));
            join_all(stops).await;
        }
        for (groups, thread) in self.groups {
            groups.shutdown(false);
            thread.join().expect("it stops");
        }
    }
}

/// A node of groups, on a thread of its own.
fn spawn(options: GroupsOptions) -> (Groups, JoinHandle<()>) {
    let (send, receive) = std::sync::mpsc::channel();
    let drive = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let (groups, node) = GroupsNode::open(options, |_| Count::default()).expect("a node");
            send.send(groups).expect("it is awaited");
            node.await;
        });
    };
    let thread = thread::spawn(drive);
    (receive.recv().expect("the node opens"), thread)
}

async fn leader(handles: &[Handle]) -> Handle {
    loop {
        for handle in handles {
            if handle.status().await.expect("it runs").role == Role::Leader {
                return handle.clone();
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Commands in a second, of clients each of which stays with a group.
async fn measure(leaders: &[Handle], (commands, clients): (u32, usize)) -> f64 {
    let mut batch = Batch::with_capacity(commands as usize * (COMMAND.len() + 4));
    (0..commands).for_each(|_| batch.push(&COMMAND));
    let propose = |at: usize| {
        let (handle, batch) = (leaders[at % leaders.len()].clone(), batch.clone());
        async move {
            let answers = handle.propose(batch).await.expect("an answer");
            assert_eq!(answers.len(), commands as usize);
            at
        }
    };
    let mut waiting: FuturesUnordered<_> = (0..clients).map(propose).collect();
    let (begun, mut answered) = (Instant::now(), 0_u64);
    while let Some(at) = waiting.next().await {
        answered += u64::from(commands);
        if begun.elapsed() < RUN {
            waiting.push(propose(at));
        }
    }
    answered as f64 / begun.elapsed().as_secs_f64()
}

fn median(mut of: Vec<f64>) -> (f64, f64, f64) {
    of.sort_by(f64::total_cmp);
    (of[of.len() / 2], of[0], of[of.len() - 1])
}

async fn throughput(root: &Path) {
    let kinds = [Kind::Node, Kind::Groups(1), Kind::Groups(4), Kind::Groups(16)];
    let dir = tempfile::tempdir_in(root).expect("a place to write to");
    let place = |n: usize| dir.path().join(n.to_string());
    let stores: Vec<_> = (0..).zip(kinds).map(|(n, kind)| Store::start(kind, &place(n))).collect();
    let leaders = join_all(stores.iter().map(Store::leaders)).await;
    println!("store       batch  clients  commands/s   beside 1 group (least, most of {ROUNDS})");
    for load in LOADS {
        let mut rates = vec![Vec::new(); kinds.len()];
        for _ in 0..ROUNDS {
            for (leaders, rates) in leaders.iter().zip(&mut rates) {
                rates.push(measure(leaders, load).await);
            }
        }
        for (store, of) in stores.iter().zip(&rates) {
            let beside = of.iter().zip(&rates[1]).map(|(rate, one)| rate / one).collect();
            let ((rate, ..), (ratio, least, most)) = (median(of.clone()), median(beside));
            let (name, (commands, clients)) = (&store.name, load);
            println!(
                "{name:<10} {commands:>6} {clients:>8} {rate:>11.0}   {ratio:>6.2} ({least:.2}, \
                 {most:.2})"
            );
        }
    }
    join_all(stores.into_iter().map(Store::stop)).await;
}

/// Of this process: user and system.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("it tells of itself");
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields[*at].parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// What this process has in memory, in bytes.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("it tells of itself");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a number of KiB") << 10
}

/// What the files below take on the disk, whatever length they have.
fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("it is there").map(|entry| entry.expect("it is there"));
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
        Ok(found) => found.blocks() * 512,
        // A spare became a segment meanwhile.
        Err(_) => 0,
    };
    entries.map(of).sum()
}

/// What one group takes on one node; `aim` is the design's.
fn each(what: &str, bytes: u64, count: u64, aim: u64) {
    let each = bytes as f64 / (count * NODES) as f64 / 1024.0;
    println!("{what}: {each:.0} KiB for each group on each node (aim: {aim} KiB)");
}

async fn idle(count: u64, root: &Path) {
    const WATCHED: Duration = Duration::from_secs(10);
    let dir = tempfile::tempdir_in(root).expect("a place to write to");
    let memory_before = resident_bytes();
    let begun = Instant::now();
    let store = Store::start(Kind::Groups(count), dir.path());
    store.leaders().await;
    println!("{count} groups on {NODES} nodes are led after {:.1?}", begun.elapsed());
    for watch in ["at first", "later"] {
        let before = processor_time();
        tokio::time::sleep(WATCHED).await;
        let took = processor_time() - before;
        let share = 100.0 * took.as_secs_f64() / WATCHED.as_secs_f64();
        println!("{watch}: {share:.1} % of a core, all nodes together (aim: 1 % for 1,000 groups)");
    }
    // The machine here has eight bytes: what one of an application takes comes on top.
    each("memory", resident_bytes().saturating_sub(memory_before), count, 64);
    each("disk", disk_bytes(dir.path()), count, 2 << 10);
    let begun = Instant::now();
    let asked = store.handles.iter().map(|handles| handles[0].propose_one(&COMMAND));
    join_all(asked).await.into_iter().for_each(|answer| drop(answer.expect("an answer")));
    println!("each of them answers, all at once, within {:.1?}", begun.elapsed());
    store.stop().await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let arguments: Vec<_> = arguments.collect();
    let root = |at: usize| arguments.get(at).map_or_else(std::env::temp_dir, PathBuf::from);
    if arguments.first().is_some_and(|first| first == "idle") {
        let count = arguments.get(1).map_or(1000, |count| count.parse().expect("a number"));
        return idle(count, &root(2)).await;
    }
    throughput(&root(0)).await;
}
