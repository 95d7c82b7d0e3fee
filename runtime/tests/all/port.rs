//! A port that stays a test's own while nobody listens there.

use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt::set_socket_reuseaddr},
};
use std::net::SocketAddr;

/// Held by a socket that never listens: a listener of the standard library is let in beside it, and
/// the system gives the port to nobody else.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    _held: OwnedFd,
}

impl Port {
    pub(crate) fn take() -> Self {
        let held = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        set_socket_reuseaddr(&held, true).expect("an option of sockets");
        let address = getsockname(&held).ok().and_then(|name| name.try_into().ok());
        Self { address: address.expect("it has just been bound"), _held: held }
    }
}
