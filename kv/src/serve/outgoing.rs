//! Answers on their way to a client, in the protocol that it asked for.
//!
//! Knows no command. Invariant: everybody answers in RESP2, the machine above all, whose answers are
//! in the log's sessions; what RESP3 says otherwise is put in its place here, on the way out.
//!
//! That is little: the absence of a value is `_`, and a map is told from an array where it is written.

use super::request::Map;
use crate::answer;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// How long a client may take for more of a command, and to take more of its answers.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(60);
/// Answers are sent when they are this long, or when nothing else is to be done.
pub(crate) const OUT_BYTES: usize = 256 << 10;
/// An empty buffer of answers larger than this is given back.
const KEPT_BYTES_MAX: usize = OUT_BYTES;

/// What a client reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

impl Protocol {
    pub(crate) const fn version(self) -> i64 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}

/// The buffer of a connection's answers.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Whole RESP2 values are added behind it.
    pub(crate) bytes: Vec<u8>,
    protocol: Protocol,
    /// Up to here it is as the client reads it.
    ready: usize,
}

impl Outgoing {
    pub(crate) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What is answered from now on is in this protocol.
    pub(crate) fn speak(&mut self, protocol: Protocol) {
        self.translate();
        self.protocol = protocol;
    }

    pub(crate) fn map(&mut self, map: &Map) {
        match self.protocol {
            Protocol::Resp2 => answer::array(&mut self.bytes, 2 * map.pairs),
            Protocol::Resp3 => answer::map(&mut self.bytes, map.pairs),
        }
        self.bytes.extend_from_slice(&map.bytes);
    }

    /// Whether it is time to send.
    pub(crate) const fn is_full(&self) -> bool {
        self.bytes.len() > OUT_BYTES
    }

    fn translate(&mut self) {
        if self.protocol == Protocol::Resp3 {
            answer::to_resp3(&mut self.bytes, self.ready);
        }
        self.ready = self.bytes.len();
    }

    /// Sends it all; in vain for [`STALL_MAX`], and the client is gone.
    pub(crate) async fn flush(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        self.translate();
        let mut sent = 0;
        while sent < self.bytes.len() {
            match timeout(STALL_MAX, stream.write(&self.bytes[sent..])).await?? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                more => sent += more,
            }
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.ready = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use tokio::io::AsyncReadExt;

    /// It had sixty seconds for all that was to be sent at once, however steadily it took it.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_its_answers_slowly_gets_them_all() {
        const PIECE: usize = 1000;
        let (mut client, mut stream) = tokio::io::duplex(PIECE);
        let mut out = Outgoing { bytes: vec![b'x'; 10 * PIECE], ..Outgoing::default() };
        let mut sends = Box::pin(out.flush(&mut stream));
        let mut taken = [0; PIECE];
        for _ in 0..8 {
            assert!((&mut sends).now_or_never().is_none());
            tokio::time::advance(STALL_MAX * 2 / 3).await;
            client.read_exact(&mut taken).await.unwrap();
        }
        assert!((&mut sends).now_or_never().is_none());
        tokio::time::advance(STALL_MAX + Duration::from_secs(1)).await;
        let stalled = (&mut sends).now_or_never().expect("it took nothing");
        assert_eq!(stalled.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn what_was_answered_before_stays_in_the_protocol_of_before() {
        let mut out = Outgoing::default();
        let pair = Map { pairs: 1, bytes: b"$1\r\nk\r\n$-1\r\n".into() };
        let mut sent = Vec::new();
        for protocol in [Protocol::Resp2, Protocol::Resp3, Protocol::Resp3, Protocol::Resp2] {
            out.speak(protocol);
            assert_eq!(out.protocol(), protocol);
            answer::null(&mut out.bytes);
            out.map(&pair);
            if sent.is_empty() {
                out.flush(&mut sent).await.unwrap();
            }
        }
        out.flush(&mut sent).await.unwrap();
        let second = "$-1\r\n*2\r\n$1\r\nk\r\n$-1\r\n";
        let third = "_\r\n%1\r\n$1\r\nk\r\n_\r\n";
        let expected = [second, third, third, second].concat();
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
    }
}
