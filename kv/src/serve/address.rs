//! Where a member listens for the others, as it is kept for all of them.
//!
//! Knows no member. Invariant: what passes breaks no line and no list that INFO tells members in.

use lakebed::membership::ADDRESS_BYTES_MAX;
use std::fmt;

/// Why an address cannot be a member's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WrongAddress {
    /// It is no `HOST:PORT`.
    Form,
    /// Nobody listens at port zero.
    PortZero,
    /// It is longer than a membership holds.
    TooLong,
}

impl fmt::Display for WrongAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("it must be HOST:PORT, such as 127.0.0.1:8401"),
            Self::PortZero => f.write_str("ports begin at 1"),
            Self::TooLong => write!(f, "an address has at most {ADDRESS_BYTES_MAX} characters"),
        }
    }
}

impl std::error::Error for WrongAddress {}

/// Whether an address may be a member's. A host's name stays one: the machine behind it may get another
/// number.
pub fn check_address(address: &str) -> Result<(), WrongAddress> {
    let (host, port) = address.rsplit_once(':').ok_or(WrongAddress::Form)?;
    let port: u16 = port.parse().map_err(|_| WrongAddress::Form)?;
    if port == 0 {
        return Err(WrongAddress::PortZero);
    }
    if host.is_empty() || host.contains(is_odd) {
        return Err(WrongAddress::Form);
    }
    if address.len() > ADDRESS_BYTES_MAX {
        return Err(WrongAddress::TooLong);
    }
    Ok(())
}

/// What members are told apart by, and lines.
pub(crate) fn is_odd(c: char) -> bool {
    c.is_whitespace() || c.is_control() || ['@', ',', '='].contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for text in ["nowhere.invalid:8401", "localhost:1", "127.0.0.1:8401", "[::1]:8401"] {
            assert_eq!(check_address(text), Ok(()), "{text}");
        }
        let long = format!("{}:1", "h".repeat(ADDRESS_BYTES_MAX));
        let odd = [
            "",
            "host",
            ":1",
            "host:",
            "host:http",
            "host:70000",
            "a b:1",
            "a,b:1",
            "@:1",
            "a=b:1",
        ];
        for text in odd.into_iter().chain(["a\r\nrole:king", "a:1\r\nrole:1", "a\0:1"]) {
            assert_eq!(check_address(text), Err(WrongAddress::Form), "{text:?}");
        }
        assert_eq!(check_address("host:0"), Err(WrongAddress::PortZero));
        assert_eq!(check_address(&long), Err(WrongAddress::TooLong));
    }
}
