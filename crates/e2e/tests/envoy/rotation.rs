//! Signing keys change under load, and nobody notices who keeps to the rules.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::json;
use vkey::audit::AuditRecord;
use vkey::decision::{Decision, DenyReason};
use vkey::key::keyring::Rotation;

use crate::keys::{Minter, VARIABLE, now_secs, options, records};
use crate::support::{Connection, Envoy, Request};

const INTERVAL_SECS: u64 = 2;
const MAX_AGE_SECS: u64 = 5;
const EPOCH_CHANGES: u64 = 3;
const CONNECTIONS: usize = 16;

#[test]
fn three_epochs_pass_without_a_refusal() {
    let rotation = Rotation::new(INTERVAL_SECS, MAX_AGE_SECS, true).unwrap();
    let minter = Minter::new("main", Some(rotation));
    let secret = format!("${{{VARIABLE}}}");
    let ring = json!({"interval": "2s", "max_age": "5s", "keep_expired": true});
    let keyring = json!([{"name": "main", "secret": secret, "rotation": ring}]);
    let envoy =
        Envoy::start(options("rotation", &minter, json!({"keyring": keyring})).concurrency(2));
    let first_epoch = rotation.epoch_at(now_secs());
    let over =
        || rotation.epoch_at(now_secs()) > first_epoch + u32::try_from(EPOCH_CHANGES).unwrap();
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        for client in 0..CONNECTIONS {
            let (envoy, minter, sent) = (&envoy, &minter, &sent);
            scope.spawn(move || {
                let mut connection = Connection::open(envoy.gate());
                while !over() {
                    for key in usable_keys(minter, &rotation, client) {
                        let answer =
                            connection.send(&Request::new("GET", "/v1/models").bearer(&key));
                        assert_eq!(answer.status, 200);
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    thread::yield_now();
                }
            });
        }
    });
    let old = minter.key_at(now_secs() - MAX_AGE_SECS - INTERVAL_SECS, "old", json!({}));
    assert_eq!(envoy.send(&Request::new("GET", "/v1/models").bearer(&old)).status, 401);
    let sent = sent.into_inner();
    println!("{sent} requests over {EPOCH_CHANGES} changes of epoch");
    let records = records(&envoy, usize::try_from(sent + 1).unwrap());
    assert_eq!(records.last().unwrap().decision, Some(Decision::Deny(DenyReason::KeyRetired)));
    assert_eq!(records.last().unwrap().jti.as_deref(), Some("old"));
    let overlap = |record: &&AuditRecord<'_>| {
        record.jti.as_ref().is_some_and(|jti| jti.starts_with("overlap"))
    };
    let overlapping = records.iter().filter(overlap).map(|record| record.kid.clone());
    let overlapping = overlapping.collect::<std::collections::BTreeSet<_>>().len();
    assert!(overlapping >= usize::try_from(EPOCH_CHANGES).unwrap(), "{overlapping} epochs");
    let mut kids: Vec<_> =
        records.into_iter().filter_map(|record: AuditRecord<'_>| record.kid).collect();
    kids.sort();
    kids.dedup();
    assert!(kids.len() > usize::try_from(EPOCH_CHANGES).unwrap(), "{kids:?}");
}

/// A fresh key, and one of the epoch before that is in its overlap and will be for long enough to be
/// sent.
fn usable_keys(minter: &Minter, rotation: &Rotation, client: usize) -> Vec<String> {
    let now = now_secs();
    let before = now - INTERVAL_SECS;
    let mut keys = vec![minter.key_at(now, &format!("fresh-{client}"), json!({}))];
    if rotation.end_of(rotation.epoch_at(before)) > now + 1 {
        keys.push(minter.key_at(before, &format!("overlap-{client}"), json!({})));
    }
    keys
}

/// The same key is good to the last second of its signing key and not one longer.
#[test]
fn a_key_ends_with_its_signing_key() {
    let rotation = Rotation::new(1, 2, false).unwrap();
    let minter = Minter::new("main", Some(rotation));
    let secret = format!("${{{VARIABLE}}}");
    let keyring = json!([{
        "name": "main", "secret": secret, "rotation": {"interval": "1s", "max_age": "2s"},
    }]);
    let envoy = Envoy::start(options("ends", &minter, json!({"keyring": keyring})));
    let minted_at = now_secs();
    let key = minter.key_at(minted_at, "k1", json!({}));
    let end = rotation.end_of(rotation.epoch_at(minted_at));
    let mut connection = Connection::open(envoy.gate());
    let (mut allowed, mut refused) = (0, 0);
    while refused < 100 {
        let before = now_secs();
        let status = connection.send(&Request::new("GET", "/v1/models").bearer(&key)).status;
        let after = now_secs();
        // What is decided while the second changes may go either way.
        if after < end {
            assert_eq!(status, 200);
            allowed += 1;
        } else if before >= end {
            assert_eq!(status, 401);
            refused += 1;
        }
    }
    assert!(allowed > 0);
}
