//! A node's handle, as the RESP server sees a node.

use bytes::Bytes;
use lakebed::{Batch, Control, Outcome, ReadMode, Status};
use lakebed_kv::serve::{Failure, Store};
use lakebed_runtime::{Carried, Handle};

/// The store that this node is one of.
#[derive(Clone, Debug)]
pub(crate) struct Replicated(pub(crate) Handle);

impl Store for Replicated {
    async fn propose(&self, batch: Batch, out: &mut Vec<u8>) -> Result<(), Failure> {
        let answers = self.0.propose(batch).await.map_err(failure)?;
        out.extend_from_slice(answers.joined());
        Ok(())
    }

    async fn read(&self, query: &[u8], mode: ReadMode) -> Result<Bytes, Failure> {
        self.0.read_one(query, mode).await.map_err(failure)
    }

    async fn status(&self) -> Result<Status, Failure> {
        self.0.status().await.map_err(failure)
    }

    async fn control(&self, order: Control) -> Result<Outcome, Failure> {
        let carried = self.0.control(order).await.map_err(failure)?;
        Ok(match carried {
            Carried::Done(at) => Outcome::Done(at),
            Carried::Pinned(file, bytes) => Outcome::Pinned(file, bytes),
            Carried::Read(bytes) => Outcome::Read(bytes),
        })
    }
}

fn failure(failure: lakebed_runtime::Failure) -> Failure {
    match failure {
        lakebed_runtime::Failure::Refused(refusal) => Failure::Refused(refusal),
        lakebed_runtime::Failure::Unknown => Failure::Unknown,
    }
}
