//! Speaks RESP with clients, its second or third version: a listener, a task for each connection, a bound on everything.
//!
//! Knows the node only as a [`Store`], or one for each of the groups that its keys are spread over. A client that sends what is no RESP is told so and let go;
//! a pipeline is answered in order, its writes replicated as one batch, its reads asked as one
//! query, for each group; a read behind a write of the same key sees it. There are no transactions. What
//! clients find is told in `docs/redis.md`.

mod address;
mod client;
mod clock;
mod connection;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod info;
mod inline;
mod options;
mod orders;
mod outgoing;
mod reader;
mod request;
mod run;
mod sessions;
mod stale;
mod store;
mod stores;
mod transactions;

pub use address::{WrongAddress, check_address};
use client::Client;
use connection::Connection;
pub use store::{Failure, Store};
pub use stores::Stores;

use std::{future::Future, io, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long clients may take to let go when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How long to wait when the system has no room for another connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// After how long a silence a client is asked whether it is there, how often then, and how many times
/// it may leave that unanswered: whoever vanished without a word, with its machine or its network, keeps
/// its place for two minutes.
#[cfg(all(target_os = "linux", not(madsim)))]
const ASKED_AFTER: (Duration, Duration, u32) =
    (Duration::from_secs(60), Duration::from_secs(15), 4);

/// What a server grants its clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most bytes of a command, and of commands replicated together. What fits must fit into
    /// an entry: below [`Tuning::append_bytes_max`](lakebed::Tuning).
    pub batch_bytes_max: usize,
    /// The most clients at one time.
    pub clients_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { batch_bytes_max: (1 << 20) - 4096, clients_max: 4096 }
    }
}

/// Serves clients of one store, or of the [`Stores`] that keys are spread over, until `stop`
/// resolves; then hears no more, answers what is on its way, and lets go of everybody.
pub async fn serve<T: Store>(
    listener: TcpListener,
    stores: impl Into<Stores<T>>,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let stores = stores.into();
    let (stopping, watch) = watch::channel(false);
    let (mut clients, mut came) = (JoinSet::new(), 0);
    let mut trouble = Trouble::default();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            // In one order: chance here would be the one that no seed can repeat.
            biased;
            () = &mut stop => break,
            Some(_) = clients.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if clients.len() < limits.clients_max => {
                    trouble.is_over();
                    came += 1;
                    let (stores, watch) = (stores.clone(), watch.clone());
                    let bytes_max = limits.batch_bytes_max;
                    clients.spawn(client(stream, Client::new(came), stores, watch, bytes_max));
                }
                Ok((stream, _)) => {
                    trouble.is_over();
                    drop(tokio::spawn(turn_away(stream)));
                }
                Err(error) => {
                    if trouble.is_news() {
                        tracing::warn!(%error, "cannot accept a client; it is tried again and again");
                    }
                    sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
    drop(listener);
    // Nobody listens when there is no client.
    let _ = stopping.send(true);
    let drained = async { while clients.join_next().await.is_some() {} };
    if timeout(DRAIN_MAX, drained).await.is_err() {
        tracing::info!("closed clients that still waited for an answer");
    }
}

/// What keeps clients out may last, and is told once each time.
#[derive(Default)]
struct Trouble {
    is_told: bool,
}

impl Trouble {
    const fn is_news(&mut self) -> bool {
        !std::mem::replace(&mut self.is_told, true)
    }

    const fn is_over(&mut self) {
        self.is_told = false;
    }
}

async fn client<T: Store>(
    stream: TcpStream,
    client: Client,
    stores: Stores<T>,
    stopping: watch::Receiver<bool>,
    bytes_max: usize,
) {
    let served = async {
        stream.set_nodelay(true)?;
        notice_when_gone(&stream)?;
        Connection::new(stream, stores, stopping, bytes_max).of(client).serve().await
    };
    if let Err(error) = served.await {
        tracing::debug!(%error, "lost a client");
    }
}

#[cfg(all(target_os = "linux", not(madsim)))]
fn notice_when_gone(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    let (after, every, times) = ASKED_AFTER;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, after)?;
    sockopt::set_tcp_keepintvl(stream, every)?;
    Ok(sockopt::set_tcp_keepcnt(stream, times)?)
}

/// Elsewhere whoever vanished keeps its place.
#[cfg(not(all(target_os = "linux", not(madsim))))]
const fn notice_when_gone(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

async fn turn_away(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"-ERR max number of clients reached\r\n").await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a descriptor it was told twenty times in a second.
    #[test]
    fn what_keeps_clients_out_is_told_once_each_time() {
        let mut trouble = Trouble::default();
        assert_eq!([(); 3].map(|()| trouble.is_news()), [true, false, false]);
        trouble.is_over();
        assert_eq!([(); 2].map(|()| trouble.is_news()), [true, false]);
    }
}
