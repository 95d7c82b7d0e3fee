//! A node, asked over its port for clients: what the commands that give orders have in common.

use anyhow::{Context, Result, bail};
use redis::{Connection, ErrorKind, FromRedisValue, RedisError};
use std::{net::SocketAddr, time::Duration};

/// How long a node may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A node, asked over its port for clients.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) connection: Connection,
}

impl Node {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let open = || {
            let client = redis::Client::open(format!("redis://{address}"))?;
            let connection = client.get_connection_with_timeout(PATIENCE)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            connection.set_write_timeout(Some(PATIENCE))?;
            Ok::<_, RedisError>(connection)
        };
        let connection =
            open().with_context(|| format!("cannot ask {address}: does a node serve there?"))?;
        let mut node = Self { address, connection };
        let info: Result<String, _> = node.ask(&["INFO"]);
        if !info.is_ok_and(|info| info.contains("lakebed_version:")) {
            bail!("what answers on {address} is no node of lakebed");
        }
        Ok(node)
    }

    /// What it answers to these words.
    pub(crate) fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, RedisError> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.connection)
    }
}

/// What was refused, as the node says it; else what became of the connection.
pub(crate) fn why(error: &RedisError) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::Io, _) | (_, None) => error.to_string(),
        (_, Some(detail)) => detail.to_string(),
    }
}
