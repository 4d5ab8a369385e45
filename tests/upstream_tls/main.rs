//! Properties of the upstream-TLS policy for every file, configuration, host and connection, and the golden
//! list of spellings.

#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod stamps;
mod strategies;

use std::cell::Cell;
use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;
use serde::Deserialize;
use vkey::decision::DenyReason;
use vkey::upstream_tls::{
    Demand, EffectivePolicy, NameProof, Policy, Requirement, TlsVersion, UpstreamHost,
    UpstreamPattern, Verdict,
};

use strategies::{HOSTS, Shown, authority, connection, now, policy, spell, tighten, tightening};

// === the golden list ===

/// A spelling of a host in a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    spelling: String,
    /// Its canonical form; `null` if it is unreadable.
    host: Option<String>,
    /// Whether it counts as a known host of the shipped policy.
    known: bool,
    about: String,
}

#[test]
fn every_spelling_is_parsed_as_the_list_says() {
    let list = std::fs::read("testdata/hosts.json").unwrap();
    let list: Vec<Golden> = serde_json::from_slice(&list).unwrap();
    let spellings: BTreeSet<&str> = list.iter().map(|golden| golden.spelling.as_str()).collect();
    assert!(spellings.len() >= 60 && spellings.len() == list.len(), "{}", spellings.len());
    let policy = std::fs::read("filters/vkey/upstream-tls.json").unwrap();
    let policy = EffectivePolicy::new(Policy::parse(&policy).unwrap(), Box::default());
    for Golden { spelling, host, known, about } in list {
        let read = UpstreamHost::parse(spelling.as_bytes());
        match &host {
            Some(host) => {
                assert_eq!(read.to_string(), *host, "{spelling:?}: {about}");
                assert_ne!(read, UpstreamHost::Unreadable, "{spelling:?}: {about}");
            }
            None => assert_eq!(read, UpstreamHost::Unreadable, "{spelling:?}: {about}"),
        }
        assert_eq!(policy.file().knows(&read), known, "{spelling:?}: {about}");
        let verified = matches!(policy.demand(&read, 0), Demand::Verify(_));
        assert_eq!(verified, known, "{spelling:?}: {about}");
        // An unreadable spelling is never allowed, so it must count as known.
        assert!(known || host.is_some(), "{spelling:?}: {about}");
    }
}

// === properties ===

fn evaluate(
    policy: &EffectivePolicy,
    host: &UpstreamHost<'_>,
    now_secs: u64,
    shown: &Shown,
    stamped: bool,
) -> Option<Verdict> {
    match policy.demand(host, now_secs) {
        Demand::Skip(_) => Some(Verdict::Skip),
        Demand::Unlisted => Some(Verdict::Unlisted),
        Demand::Verify(requirement) => requirement.evaluate(host, shown, stamped),
    }
}

fn passes(verdict: Option<Verdict>) -> bool {
    verdict.is_some_and(|verdict| verdict.refusal().is_none())
}

/// Whether each part of a demand is at least as strict as that of the other.
fn is_as_strict(demand: &Demand<'_>, other: &Demand<'_>) -> bool {
    match (demand, other) {
        (Demand::Skip(skip), Demand::Skip(other)) => skip == other,
        (Demand::Unlisted, Demand::Unlisted) => true,
        (Demand::Verify(_), Demand::Skip(_) | Demand::Unlisted) => true,
        (Demand::Verify(one), Demand::Verify(other)) => {
            one.min_version >= other.min_version
                && other.pins.iter().all(|pins| one.pins.contains(pins))
                && (one.client_certificate || !other.client_certificate)
        }
        (Demand::Skip(_) | Demand::Unlisted, _) => false,
    }
}

#[test]
fn a_configuration_never_makes_the_file_weaker() {
    let rules = (vec(tightening(), 0..4), tightening());
    let strategy = (policy(), rules, authority(), now(), connection(), any::<bool>());
    let passed = Cell::new((0, 0, 0));
    // At least this many for any `PROPTEST_CASES`: only one case in sixty has a rule that refuses more.
    let cases = ProptestConfig::default().cases.max(2_000);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(cases));
    let outcome =
        runner.run(&strategy, |(file, (some, one), authority, now_secs, shown, stamped)| {
            let more = [&*some, &[one]].concat();
            let file = EffectivePolicy::new(file, Box::default());
            let some = EffectivePolicy::new(file.file().clone(), tighten(&some));
            let more = EffectivePolicy::new(file.file().clone(), tighten(&more));
            let host = UpstreamHost::parse(authority.as_bytes());
            let policies = [&file, &some, &more];
            let [of_file, of_some, of_more] = policies.map(|policy| policy.demand(&host, now_secs));
            prop_assert!(is_as_strict(&of_some, &of_file), "{of_some:?} {of_file:?}");
            prop_assert!(is_as_strict(&of_more, &of_some), "{of_more:?} {of_some:?}");
            let [by_file, by_some, by_more] =
                policies.map(|policy| passes(evaluate(policy, &host, now_secs, &shown, stamped)));
            prop_assert!(by_file || !by_some);
            prop_assert!(by_some || !by_more);
            let count = passed.get();
            passed.set((
                count.0 + u32::from(by_file),
                count.1 + u32::from(by_some),
                count.2 + u32::from(by_more),
            ));
            Ok(())
        });
    outcome.unwrap();
    // The test is meaningful only if connections pass and rules refuse some.
    let (by_file, by_some, by_more) = passed.get();
    let enough = cases / 200;
    let taken = by_file >= by_some + enough && by_some >= by_more + enough;
    assert!(by_more >= cases / 10 && taken, "{passed:?} of {cases}");
}

proptest! {
    #[test]
    fn a_known_host_is_verified_however_it_is_spelled(
        (file, at) in (policy(), any::<Index>()),
        rules in vec(tightening(), 0..3),
        below in of(select(&["a.", "a.b.", "xn--bcher-kva."][..])),
        (upper, dot) in (vec(any::<bool>(), 1..9), any::<bool>()),
        port in select(&["", ":1", ":80", ":65535"][..]),
        (now_secs, shown, stamped) in (now(), connection(), any::<bool>()),
    ) {
        if file.known_hosts().is_empty() {
            return Ok(());
        }
        let known = file.known_hosts()[at.index(file.known_hosts().len())].to_string();
        let is_address = known.parse::<std::net::Ipv4Addr>().is_ok() || known.starts_with('[');
        let host = match known.strip_prefix("*.") {
            Some(suffix) => format!("{}{suffix}", below.unwrap_or("x.")),
            None if is_address => known,
            None => format!("{}{known}", below.unwrap_or_default()),
        };
        let spelling = spell(&host, &upper, dot, port);
        let host = UpstreamHost::parse(spelling.as_bytes());
        prop_assert!(host != UpstreamHost::Unreadable && file.knows(&host), "{spelling}");
        let policy = EffectivePolicy::new(file, tighten(&rules));
        let demand = policy.demand(&host, now_secs);
        prop_assert!(demand.is_covered());
        let Demand::Verify(requirement) = demand else { panic!("{spelling}: {demand:?}") };
        prop_assert!(requirement.min_version >= TlsVersion::V1_2);
        if passes(evaluate(&policy, &host, now_secs, &shown, stamped)) {
            prop_assert!(shown.version >= Some(TlsVersion::V1_2));
        }
    }

    #[test]
    fn spellings_of_one_host_are_treated_alike(
        file in policy(),
        rules in vec(tightening(), 0..3),
        host in select(HOSTS),
        upper in vec(any::<bool>(), 1..9),
        dot: bool,
        port in select(&["", ":1", ":443", ":080"][..]),
        now_secs in now(),
    ) {
        let policy = EffectivePolicy::new(file, tighten(&rules));
        let other = spell(host, &upper, dot, port);
        let (one, other) = (UpstreamHost::parse(host.as_bytes()), UpstreamHost::parse(other.as_bytes()));
        prop_assert_eq!(&one, &other);
        let demands = [&one, &other].map(|host| format!("{:?}", policy.demand(host, now_secs)));
        prop_assert_eq!(&demands[0], &demands[1]);
    }

    #[test]
    fn a_host_with_an_invalid_port_is_unreadable(
        host in select(HOSTS),
        upper in vec(any::<bool>(), 1..9),
        dot: bool,
        port in prop_oneof![
            select(&[":", ":0", ":00000", ":65536", ":99999", ":x", ":4x3", ":-1", ":+443"][..]).prop_map(str::to_owned),
            (65_536_u64..).prop_map(|port| format!(":{port}")),
            "(:[0-9]{0,4}){2}",
            ":[0-9]{6,9}",
        ],
    ) {
        let spelling = spell(host, &upper, dot, &port);
        prop_assert_eq!(UpstreamHost::parse(spelling.as_bytes()), UpstreamHost::Unreadable);
    }

    #[test]
    fn parsed_hosts_are_in_canonical_form(authority in prop_oneof![
        authority(),
        "[a-zA-Z0-9.:\\[\\]%@_-]{0,20}",
        "(xn--|XN--)?[a-z0-9-]{0,6}(\\.[a-z0-9x-]{0,4}){0,4}",
        "(0x)?[0-9a-fx]{0,9}(\\.[0-9x]{0,4}){0,4}",
    ]) {
        let host = UpstreamHost::parse(authority.as_bytes());
        let text = match &host {
            UpstreamHost::Unreadable => return Ok(()),
            UpstreamHost::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
            host => host.to_string(),
        };
        prop_assert_eq!(&UpstreamHost::parse(text.as_bytes()), &host);
        // A rule can name exactly the hosts that can be parsed.
        let pattern = UpstreamPattern::parse(&text).unwrap();
        prop_assert!(pattern.matches(&host) && pattern.to_string() == text);
        let wildcard = UpstreamPattern::parse(&format!("*.{text}"));
        prop_assert!(wildcard.is_none_or(|wildcard| !wildcard.matches(&host)));
    }

    #[test]
    fn a_verdict_agrees_with_the_connection(
        (file, rules) in (policy(), vec(tightening(), 0..4)),
        authority in authority(),
        (now_secs, shown, stamped) in (now(), connection(), any::<bool>()),
    ) {
        let policy = EffectivePolicy::new(file, tighten(&rules));
        let host = UpstreamHost::parse(authority.as_bytes());
        let Demand::Verify(requirement) = policy.demand(&host, now_secs) else { return Ok(()) };
        let verdict = requirement.evaluate(&host, &shown, stamped);
        prop_assert_eq!(verdict, expected(&requirement, &host, &shown, stamped));
    }
}

/// A second implementation of the verdict: one line for each reason, in order.
fn expected(
    requirement: &Requirement<'_>,
    host: &UpstreamHost<'_>,
    shown: &Shown,
    stamped: bool,
) -> Option<Verdict> {
    let in_all = |digest: &String| requirement.pins.iter().all(|pins| pins.contains(digest));
    let hides_pin = shown.digest.is_none() && !requirement.pins.is_empty();
    let differs = shown.name == NameProof::FirstDiffers;
    let unreadable = *host == UpstreamHost::Unreadable;
    let hidden = hides_pin || differs || shown.name == NameProof::NotShown;
    let reasons = [
        (unreadable, DenyReason::UpstreamName),
        (shown.version.is_none(), DenyReason::UpstreamPlaintext),
        (shown.version < Some(requirement.min_version), DenyReason::UpstreamVersion),
        (shown.digest.as_ref().is_some_and(|digest| !in_all(digest)), DenyReason::UpstreamPin),
        (shown.name == NameProof::Differs, DenyReason::UpstreamName),
        (differs && !stamped, DenyReason::UpstreamName),
        (requirement.client_certificate && !shown.client, DenyReason::UpstreamClientCert),
        (hidden && !stamped, DenyReason::UpstreamUnproven),
    ];
    let refused = reasons.into_iter().find(|(wrong, _)| *wrong);
    match refused {
        Some(_) if shown.version.is_none() && !shown.up => None,
        Some((_, reason)) => Some(Verdict::Refused(reason)),
        None if hidden => Some(Verdict::Stamped),
        None => Some(Verdict::Verified),
    }
}
