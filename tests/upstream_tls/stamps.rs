//! Properties of stamps.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use vkey::record::{Record as _, decode};
use vkey::upstream_tls::{
    Policy, Stamp, UpstreamHost, UpstreamPattern, UpstreamStatus, upstream_status_name,
};

use crate::strategies::PATTERNS;

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

/// A length-delimited field of a protobuf message.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let len = u64::try_from(bytes.len()).unwrap();
    [&varint(number << 3 | 2), &varint(len), bytes].concat()
}

/// An entry of a map that is field 1 of its message.
fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    field(1, &[field(1, key.as_bytes()), field(2, value)].concat())
}

fn text(text: &str) -> Vec<u8> {
    field(3, text.as_bytes())
}

/// Unknown fields, of every wire type.
fn unknown() -> impl Strategy<Value = Vec<u8>> {
    let number = 7..2_000_u64;
    let field = (number, 0..4_usize, any::<u64>(), vec(any::<u8>(), 0..200)).prop_map(
        |(number, kind, value, bytes)| match kind {
            0 => [varint(number << 3), varint(value)].concat(),
            1 => [&varint(number << 3 | 1)[..], &value.to_le_bytes()].concat(),
            2 => field(number, &bytes),
            _ => [&varint(number << 3 | 5)[..], &value.to_le_bytes()[..4]].concat(),
        },
    );
    vec(field, 0..3).prop_map(|fields| fields.concat())
}

/// The metadata of a cluster with a stamp somewhere in it.
fn metadata(policy: &str, hosts: &[&str], unknown: &[Vec<u8>; 3], first: bool) -> Vec<u8> {
    let values: Vec<u8> = hosts.iter().flat_map(|host| field(1, &text(host))).collect();
    let hosts = entry(Stamp::HOSTS, &field(6, &[&*unknown[0], &values].concat()));
    let policy = entry(Stamp::POLICY, &text(policy));
    let members = if first { [policy, hosts] } else { [hosts, policy] };
    let own = [members.concat(), unknown[1].clone(), entry("other", &text("policy"))].concat();
    let own = entry(Stamp::NAMESPACE, &own);
    let foreign = entry("istio", &entry(Stamp::POLICY, &text("another")));
    let entries = if first { [own, foreign] } else { [foreign, own] };
    [unknown[2].clone(), entries.concat()].concat()
}

proptest! {
    #[test]
    fn a_stamp_is_read_as_it_was_written(
        policy in "[0-9a-f]{0,64}|\\PC{0,20}",
        hosts in vec(select(PATTERNS), 0..65),
        unknown in [unknown(), unknown(), unknown()],
        first: bool,
    ) {
        let bytes = metadata(&policy, &hosts, &unknown, first);
        let patterns = hosts.iter().map(|host| UpstreamPattern::parse(host).unwrap()).collect();
        prop_assert_eq!(Stamp::from_metadata(&bytes), Some(Stamp { policy, hosts: patterns }));
    }

    #[test]
    fn invalid_bytes_are_ignored(
        bytes in vec(any::<u8>(), 0..200),
        hosts in vec(select(PATTERNS), 0..5),
        (unknown, first) in ([unknown(), unknown(), unknown()], any::<bool>()),
        (at, byte, end) in (any::<Index>(), any::<u8>(), any::<Index>()),
    ) {
        _ = Stamp::from_metadata(&bytes);
        let mut whole = metadata("policy", &hosts, &unknown, first);
        whole.truncate(end.index(whole.len() + 1));
        _ = Stamp::from_metadata(&whole);
        if !whole.is_empty() {
            let at = at.index(whole.len());
            whole[at] = byte;
            _ = Stamp::from_metadata(&whole);
        }
        _ = Stamp::from_metadata(&entry(Stamp::NAMESPACE, &bytes));
        _ = Stamp::from_metadata(&entry(Stamp::NAMESPACE, &entry(Stamp::HOSTS, &bytes)));
        _ = UpstreamHost::parse(&bytes).to_string();
        _ = Policy::parse(&bytes).is_ok();
        _ = UpstreamStatus::read(&mut &*bytes);
        _ = decode::<UpstreamStatus>(&upstream_status_name(&String::from_utf8_lossy(&bytes)), &bytes);
    }
}
