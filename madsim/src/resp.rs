//! A client's end of RESP.

use bytes::BytesMut;
use redis_protocol::resp2::{
    decode::decode,
    encode::encode,
    types::{OwnedFrame, Resp2Frame},
};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A connection with a node's server.
pub(crate) struct Connection {
    stream: TcpStream,
    read: BytesMut,
}

impl Connection {
    pub(crate) async fn open(address: String) -> io::Result<Self> {
        Ok(Self { stream: TcpStream::connect(address).await?, read: BytesMut::new() })
    }

    /// Sends these commands together and waits so long for the reply to each. After an error the
    /// connection is of no use.
    pub(crate) async fn ask(
        &mut self,
        commands: &[&[&[u8]]],
        patience: Duration,
    ) -> io::Result<Vec<OwnedFrame>> {
        let answered = timeout(patience, self.talk(commands)).await;
        answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn talk(&mut self, commands: &[&[&[u8]]]) -> io::Result<Vec<OwnedFrame>> {
        let mut bytes = Vec::new();
        for command in commands {
            let parts = command.iter().map(|part| OwnedFrame::BulkString(part.to_vec()));
            let frame = OwnedFrame::Array(parts.collect());
            let start = bytes.len();
            bytes.resize(start + frame.encode_len(false), 0);
            encode(&mut bytes[start..], &frame, false).map_err(io::Error::other)?;
        }
        self.stream.write_all(&bytes).await?;
        let mut replies = Vec::new();
        while replies.len() < commands.len() {
            if let Some((reply, len)) = decode(&self.read).map_err(io::Error::other)? {
                drop(self.read.split_to(len));
                replies.push(reply);
            } else if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(replies)
    }
}
