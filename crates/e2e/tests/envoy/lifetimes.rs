//! How long counts live: through whatever does not end the process.

use serde_json::{Map, Value, json};

use crate::keys::{Minter, now_secs, options};
use crate::load::{Tally, usage};
use crate::metrics::{Series, series};
use crate::support::{Connection, Envoy, Request, artefact, config, wait_for};
use crate::updates::{Listener, stat};

/// What each key has used before whatever comes.
const USED: usize = 4;

fn status(envoy: &Envoy, key: &str, path: &str) -> u16 {
    envoy.send(&Request::new("GET", path).bearer(key)).status
}

fn own_usage(envoy: &Envoy, key: &str) -> Value {
    usage(&mut Connection::open(envoy.gate()), key, "")
}

/// Uses a key as often as there is room, to the bitter end.
fn use_up(envoy: &Envoy, key: &str) -> usize {
    std::iter::repeat_with(|| status(envoy, key, "/v1/models"))
        .take_while(|status| *status == 200)
        .count()
}

fn use_some(envoy: &Envoy, key: &str) {
    for _ in 0..USED {
        assert_eq!(status(envoy, key, "/v1/models"), 200);
    }
}

fn quota(requests: u64) -> Value {
    json!({"only": {"paths": ["/v1/**"]}, "quotas": [{"requests": requests, "per": "total"}]})
}

fn rate(requests: u64, burst: u64) -> Value {
    json!({"rate": {"requests": requests, "per": "100d", "burst": burst}})
}

/// The limit of a tier before and after an update, and what is left of it then.
struct Change {
    tier: &'static str,
    before: Value,
    after: Value,
    left: usize,
}

fn changes() -> [Change; 6] {
    let change = |tier, before, after, left| Change { tier, before, after, left };
    [
        change("same-quota", quota(10), quota(10), 6),
        change("more-quota", quota(10), quota(12), 8),
        change("less-quota", quota(10), quota(3), 0),
        change("same-rate", rate(10, 10), rate(10, 10), 6),
        change("more-burst", rate(10, 10), rate(10, 15), 11),
        // A rate keeps the time that its backlog takes: at twice the speed, twice as many requests.
        change("more-speed", rate(10, 10), rate(20, 20), 12),
    ]
}

fn tiers(limits: fn(Change) -> Value) -> Value {
    let tier = |change: Change| (change.tier.to_owned(), limits(change));
    json!({"tiers": changes().map(tier).into_iter().collect::<Map<_, _>>()})
}

#[test]
fn an_update_keeps_what_was_used() {
    let main = Minter::new("main", None);
    let (envoy, mut listener) =
        Listener::start(options("keeps", &main, json!({})), tiers(|change| change.before));
    let key = |tier: &str| main.key(tier, json!({"tier": tier}));
    for Change { tier, .. } in changes() {
        use_some(&envoy, &key(tier));
    }
    listener.publish(tiers(|change| change.after));
    wait_for_limit(&envoy, &key("more-quota"), 12);
    for Change { tier, left, .. } in changes() {
        let remaining = &own_usage(&envoy, &key(tier))["limits"][0]["remaining"];
        assert_eq!(*remaining, left, "{tier}");
        assert_eq!(use_up(&envoy, &key(tier)), left, "{tier}");
        assert_eq!(own_usage(&envoy, &key(tier))["seen"], USED + left + 1, "{tier}");
    }
}

/// Waits until the configuration is in force that sets this limit. To ask for usage uses nothing.
fn wait_for_limit(envoy: &Envoy, key: &str, limit: u64) {
    let in_force = || (own_usage(envoy, key)["limits"][0]["limit"] == limit).then_some(());
    wait_for(in_force, || envoy.proxy_log());
}

/// VMs so far. To try a configuration takes one more, and a new module takes more than that.
fn created_vms(envoy: &Envoy) -> u64 {
    stat(envoy, "wasm.envoy.wasm.runtime.v8.created")
}

#[test]
fn counts_outlive_a_module_and_belong_to_its_vm_id() {
    let main = Minter::new("main", None);
    let plugin = |requests| json!({"tiers": {"default": quota(requests)}});
    let (envoy, mut listener) = Listener::start(options("modules", &main, json!({})), plugin(10));
    let key = main.key("k1", json!({}));
    use_some(&envoy, &key);
    let seen_and_left = || {
        let usage = own_usage(&envoy, &key);
        (usage["seen"].as_u64().unwrap(), usage["limits"][0]["remaining"].as_u64().unwrap())
    };
    let vms = created_vms(&envoy);
    listener.publish(plugin(11));
    wait_for_limit(&envoy, &key, 11);
    let for_configuration = created_vms(&envoy) - vms;
    assert_eq!(seen_and_left(), (4, 7));

    listener.edit(|config| {
        config::wasm(config)["vm_config"]["code"]["local"]["filename"] =
            json!(artefact("VKEY_TEST_WASM_FAULTS"));
    });
    listener.publish(plugin(12));
    wait_for_limit(&envoy, &key, 12);
    let for_module = created_vms(&envoy) - vms - for_configuration;
    assert!(for_module > for_configuration, "{for_module} and {for_configuration} VMs");
    assert_eq!(seen_and_left(), (4, 8));

    listener.edit(|config| config::wasm(config)["vm_config"]["vm_id"] = json!("another"));
    listener.publish(plugin(13));
    wait_for_limit(&envoy, &key, 13);
    assert_eq!(seen_and_left(), (0, 13));
}

/// One worker, so that all that is seen afterwards comes from the VM that was started afresh. The module traps when it
/// replies: then the record of the request is final.
#[test]
fn a_trap_loses_no_count_and_no_record_that_is_final() {
    let main = Minter::new("main", None);
    let plugin = json!({"tiers": {"default": quota(10)}, "tenants": {"acme": {}}});
    let options = options("trap", &main, plugin)
        .module(artefact("VKEY_TEST_WASM_FAULTS"))
        .env("VKEY_FAULT", "reply_traps");
    let envoy = Envoy::start(options);
    let key = main.key("k1", json!({}));
    use_some(&envoy, &key);
    assert_eq!(status(&envoy, &key, "/trap"), 503);
    wait_for(|| (status(&envoy, &key, "/.vkey/usage") == 200).then_some(()), || envoy.proxy_log());
    assert_eq!(stat(&envoy, "wasm.vkey.vm_reload_success"), 1);
    let usage = own_usage(&envoy, &key);
    assert_eq!((&usage["allowed"], &usage["denied"]["forbidden"]), (&json!(USED), &json!(1)));
    assert_eq!(usage["limits"][0]["remaining"], 10 - USED);
    assert_eq!(use_up(&envoy, &key), 10 - USED);
    let metrics = series(&envoy, "vkey_requests_total");
    let trapped = |series: &Series| series.labels["reason"] == "path";
    assert_eq!(metrics.iter().find(|series| trapped(series)).map(|series| series.value), Some(1));
    envoy.stop();
    // Envoy tells the module no more of the request. What it replies until the module is back has no record.
    let lines = envoy.access_log();
    let lines: Vec<_> =
        lines.iter().filter(|line| !line.starts_with(r#"{"vkey":"-""#)).cloned().collect();
    let Tally { limited, refused, .. } = Tally::of_lines(&lines)["acme"];
    assert_eq!((limited, refused), (1, 1));
}

#[test]
fn a_restart_begins_at_zero() {
    let main = Minter::new("main", None);
    let plugin = json!({"tiers": {"default": quota(10)}});
    let key = main.key("k1", json!({}));
    for _ in 0..2 {
        let started = now_secs();
        let envoy = Envoy::start(options("restart", &main, plugin.clone()));
        assert!(own_usage(&envoy, &key)["since"].as_u64() >= Some(started));
        assert_eq!(use_up(&envoy, &key), 10);
        assert_eq!(own_usage(&envoy, &key)["seen"], 11);
        envoy.stop();
    }
}
