//! Ports for nodes that come and go, kept from everybody else meanwhile.
//!
//! A node that was killed leaves its ports for a moment, and looking whether a port is free keeps
//! nobody from taking it. So each port is held by a socket that is bound and never listens: a
//! listener that may reuse addresses, as any of the standard library may, is let in beside it;
//! another search, and the system when it hands out ports, is not.

use crate::common::loopback;
use rustix::{
    fd::OwnedFd,
    io::Result,
    net::{AddressFamily, SocketType, bind, socket, sockopt::set_socket_reuseaddr},
};
use std::sync::Mutex;

/// Below those that the system hands out, as a rule.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// What is held, until this process ends, and where the search goes on.
struct Held {
    sockets: Vec<OwnedFd>,
    next: u16,
}

static HELD: Mutex<Held> = Mutex::new(Held { sockets: Vec::new(), next: 0 });

/// That many ports in a row, for the caller alone. Returns the first.
pub(crate) fn ports(count: u16) -> u16 {
    let mut held = HELD.lock().unwrap();
    // Searches that begin at different places seldom meet.
    let start = u16::try_from(std::process::id() % 100).unwrap() * (COUNT / 100);
    loop {
        let first = FIRST + (start + held.next) % (COUNT - count);
        held.next += count;
        let row: Result<Vec<_>> = (first..first + count).map(hold).collect();
        if let Ok(row) = row {
            held.sockets.extend(row);
            return first;
        }
    }
}

/// Takes a port that nobody uses in any way, and lets in listeners from then on.
fn hold(port: u16) -> Result<OwnedFd> {
    let holder = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&holder, &loopback(port))?;
    set_socket_reuseaddr(&holder, true)?;
    Ok(holder)
}
