//! The store as its server sees it, which may be broken on purpose: it reads what its node has.
//!
//! Knows no node. Invariant: whole, it is the command's own store.

use crate::store::Replicated;
use bytes::Bytes;
use lakebed::{Batch, Control, Outcome, ReadMode, Status};
use lakebed_kv::serve::{Failure, Store};
use std::time::Duration;

/// See the module.
#[derive(Clone)]
pub(crate) struct MaybeStale {
    pub(crate) store: Replicated,
    pub(crate) is_stale: bool,
}

impl Store for MaybeStale {
    async fn propose(&self, batch: Batch, out: &mut Vec<u8>) -> Result<(), Failure> {
        self.store.propose(batch, out).await
    }

    async fn read(&self, query: &[u8], mode: ReadMode) -> Result<Bytes, Failure> {
        if !self.is_stale {
            return self.store.read(query, mode).await;
        }
        let mode = ReadMode::Local { stale_max: Duration::from_secs(10) };
        self.store.0.read_one(query, mode).await.map_err(|_| Failure::Unknown)
    }

    async fn status(&self) -> Result<Status, Failure> {
        self.store.status().await
    }

    async fn control(&self, order: Control) -> Result<Outcome, Failure> {
        self.store.control(order).await
    }
}
