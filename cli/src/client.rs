//! A node, asked over its port for clients: what the commands that give orders have in common.

use anyhow::{Result, anyhow, bail};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError,
    aio::MultiplexedConnection,
};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};
use tokio::runtime::Runtime;

/// How long a node may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A node, asked over its port for clients.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    connection: Connection,
    /// How long it may take to answer.
    patience: Duration,
}

impl Node {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let connection = Connection::open(address, PATIENCE)
            .map_err(|error| cannot_ask(address, &error, PATIENCE))?;
        let mut node = Self { address, connection, patience: PATIENCE };
        let info: String =
            node.ask(&["INFO"]).map_err(|error| unasked(address, &error, PATIENCE))?;
        if !info.contains("lakebed_version:") {
            bail!("what answers on {address} is no node of lakebed");
        }
        Ok(node)
    }

    /// From now on it may take so long to answer.
    pub(crate) fn wait_up_to(&mut self, patience: Duration) {
        self.connection.stream.set_response_timeout(patience);
        self.patience = patience;
    }

    /// Why it did not do what it was asked for.
    pub(crate) fn why(&self, error: &RedisError) -> String {
        why(error, self.patience)
    }

    /// What it tells of itself, or of one of its groups.
    pub(crate) fn info(&mut self, group: Option<u64>) -> Result<Info> {
        let text: Result<String, _> = match group {
            None => self.ask(&["INFO"]),
            Some(_) => self.order(group, &["INFO"]),
        };
        Ok(Info::of(&text.map_err(|error| anyhow!("{}: {}", self.address, self.why(&error)))?))
    }

    /// The groups that an order goes to: the one that is named, or all that the node has. Where there
    /// is one it needs no name.
    pub(crate) fn groups(&mut self, named: Option<u64>) -> Result<Vec<Option<u64>>> {
        let count = self.info(None)?.number("groups").unwrap_or(1);
        match named {
            Some(named) if !(1..=count).contains(&named) => {
                bail!("--group {named}, but the groups of {} are 1 to {count}", self.address)
            }
            _ if count == 1 => Ok(vec![None]),
            Some(named) => Ok(vec![Some(named)]),
            None => Ok((1..=count).map(Some).collect()),
        }
    }

    /// Gives it an order, or one of its groups.
    pub(crate) fn order<T: FromRedisValue>(
        &mut self,
        group: Option<u64>,
        order: &[&str],
    ) -> Result<T, RedisError> {
        let group = group.map(|group| group.to_string());
        let mut words = vec!["LAKEBED"];
        words.extend(group.iter().flat_map(|group| ["GROUP", group]));
        words.extend(order);
        self.ask(&words)
    }

    /// What it answers to these words.
    pub(crate) fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, RedisError> {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word);
        }
        self.connection.ask(&command)
    }
}

/// A connection to that port, where each answer may take so long.
///
/// Its waits are those of an executor: a blocking read of bounded time fails if a signal comes meanwhile, or if the
/// process is stopped and continued (signal(7)).
pub(crate) struct Connection {
    executor: Runtime,
    stream: MultiplexedConnection,
}

impl Connection {
    /// Nothing is asked yet: the library would wait for an answer to its own greeting as well, and a node that
    /// hangs would be waited for twice.
    pub(crate) fn open(address: SocketAddr, patience: Duration) -> Result<Self, RedisError> {
        let info = format!("redis://{address}").into_connection_info()?;
        let quiet = info.redis_settings().clone().set_skip_set_lib_name();
        let client = redis::Client::open(info.set_redis_settings(quiet))?;
        let patient = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(patience));
        let executor = lakebed_runtime::executor()?;
        let connecting = client.get_multiplexed_async_connection_with_config(&patient);
        let stream = executor.block_on(connecting)?;
        Ok(Self { executor, stream })
    }

    /// What is answered to this.
    pub(crate) fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisError> {
        self.executor.block_on(command.query_async(&mut self.stream))
    }
}

/// What a node tells of itself, by name.
pub(crate) struct Info(BTreeMap<String, String>);

impl Info {
    pub(crate) fn of(text: &str) -> Self {
        let pair = |line: &str| {
            let (name, value) = line.trim().split_once(':')?;
            Some((name.to_owned(), value.to_owned()))
        };
        Self(text.lines().filter_map(pair).collect())
    }

    /// Empty if it says nothing of it.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }
}

/// How one of several groups is called in what is said of it.
pub(crate) fn called(group: Option<u64>) -> String {
    group.map_or_else(String::new, |group| format!("group {group}: "))
}

/// What was refused, as the node says it; else what became of the connection.
pub(crate) fn why(error: &RedisError, patience: Duration) -> String {
    match (error.kind(), error.detail()) {
        _ if error.is_timeout() => format!("it did not answer within {} s", patience.as_secs()),
        (ErrorKind::Io, _) | (_, None) => error.to_string(),
        (_, Some(detail)) if detail.contains("not the leader; node") => {
            format!("{detail}: ask that one, or give the addresses of several, ADDR,ADDR")
        }
        (_, Some(detail)) => detail.to_string(),
    }
}

/// Nobody answers, or too late.
pub(crate) fn cannot_ask(
    address: SocketAddr,
    error: &RedisError,
    patience: Duration,
) -> anyhow::Error {
    anyhow!("cannot ask {address}: does a node serve there? {}", why(error, patience))
}

/// Why INFO was not told: what answers may refuse to, and is not thereby a stranger.
pub(crate) fn unasked(
    address: SocketAddr,
    error: &RedisError,
    patience: Duration,
) -> anyhow::Error {
    if error.is_timeout() || error.kind() == ErrorKind::Io {
        cannot_ask(address, error, patience)
    } else if error.code().is_some() {
        anyhow!("{address}: {}", why(error, patience))
    } else {
        anyhow!("what answers on {address} is no node of lakebed: {error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// It read `Resource temporarily unavailable (os error 11)`.
    #[test]
    fn a_late_answer_is_told_as_one() {
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut] {
            let late = RedisError::from(io::Error::from(kind));
            assert_eq!(why(&late, PATIENCE), "it did not answer within 10 s");
        }
        let gone = RedisError::from(io::Error::from(io::ErrorKind::ConnectionReset));
        assert!(why(&gone, PATIENCE).contains("connection reset"), "{}", why(&gone, PATIENCE));
    }
}
