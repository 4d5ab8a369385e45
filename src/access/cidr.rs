//! Client addresses and the networks they are matched against.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::json::decimal::push_decimal;

/// A network in CIDR notation (RFC 4632, RFC 4291 section 2.3). IPv4-mapped IPv6 is IPv4, here and
/// in the addresses compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: u128,
    mask: u128,
    v4: bool,
}

/// The text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCidr(());

impl Cidr {
    /// Whether the address lies in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, v4) = bits(address);
        v4 == self.v4 && bits & self.mask == self.network
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    /// Reads `address/prefix`, or an address alone for just that one. Host bits are ignored.
    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidCidr(()))?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            Some(_) => None,
            None => Some(max),
        };
        let prefix: u32 = prefix.filter(|prefix| *prefix <= max).ok_or(InvalidCidr(()))?;
        let (bits, v4) = bits(address);
        // A prefix of mapped addresses that reaches into the mapping itself names no IPv4 network.
        let prefix = if v4 { (prefix + 32).checked_sub(max) } else { Some(prefix) };
        let width = if v4 { 32 } else { 128 };
        let mask = mask(prefix.ok_or(InvalidCidr(()))?, width);
        Ok(Self { network: bits & mask, mask, v4 })
    }
}

/// An address as it is usually written.
pub(crate) fn address_text(address: IpAddr) -> String {
    let IpAddr::V4(v4) = address else {
        return address.to_string();
    };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (index, octet) in v4.octets().into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        push_decimal(&mut text, octet.into());
    }
    text
}

/// Reads a host's `source.address`, or an entry of `x-forwarded-for`: `10.1.2.3:443`, `[::1]:443`, or an
/// address without a port. An IPv6 address may stand in brackets without a port too, as in authorities
/// (RFC 3986, section 3.2.2).
pub fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let literal = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match literal {
        Some(v6) => v6.parse::<Ipv6Addr>().ok()?.into(),
        None => {
            let socket = text.parse().map(|socket: SocketAddr| socket.ip());
            socket.or_else(|_| text.parse()).ok()?
        }
    };
    Some(address.to_canonical())
}

fn bits(address: IpAddr) -> (u128, bool) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (u128::from(Ipv4Addr::to_bits(v4)), true),
        IpAddr::V6(v6) => (Ipv6Addr::to_bits(v6), false),
    }
}

/// The upper `prefix` of `width` bits.
fn mask(prefix: u32, width: u32) -> u128 {
    let all = u128::MAX >> (128 - width);
    all & !all.checked_shr(prefix).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for text in ["0.0.0.0", "10.1.22.255", "2001:db8::1", "::ffff:192.0.2.1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(address_text(address), address.to_string());
        }
    }

    #[track_caller]
    fn check(cidr: &str, address: &str, contains: bool) {
        let cidr: Cidr = cidr.parse().unwrap();
        assert_eq!(cidr.contains(address.parse().unwrap()), contains);
    }

    #[test]
    fn addresses_are_in_networks() {
        check("10.0.0.0/8", "10.1.2.3", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.9.9.9/8", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.4", false);
        check("0.0.0.0/0", "255.255.255.255", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "2001:db8::1", true);
        check("::/0", "10.0.0.1", false);
        check("2001:db8::/32", "2001:db8:ffff::1", true);
        check("2001:db8::1/128", "2001:db8::2", false);
    }

    #[test]
    fn mapped_addresses_are_v4() {
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("::ffff:10.0.0.0/104", "10.1.2.3", true);
        check("::ffff:10.0.0.0/104", "11.1.2.3", false);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/+8", "a/8"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
        assert!("::ffff:10.0.0.0/95".parse::<Cidr>().is_err());
    }

    #[test]
    fn source_addresses_lose_their_port() {
        assert_eq!(parse_address(b"127.0.0.1:80"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(parse_address(b"[2001:db8::1]:80"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(parse_address(b"::ffff:10.0.0.1"), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(parse_address(b"unknown"), None);
        assert_eq!(parse_address(b"[2001:db8::1]"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(parse_address(b" [::ffff:10.0.0.1] "), Some("10.0.0.1".parse().unwrap()));
        for wrong in
            ["[]", "[10.0.0.1]", "[[::1]]", "[::1", "::1]", "[::1]:", "[::1]x", "[::1%25lo]"]
        {
            assert_eq!(parse_address(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(parse_address(b"\xff"), None);
    }
}
