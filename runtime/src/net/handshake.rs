//! How two nodes make sure who is on the other end, before a single frame.
//!
//! Knows no engine and no addresses. Invariant: a stream is handed on only when both ends named
//! the same version, cluster and group, the nodes they took each other for, and proved with a
//! fresh challenge that they know the same secret.
//!
//! The dialling end sends its *hello*; the accepting end answers with its own and its proof; the
//! dialling end sends its proof. A hello, little-endian:
//!
//! ```text
//!  0  magic "LAKEPEER"    12  groups     24  group     40  to             64  crc of 0..64
//!  8  version             16  cluster    32  from      48  nonce (16)
//! ```
//!
//! A proof is the HMAC-SHA256 of its role and both hellos, keyed with the secret. An empty secret
//! proves nothing, and still tells a stranger's bytes from a peer's. Nothing is encrypted, and
//! frames carry a checksum, no signature: who can alter a connection on its way is not kept out.

use hmac::{Hmac, KeyInit, Mac};
use lakebed::{ClusterId, GroupId, NodeId};
use sha2::Sha256;
use std::{fmt, io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const MAGIC: &[u8; 8] = b"LAKEPEER";
/// The version of handshake and frames that this program speaks.
const VERSION: u32 = 1;
pub(super) const HELLO_BYTES: usize = 68;
const PROOF_BYTES: usize = 32;
/// How long whoever dialled may be silent: a node says who it is at once.
const HELLO_MAX: Duration = Duration::from_secs(1);

/// Who a node says it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The group it speaks for.
    pub group: GroupId,
    /// How many groups each of its nodes has, where that is fixed; zero: it is not. Two that name other
    /// numbers do not meet.
    pub groups: u32,
    /// Itself.
    pub node: NodeId,
}

/// Why a connection came to nothing.
#[derive(Debug)]
pub(super) enum HandshakeError {
    NotAPeer,
    Version(u32),
    Foreign { field: &'static str, expected: u64, found: u64 },
    Secret,
    Io(io::Error),
    TooSlow,
    Crowded,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPeer => f.write_str("what is on the other end is no node"),
            Self::Version(theirs) => {
                write!(f, "it speaks version {theirs}, this node version {VERSION}")
            }
            Self::Foreign { field: "cluster", expected, found } => write!(
                f,
                "expected cluster {expected}, found {found}: it is of another one, or was given another \
                 name, other founders or another number of groups"
            ),
            Self::Foreign { field: "group", expected, found } => write!(
                f,
                "expected group {expected}, found {found}: a node with several groups says 0, one with one \
                 group which that is"
            ),
            Self::Foreign { field: "groups", expected, found } => write!(
                f,
                "expected a node of {expected} groups, found one of {found}: where each key is depends on \
                 it, so all nodes are to have the same number"
            ),
            Self::Foreign { field, expected, found } => {
                write!(f, "expected {field} {expected}, found {found}")
            }
            Self::Secret => f.write_str("it does not know the secret"),
            Self::Io(error) => error.fmt(f),
            Self::TooSlow => f.write_str("the handshake took too long"),
            Self::Crowded => f.write_str("too many dialled since"),
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A peer that was made sure of.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) peer: NodeId,
    pub(super) stream: TcpStream,
    /// Drawn by both ends together; seeds the checksums of this connection's frames.
    pub(super) session: u32,
}

/// What a node needs to shake hands.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) identity: Identity,
    pub(super) secret: Vec<u8>,
}

pub(super) struct Hello {
    pub(super) from: NodeId,
    pub(super) bytes: [u8; HELLO_BYTES],
}

impl Credentials {
    /// Makes sure that `peer` is on the other end of a connection that was dialled.
    pub(super) async fn dial(
        &self,
        mut stream: TcpStream,
        peer: NodeId,
    ) -> Result<Established, HandshakeError> {
        let ours = self.hello(peer)?;
        stream.write_all(&ours).await?;
        let theirs = self.read_hello(&mut stream, Some(peer)).await?;
        self.read_proof(&mut stream, "accept", &ours, &theirs.bytes).await?;
        stream.write_all(&self.proof("dial", &ours, &theirs.bytes)).await?;
        let session = self.session(&ours, &theirs.bytes);
        Ok(Established { peer, stream, session })
    }

    /// Makes sure of whoever dialled.
    pub(super) async fn accept(
        &self,
        mut stream: TcpStream,
    ) -> Result<Established, HandshakeError> {
        let read = timeout(HELLO_MAX, self.read_hello(&mut stream, None)).await;
        let read = read.unwrap_or(Err(HandshakeError::TooSlow));
        if let Err(HandshakeError::NotAPeer | HandshakeError::Io(_) | HandshakeError::TooSlow) =
            read
        {
            return read.map(|_| unreachable!("it is an error"));
        }
        // One of another cluster or version, or who meant another node, is told whom it met: it can
        // then say so itself.
        let ours = self.hello(read.as_ref().map_or(NodeId(0), |theirs| theirs.from))?;
        stream.write_all(&ours).await?;
        let theirs = read?;
        stream.write_all(&self.proof("accept", &theirs.bytes, &ours)).await?;
        self.read_proof(&mut stream, "dial", &theirs.bytes, &ours).await?;
        let session = self.session(&theirs.bytes, &ours);
        Ok(Established { peer: theirs.from, stream, session })
    }

    pub(super) fn hello(&self, to: NodeId) -> Result<[u8; HELLO_BYTES], HandshakeError> {
        let Identity { cluster, group, groups, node } = self.identity;
        let mut bytes = [0; HELLO_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&groups.to_le_bytes());
        for (at, value) in [(16, cluster.0), (24, group.0), (32, node.0), (40, to.0)] {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        getrandom::fill(&mut bytes[48..64]).map_err(io::Error::other)?;
        let crc = crc32c::crc32c(&bytes[..64]);
        bytes[64..].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    async fn read_hello(
        &self,
        stream: &mut TcpStream,
        dialled: Option<NodeId>,
    ) -> Result<Hello, HandshakeError> {
        let mut bytes = [0; HELLO_BYTES];
        stream.read_exact(&mut bytes).await?;
        self.judge_hello(bytes, dialled)
    }

    /// What may be known of whoever sent this, and was `dialled`, before it proves anything.
    pub(super) fn judge_hello(
        &self,
        bytes: [u8; HELLO_BYTES],
        dialled: Option<NodeId>,
    ) -> Result<Hello, HandshakeError> {
        let u32_at = |at| u32::from_le_bytes(*bytes[at..].first_chunk().expect("in a hello"));
        let u64_at = |at| u64::from_le_bytes(*bytes[at..].first_chunk().expect("in a hello"));
        if &bytes[..8] != MAGIC {
            return Err(HandshakeError::NotAPeer);
        }
        if u32_at(8) != VERSION {
            return Err(HandshakeError::Version(u32_at(8)));
        }
        if crc32c::crc32c(&bytes[..64]) != u32_at(64) {
            return Err(HandshakeError::NotAPeer);
        }
        let Identity { cluster, group, groups, node } = self.identity;
        expect("cluster", cluster.0, u64_at(16))?;
        expect("group", group.0, u64_at(24))?;
        if groups != 0 && u32_at(12) != 0 {
            expect("groups", groups.into(), u32_at(12).into())?;
        }
        let from = NodeId(u64_at(32));
        // Before whom it takes this for: another one than was dialled was not called, and answers nobody.
        expect("node", dialled.unwrap_or(from).0, from.0)?;
        expect("a connection to node", node.0, u64_at(40))?;
        Ok(Hello { from, bytes })
    }

    async fn read_proof(
        &self,
        stream: &mut TcpStream,
        role: &str,
        dialled: &[u8],
        accepted: &[u8],
    ) -> Result<(), HandshakeError> {
        let mut proof = [0; PROOF_BYTES];
        stream.read_exact(&mut proof).await?;
        let known = self.mac(role, dialled, accepted).verify_slice(&proof);
        known.map_err(|_| HandshakeError::Secret)
    }

    fn proof(&self, role: &str, dialled: &[u8], accepted: &[u8]) -> [u8; PROOF_BYTES] {
        self.mac(role, dialled, accepted).finalize().into_bytes().into()
    }

    fn session(&self, dialled: &[u8], accepted: &[u8]) -> u32 {
        let drawn = self.proof("session", dialled, accepted);
        u32::from_le_bytes(*drawn.first_chunk().expect("a proof is longer"))
    }

    fn mac(&self, role: &str, dialled: &[u8], accepted: &[u8]) -> Hmac<Sha256> {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.secret);
        let mac = mac.expect("a key of any length will do");
        mac.chain_update(role).chain_update(dialled).chain_update(accepted)
    }
}

const fn expect(field: &'static str, expected: u64, found: u64) -> Result<(), HandshakeError> {
    if expected == found { Ok(()) } else { Err(HandshakeError::Foreign { field, expected, found }) }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use super::*;
    use lakebed::{ClusterId, GroupId};
    use tokio::net::TcpListener;

    fn of(node: u64) -> Credentials {
        let identity =
            Identity { cluster: ClusterId(7), group: GroupId(1), groups: 0, node: NodeId(node) };
        Credentials { identity, secret: b"it is known".to_vec() }
    }

    /// Addresses that were swapped or are used again: both ends say who was meant and who is there.
    #[tokio::test]
    async fn who_dials_another_node_than_it_means_is_told_which() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dial =
            async { of(1).dial(TcpStream::connect(address).await.unwrap(), NodeId(3)).await };
        let accept = async { of(4).accept(listener.accept().await.unwrap().0).await };
        let (dialled, accepted) = tokio::join!(dial, accept);
        assert_eq!(dialled.unwrap_err().to_string(), "expected node 3, found 4");
        let expected = "expected a connection to node 4, found 3";
        assert_eq!(accepted.unwrap_err().to_string(), expected);
    }

    /// Whoever has a peer's address would be its leader.
    #[tokio::test]
    async fn who_answers_in_the_place_of_a_peer_must_know_the_secret() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dial =
            async { of(1).dial(TcpStream::connect(address).await.unwrap(), NodeId(3)).await };
        let impostor = Credentials { secret: b"it is not".to_vec(), ..of(3) };
        let accept = async { impostor.accept(listener.accept().await.unwrap().0).await };
        let both = async { tokio::join!(dial, accept) };
        let (dialled, _) = timeout(Duration::from_secs(60), both).await.expect("both wait");
        assert!(matches!(dialled, Err(HandshakeError::Secret)), "{dialled:?}");
    }

    /// What was said once would prove the same again.
    #[test]
    fn no_hello_is_said_twice() {
        let hello = || of(1).hello(NodeId(2)).unwrap();
        assert_ne!(hello(), hello());
    }

    /// Whatever the checksum says of them.
    #[test]
    fn bytes_that_are_no_hello_are_no_peers() {
        let judged = |change: fn(&mut [u8; HELLO_BYTES])| {
            let mut hello = of(2).hello(NodeId(1)).unwrap();
            change(&mut hello);
            of(1).judge_hello(hello, None).map(|hello| hello.from)
        };
        assert_eq!(judged(|_| {}).unwrap(), NodeId(2));
        let other_magic = judged(|hello| {
            hello[0] ^= 1;
            let crc = crc32c::crc32c(&hello[..64]);
            hello[64..].copy_from_slice(&crc.to_le_bytes());
        });
        assert!(matches!(other_magic, Err(HandshakeError::NotAPeer)), "{other_magic:?}");
        let flipped = judged(|hello| hello[50] ^= 1);
        assert!(matches!(flipped, Err(HandshakeError::NotAPeer)), "{flipped:?}");
    }

    /// Where a key is depends on how many there are.
    #[test]
    fn nodes_with_other_numbers_of_groups_do_not_meet() {
        let with = |groups| {
            let identity = Identity { groups, ..of(1).identity };
            Credentials { identity, secret: Vec::new() }
        };
        let met = |one: u32, other: u32| {
            let hello = with(one).hello(NodeId(1)).unwrap();
            with(other).judge_hello(hello, None).map(drop).map_err(|error| error.to_string())
        };
        let refused = met(8, 4).unwrap_err();
        assert!(refused.starts_with("expected a node of 4 groups, found one of 8: "), "{refused}");
        for (one, other) in [(4, 4), (0, 4), (4, 0), (0, 0)] {
            assert_eq!(met(one, other), Ok(()));
        }
    }
}
