//! Three nodes in one process, with threads, files and sockets of the standard library alone.
//!
//! ```text
//! cargo run --example three_nodes -- the lake is drained and the lake is filled
//! ```
//!
//! Counts words; run it again and it goes on counting. To build upon it, take `driver.rs` and
//! `network.rs` as they are, and put a machine of your own in the place of `words.rs`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Clocks and threads live here.

mod driver;
mod network;
mod words;

use driver::{Handle, Node};
use lakebed::{
    ClusterId, Config, Engine, GroupId, Member, Membership, NodeId, Start, files::Directory,
};
use std::{
    error::Error,
    hash::{BuildHasher, Hasher, RandomState},
    net::TcpListener,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let dir = std::env::temp_dir().join("lakebed-three-nodes");
    let listeners = [bind()?, bind()?, bind()?];
    let members = members(&listeners)?;
    let mut nodes: Vec<(Handle, JoinHandle<()>)> = Vec::new();
    for (id, listener) in (1..).map(NodeId).zip(listeners) {
        nodes.push(spawn(id, listener, &dir.join(id.to_string()), &members)?);
    }
    // Any node takes a command; those that do not lead send it on.
    for (word, (node, _)) in words.iter().zip(nodes.iter().cycle()) {
        let count = node.propose(word.as_bytes()).ok_or("the node has ended")?;
        println!("{word}: {}", String::from_utf8_lossy(&count));
    }
    for (node, _) in &nodes {
        let found = node.read(b"").ok_or("the node has ended")?;
        println!("{}", String::from_utf8_lossy(&found));
    }
    for (node, thread) in nodes {
        node.stop();
        thread.join().expect("a node does not panic");
    }
    println!("the data is in {}", dir.display());
    Ok(())
}

fn bind() -> Result<TcpListener, std::io::Error> {
    TcpListener::bind("127.0.0.1:0")
}

fn members(listeners: &[TcpListener]) -> Result<Arc<Membership>, std::io::Error> {
    let member = |(id, listener): (u64, &TcpListener)| {
        let address = listener.local_addr()?.to_string().into();
        Ok(Member { id: NodeId(id), incarnation: 0, address })
    };
    let members: Result<Vec<Member>, std::io::Error> = (1..).zip(listeners).map(member).collect();
    Ok(Arc::new(Membership::of(members?)))
}

fn spawn(
    id: NodeId,
    listener: TcpListener,
    dir: &Path,
    members: &Arc<Membership>,
) -> Result<(Handle, JoinHandle<()>), Box<dyn Error>> {
    let disk = Directory::open(dir)?;
    // A start that was cut short may have left the directory without a node in it.
    let start = if disk.is_vacant()? {
        Start::Format { cluster: ClusterId(1), members: Arc::clone(members) }
    } else {
        Start::Run
    };
    // All the entropy the engine uses: the keys of a hash are drawn by the system.
    let seed = RandomState::new().build_hasher().finish();
    let core = Engine::new(Config::new(GroupId(1), id), seed)?;
    let members = Arc::clone(members);
    let (handle, node) = Node::new(id, disk, listener, &members);
    let thread = thread::spawn(move || {
        let halt = node.run(core, start, words::Words::default());
        println!("node {id}: {halt}");
    });
    Ok((handle, thread))
}
