//! The executor that a node wants.

use std::io;
use tokio::runtime::{Builder, Runtime};

/// How many tasks have their turn between two looks at the sockets, where there is always one that has
/// something to do. A look is a system call, and a task's turn is several. Where a leader sends a snapshot, a turn
/// is a millisecond of copying, and the acknowledgement that a client waits for is heard at the next look.
const TURNS_BETWEEN_LOOKS: u32 = 4;

/// One of a single thread, for a [`Node`](crate::Node) or a [`GroupsNode`](crate::GroupsNode) and what lives
/// beside it.
///
/// A node whose machine has much to do always has something to do itself, and an executor looks at its sockets
/// when nobody has, or behind so many turns: 61 in tokio, each of which may be a millisecond of the machine, or as
/// long as one of its steps takes. That is a quarter of a second in which a leader hears of no acknowledgement, and
/// with steps of ten milliseconds long enough for it to step down. Who brings an executor of their own sets its
/// [`event_interval`](Builder::event_interval) accordingly.
pub fn executor() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().event_interval(TURNS_BETWEEN_LOOKS).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::{Future, poll_fn},
        io::Write as _,
        task::Poll,
    };
    use tokio::net::{TcpListener, TcpStream};

    /// How many turns another task has while one waits for what has come to a socket already.
    fn turns_until_heard() -> u32 {
        executor().expect("an executor").block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
            let near = near.expect("a connection");
            let mut far = far.expect("a connection").0.into_std().expect("a socket");
            // Nothing is known of it yet, and by now it can be read.
            far.write_all(b"an acknowledgement").expect("there is room");
            let mut heard = Box::pin(near.readable());
            let mut turns = 0;
            poll_fn(|cx| {
                if heard.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(turns);
                }
                turns += 1;
                // It has always something to do.
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await
        })
    }

    #[test]
    fn sockets_are_looked_at_though_a_task_always_has_something_to_do() {
        assert!(turns_until_heard() <= 2 * TURNS_BETWEEN_LOOKS);
    }
}
