//! Where nodes are reached, as people write it: by number or by name, of one node, of several, or of a
//! whole cluster.

use lakebed::membership::MEMBERS_MAX;
use lakebed_kv::serve::{WrongAddress, check_address};
use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{SocketAddr, ToSocketAddrs},
    str::FromStr,
};

/// An address of this machine or another, by number or by name.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    find_address(text)?
}

/// The same; `Ok(Err)`: nothing has that name now.
fn find_address(text: &str) -> Result<Result<SocketAddr, String>, String> {
    let form = "it must be HOST:PORT, such as 127.0.0.1:7401";
    let (host, port) = text.rsplit_once(':').ok_or_else(|| form.to_string())?;
    let port: u16 = port.parse().map_err(|_| form.to_string())?;
    if port == 0 {
        return Err("ports begin at 1".into());
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(form.into());
    }
    let found = match (host, port).to_socket_addrs() {
        Ok(found) => found,
        Err(error) => return Ok(Err(format!("the host {host:?} is not found: {error}"))),
    };
    // Where a name has several, the others are told the short one as well.
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.first().copied().map(Ok).ok_or_else(|| form.into())
}

/// Addresses of several nodes, or of one; and why one is not known: a name may go with its node.
#[derive(Clone, Debug)]
pub(crate) struct Addresses(pub(crate) Vec<Result<SocketAddr, String>>);

pub(crate) fn parse_addresses(text: &str) -> Result<Addresses, String> {
    let found: Vec<_> = text.split(',').map(find_address).collect::<Result<_, _>>()?;
    match found.iter().all(Result::is_err) {
        true => Err(found.into_iter().find_map(Result::err).expect("there is one")),
        false => Ok(Addresses(found)),
    }
}

/// The nodes of a cluster and where they listen for each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Peers(BTreeMap<u64, String>);

impl Peers {
    /// By id, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &str)> {
        self.0.iter().map(|(id, address)| (*id, address.as_str()))
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        self.0.contains_key(&id)
    }
}

impl Display for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peers: Vec<_> = self.iter().map(|(id, address)| format!("{id}={address}")).collect();
        f.write_str(&peers.join(","))
    }
}

impl FromStr for Peers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut peers = BTreeMap::new();
        for peer in text.split(',') {
            let (id, address) = parse_peer(peer)?;
            if let Some((other, _)) = peers.iter().find(|(_, known)| **known == address) {
                return Err(format!("nodes {other} and {id} have the same address, {address}"));
            }
            if peers.insert(id, address).is_some() {
                return Err(format!("node {id} is given twice"));
            }
        }
        if peers.len() > MEMBERS_MAX {
            return Err(format!("{} nodes; a cluster has at most {MEMBERS_MAX}", peers.len()));
        }
        Ok(Self(peers))
    }
}

fn parse_peer(peer: &str) -> Result<(u64, String), String> {
    let form = || format!("{peer:?} is not of the form ID=HOST:PORT, such as 1=127.0.0.1:8401");
    let (id, address) = peer.trim().split_once('=').ok_or_else(form)?;
    let id: u64 = id.parse().map_err(|_| form())?;
    if id == 0 {
        return Err(format!("{peer:?}: ids and ports begin at 1"));
    }
    let address = parse_peer_address(address).map_err(|wrong| match wrong {
        WrongAddress::Form => form(),
        other => format!("{peer:?}: {other}"),
    })?;
    Ok((id, address))
}

/// Where a member listens for the others.
pub(crate) fn parse_peer_address(address: &str) -> Result<String, WrongAddress> {
    check_address(address).map(|()| address.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed::membership::ADDRESS_BYTES_MAX;

    #[test]
    fn addresses_are_numbers_or_names() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 7401));
        for text in ["127.0.0.1:7401", "localhost:7401"] {
            assert_eq!(parse_address(text), Ok(loopback), "{text}");
        }
        assert!(parse_address("[::1]:7401").is_ok_and(|found| found.is_ipv6()));
        for text in ["", "7401", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000", ":7401"] {
            let error = parse_address(text).unwrap_err();
            assert!(error.contains("such as 127.0.0.1:7401"), "{text}: {error}");
        }
    }

    /// It was said to be no HOST:PORT, which it is.
    #[test]
    fn a_name_that_nobody_knows_is_told_as_that() {
        let error = parse_address("nowhere.invalid:7401").unwrap_err();
        assert!(error.starts_with("the host \"nowhere.invalid\" is not found: "), "{error}");
    }

    /// The number that a name had when the member was added was kept for ever.
    #[test]
    fn a_new_member_is_known_by_the_name_that_was_given() {
        for text in ["nowhere.invalid:8401", "localhost:1", "127.0.0.1:8401", "[::1]:8401"] {
            assert_eq!(parse_peer_address(text), Ok(text.into()));
        }
        assert_eq!(parse_peer_address("host"), Err(WrongAddress::Form));
    }

    #[test]
    fn peers_are_read_in_any_order() {
        let peers: Peers = "2=b:2,1=a:1".parse().unwrap();
        assert_eq!(peers.iter().collect::<Vec<_>>(), [(1, "a:1"), (2, "b:2")]);
        assert_eq!(peers.to_string(), "1=a:1,2=b:2");
        assert_eq!(peers, "1=a:1,2=b:2".parse().unwrap());
    }

    #[test]
    fn peers_that_cannot_be_meant_are_refused() {
        let long = format!("1={}:1", "h".repeat(ADDRESS_BYTES_MAX));
        let many: Vec<_> = (1..=40).map(|id| format!("{id}=h:{id}")).collect();
        let cases = [
            ("", "form"),
            ("1", "form"),
            ("1=host", "form"),
            ("1=host:http", "form"),
            ("1=:80", "form"),
            ("one=host:1", "form"),
            ("1=a:1,", "form"),
            ("0=a:1", "begin at 1"),
            ("1=a:0", "begin at 1"),
            ("1=a:1,1=b:1", "node 1 is given twice"),
            ("1=a:1,2=a:1", "nodes 1 and 2 have the same address"),
            (&long, "at most 64 characters"),
            (&many.join(","), "at most 32"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Peers>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
