//! `--metrics`: how the nodes of this process are, as Prometheus scrapes it.
//!
//! Knows of HTTP what a scraper says: one GET, one answer, the end. It lives on the command's own
//! thread, not on a node's; a node that is too busy to say how it is is told as such.

mod page;

use self::page::{GroupView, Page, View};
use crate::{looks::Looks, machine::Met};
use futures::{
    FutureExt,
    future::{join, join_all},
};
use lakebed::{Halt, Status};
use lakebed_runtime::{Counters, Handle, Health, Traffic};
use std::{io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

/// How long a scraper may take for its request and for the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take for its request: those that say nothing hold up the others.
const REQUEST: Duration = Duration::from_millis(500);
/// How long a node may take to say how it is.
const LOOK: Duration = Duration::from_secs(1);
/// The most scrapers at one time; others wait to be accepted.
const SCRAPERS_MAX: usize = 8;
/// The longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Prometheus' text format, as it reads it by default.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A node that is told of.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) id: u64,
    /// Its groups, of which one is the rule.
    pub(crate) groups: Arc<[Seat]>,
    pub(crate) health: Arc<Health>,
    pub(crate) counters: Arc<Counters>,
    /// At its directory.
    pub(crate) looks: Looks,
}

/// A group of a node.
pub(crate) struct Seat {
    pub(crate) handle: Handle,
    /// Where its data is.
    pub(crate) dir: PathBuf,
    /// What its machine has met.
    pub(crate) met: Arc<Met>,
}

impl Seat {
    /// Whether it has ended for good: the node is no member of this group any more.
    fn was_removed(&self) -> bool {
        self.handle.has_ended()
            && matches!(self.handle.ended().now_or_never(), Some(Ok(halt)) if *halt == Halt::Removed)
    }
}

impl Source {
    /// What was asked of all its groups.
    pub(crate) fn traffic(&self) -> Traffic {
        let each = self.groups.iter().map(|seat| seat.handle.traffic());
        each.fold(Traffic::default(), |sum, traffic| Traffic {
            commands: sum.commands + traffic.commands,
            command_bytes: sum.command_bytes + traffic.command_bytes,
            queries: sum.queries + traffic.queries,
        })
    }

    /// Whether a group has ended here, by number.
    pub(crate) fn has_ended(&self, group: u64) -> bool {
        self.groups.get(group as usize - 1).is_some_and(|seat| seat.handle.has_ended())
    }

    /// How its groups are, by number, but those that it was removed from; nothing of a node of which
    /// one does not say in time.
    pub(crate) async fn statuses(&self, patience: Duration) -> Option<Vec<(u64, Status)>> {
        let ask =
            async |(group, seat): (u64, &Seat)| Some((group, seat.handle.status().await.ok()?));
        let groups = (1..).zip(&*self.groups).filter(|(_, seat)| !seat.was_removed());
        timeout(patience, join_all(groups.map(ask))).await.ok()?.into_iter().collect()
    }
}

/// Answers scrapers until it is dropped.
pub(crate) async fn serve(listener: std::net::TcpListener, sources: Vec<Source>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let (room, sources) = (Arc::new(Semaphore::new(SCRAPERS_MAX)), Arc::new(sources));
    loop {
        let place = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            // Too many files are open, or the scraper has gone already: both pass.
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let sources = Arc::clone(&sources);
        tokio::spawn(async move {
            // Whoever scrapes learns of its failure from its own end.
            let _ = timeout(PATIENCE, answer(stream, &sources)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, sources: &[Source]) -> io::Result<()> {
    let request = timeout(REQUEST, head(&mut stream)).await??;
    let (status, body) = match parse(&request) {
        Ok("/metrics") => ("200 OK", text(sources).await),
        Ok(_) => ("404 Not Found", "metrics are at /metrics\n".into()),
        Err(status) => (status, format!("{status}: GET /metrics\n")),
    };
    let kind = if status == "200 OK" { CONTENT_TYPE } else { "text/plain; charset=utf-8" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// Everything up to the empty line that ends a request's head.
async fn head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    Ok(request)
}

/// The path that is asked for; or why there is none.
fn parse(request: &[u8]) -> Result<&str, &'static str> {
    let whole = request.windows(4).position(|end| end == b"\r\n\r\n");
    let head = whole.and_then(|end| std::str::from_utf8(&request[..end]).ok());
    let line = head.and_then(|head| head.lines().next()).unwrap_or_default();
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("GET"), Some(path), Some("HTTP/1.0" | "HTTP/1.1"), None) => {
            Ok(path.split('?').next().unwrap_or(path))
        }
        (Some(_), Some(_), Some("HTTP/1.0" | "HTTP/1.1"), None) => Err("405 Method Not Allowed"),
        _ => Err("400 Bad Request"),
    }
}

async fn text(sources: &[Source]) -> String {
    let views = join_all(sources.iter().map(view)).await;
    Page::new(views).text()
}

async fn view(source: &Source) -> View {
    let groups = source.groups.iter().map(|seat| group(seat, &source.looks));
    let health = Arc::clone(&source.health);
    let room = source.looks.find(move || health.room());
    let (groups, room) = join(join_all(groups), room).await;
    View {
        id: source.id,
        groups,
        room,
        latency: source.health.latency(),
        written_bytes: source.health.written_bytes(),
        counters: Arc::clone(&source.counters),
    }
}

async fn group(seat: &Seat, looks: &Looks) -> GroupView {
    let status = timeout(LOOK, seat.handle.status()).await.ok().and_then(Result::ok);
    // One that has ended says how it was, as leader perhaps: that is nothing to rely on.
    let has_ended = seat.handle.has_ended();
    let mut status = status.filter(|_| !has_ended);
    if let Some(status) = &mut status {
        status.marks.add(seat.met.marks());
    }
    let (dir, asked) = (seat.dir.clone(), status.clone());
    let age = looks.find(move || asked.and_then(|status| Health::snapshot_age_in(&dir, &status)));
    GroupView { status, has_ended, snapshot_age: age.await, traffic: seat.handle.traffic() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_its_first_line() {
        let asks = |text: &str| {
            parse(format!("{text}\r\nHost: here\r\n\r\n").as_bytes()).map(String::from)
        };
        assert_eq!(asks("GET /metrics HTTP/1.1"), Ok("/metrics".into()));
        assert_eq!(asks("GET /metrics?x=1 HTTP/1.0"), Ok("/metrics".into()));
        assert_eq!(asks("GET / HTTP/1.1"), Ok("/".into()));
        assert_eq!(asks("POST /metrics HTTP/1.1"), Err("405 Method Not Allowed"));
        for bad in ["", "GET", "GET /metrics", "GET /metrics HTTP/2", "GET / metrics HTTP/1.1"] {
            assert_eq!(asks(bad), Err("400 Bad Request"), "{bad}");
        }
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\n"), Err("400 Bad Request"));
        assert_eq!(parse(b"GET /\xff HTTP/1.1\r\n\r\n"), Err("400 Bad Request"));
    }
}
