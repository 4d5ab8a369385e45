//! The groups of cases.

use crate::calls::{Message, Server};
use crate::cases::{Ask, Case, Credential, Fresh, Group, Proxy};
use crate::filters::{CALLER_TIER, Chain, Gate, METERED_TIER, NARROW_TIER, tenant_name};
use crate::keys::{Claims, Issuer, broken};
use crate::pieces::{BARE, FEW, UNMETERED};
use crate::provider::{HOST, Provider};
use crate::streams::{Chat, Streams};

/// The cases of one worker that are counted when none are named: counting all takes twice as long.
const TELLING: [&str; 28] = [
    "bare", "noop", "floor", "verify", "verify-first", "rules", "limits", "audit", "all",
    "all-first", "all-16", "chained", "jwt", "jwt-cached", "ratelimit", "native", "native-cached",
    "direct", "gated", "invalid", "missing", "limited", "forbidden", "keys-1", "keys-100000",
    "mcp-bare", "mcp-plain", "mcp-call",
];

/// All groups. Those of whose cases none is wanted are left out, and so are listeners.
pub(crate) fn all(issuer: &Issuer, provider: &Provider, wanted: &str) -> Vec<Group> {
    let groups = [filters(issuer, provider), denials(issuer), scaling()];
    groups.into_iter().filter_map(|group| group.only(wanted)).collect()
}

/// The cases of one worker as one group; without a text, some that tell most.
pub(crate) fn one_worker(
    issuer: &Issuer,
    provider: &Provider,
    server: &Server,
    wanted: &str,
) -> Option<Group> {
    let mut all = filters(issuer, provider);
    for group in [denials(issuer), scaling()] {
        let cases = group.cases.into_iter().filter(|case| case.proxy == 0 && case.id != case.base);
        all.cases.extend(cases.map(|case| case.over("bare", "noop")));
        let listeners = group.proxies.into_iter().take(1).flat_map(|proxy| proxy.listeners);
        if let Some(proxy) = all.proxies.first_mut() {
            proxy.listeners.extend(listeners.filter(|(name, _)| *name != "bare"));
        }
    }
    let calls = calls(issuer, server);
    all.cases.extend(calls.cases);
    if let Some((all, calls)) = all.proxies.first_mut().zip(calls.proxies.into_iter().next()) {
        all.listeners.extend(calls.listeners);
    }
    if wanted.is_empty() {
        all.cases.retain(|case| TELLING.contains(&case.id));
    }
    all.only(wanted)
}

fn key(issuer: &Issuer, number: usize, caveats: usize) -> String {
    issuer.key(&Claims { caveats, ..Claims::new(tenant_name(0), number) })
}

fn fresh(caveats: usize) -> Ask {
    Ask::new(Credential::Fresh(Fresh { caveats, valid: true }))
}

/// Envoy's filters and the gate, one listener each.
fn filters(issuer: &Issuer, provider: &Provider) -> Group {
    let key = |caveats| key(issuer, 1, caveats);
    let jwt = issuer.jwt(&Claims::new(tenant_name(0), 1));
    let good = || Ask::with(key(0));
    let upstream = || good().host(HOST);
    let gate = |id, title, listener| Case::new(id, title, listener, good()).guarded(&key(0));
    let native = |id, title| Case::new(id, title, id, Ask::with(jwt.clone())).guarded(&jwt);
    let outside = good().path("/admin");
    let sized = |id, title, listener, count| Case::new(id, title, listener, good().headers(count));
    let cases = vec![
        Case::new("bare", "no filter", "bare", good()),
        Case::new("noop", "no-op module on the SDK", "noop", good()),
        Case::new("floor", "module of unavoidable calls", "floor", good()),
        gate("verify", "vkey: verify only, cached key", "verify"),
        Case::new("verify-first", "vkey: verify only, first sight", "verify-first", fresh(0))
            .guarded(&key(0)),
        gate("rules", "vkey: + access rules", "rules").check(outside.clone(), 403),
        gate("limits", "vkey: + limits", "limits").check(outside.clone(), 403),
        gate("audit", "vkey: + audit", "audit"),
        gate("all", "vkey: everything on, cached key", "all").check(outside, 403),
        Case::new("all-first", "vkey: everything on, first sight", "all-first", fresh(0))
            .guarded(&key(0)),
        gate("chained", "vkey: everything on, records in a chain", "chained"),
        Case::new("all-4", "vkey: everything on, 4 caveats, cached", "all", Ask::with(key(4)))
            .guarded(&key(4)),
        Case::new("all-16", "vkey: everything on, 16 caveats, cached", "all", Ask::with(key(16)))
            .guarded(&key(16)),
        Case::new(
            "all-4-first",
            "vkey: everything on, 4 caveats, first sight",
            "all-first",
            fresh(4),
        ),
        Case::new(
            "all-16-first",
            "vkey: everything on, 16 caveats, first sight",
            "all-first",
            fresh(16),
        ),
        sized("bare-h10", "no filter, 10 headers", "bare", 10).over("bare-h10", "noop-h10"),
        sized("noop-h10", "no-op module, 10 headers", "noop", 10).over("bare-h10", "noop-h10"),
        sized("all-h10", "vkey: everything on, 10 headers", "all", 10).over("bare-h10", "noop-h10"),
        sized("bare-h60", "no filter, 60 headers", "bare", 60).over("bare-h60", "noop-h60"),
        sized("noop-h60", "no-op module, 60 headers", "noop", 60).over("bare-h60", "noop-h60"),
        sized("all-h60", "vkey: everything on, 60 headers", "all", 60).over("bare-h60", "noop-h60"),
        Case::new("direct", "no filter, upstream over TLS", "direct", upstream())
            .over("direct", "noop"),
        Case::new(
            "gated",
            "vkey: everything on, credential attached upstream",
            "gated",
            upstream(),
        )
        .over("direct", "noop")
        .guarded(&key(0)),
        native("jwt", "jwt_authn (HS256)"),
        native("jwt-cached", "jwt_authn (HS256) with its cache"),
        Case::new("api-key", "api_key_auth", "api-key", good()).guarded(&key(0)),
        Case::new("ratelimit", "local_ratelimit", "ratelimit", good())
            .check(good().path("/limited"), 200)
            .check(good().path("/limited"), 429),
        Case::new("lua", "Lua: compare a key", "lua", good()).guarded(&key(0)),
        native("native", "jwt_authn + local_ratelimit + JSON access log"),
        native("native-cached", "the same, with the cache of jwt_authn"),
        native("native-rules", "the same, no cache, + RBAC + headers from claims")
            .check(Ask::with(jwt.clone()).path("/admin"), 403),
    ];
    let listeners = vec![
        ("bare", Chain::bare()),
        ("noop", Chain::noop("noop")),
        ("floor", Chain::floor("floor")),
        ("verify", Chain::gate(Gate::Verify, "verify")),
        ("verify-first", Chain::gate(Gate::Verify, "verify-first")),
        ("rules", Chain::gate(Gate::Rules, "rules")),
        ("limits", Chain::gate(Gate::Limits, "limits")),
        ("audit", Chain::gate(Gate::Audit, "audit")),
        ("all", Chain::gate(Gate::Everything, "all")),
        ("all-first", Chain::gate(Gate::Everything, "all-first")),
        ("chained", Chain::chained("chained")),
        ("direct", Chain::direct(provider, "direct")),
        ("gated", Chain::gated(provider, "gated")),
        ("jwt", Chain::jwt(issuer, false)),
        ("jwt-cached", Chain::jwt(issuer, true)),
        ("api-key", Chain::api_key(&key(0))),
        ("ratelimit", Chain::local_ratelimit()),
        ("lua", Chain::lua(&key(0))),
        ("native", Chain::native(issuer, false)),
        ("native-cached", Chain::native(issuer, true)),
        ("native-rules", Chain::native_with_rules(issuer)),
    ];
    Group {
        name: "filters",
        title: "One worker",
        proxies: vec![Proxy { workers: 1, cpus: "0", listeners }],
        cases,
        references: vec![("no-op", "noop"), ("floor", "floor"), ("native", "native")],
    }
}

/// Requests that are refused, beside one that is not.
fn denials(issuer: &Issuer) -> Group {
    let good = key(issuer, 1, 0);
    let narrow = Claims { tier: Some(NARROW_TIER), ..Claims::new(tenant_name(0), 2) };
    let narrow = Ask::with(issuer.key(&narrow));
    let flood = Ask::new(Credential::Fresh(Fresh { caveats: 0, valid: false }));
    let case = |id, title, ask| Case::new(id, title, "gate", ask).over("bare", "");
    let cases = vec![
        case("bare", "no filter", Ask::with(good.clone())).listener("bare"),
        case("allowed", "allowed, cached key", Ask::with(good.clone())),
        case("allowed-first", "allowed, first sight", fresh(0)).listener("gate-first"),
        case("invalid-flood", "401, wrong tag, another key each time", flood).expected(401),
        case("invalid", "401, wrong tag, the same key", Ask::with(broken(&good))).expected(401),
        case("malformed", "401, no virtual key", Ask::with("sk-0123456789abcdef")).expected(401),
        case("missing", "401, no key", Ask::new(Credential::None)).expected(401),
        case("limited", "429, over the rate", narrow.clone()).expected(429).check(narrow, 200),
        case("forbidden", "403, path", Ask::with(good).path("/admin")).expected(403),
    ];
    let listeners = vec![
        ("bare", Chain::bare()),
        ("gate", Chain::gate(Gate::Everything, "gate")),
        ("gate-first", Chain::gate(Gate::Everything, "gate-first")),
    ];
    Group {
        name: "denials",
        title: "Refused requests, everything on, one worker",
        proxies: vec![Proxy { workers: 1, cpus: "0", listeners }],
        cases,
        references: vec![("allowed", "allowed")],
    }
}

/// Keys and workers, few and many.
fn scaling() -> Group {
    let many = |count| Ask::new(Credential::Many(count));
    let one = |id, title, listener, count| {
        Case::new(id, title, listener, many(count)).over("bare-w1", "")
    };
    let two = |id, title, listener, count| {
        Case::new(id, title, listener, many(count)).over("bare-w2", "").on(1)
    };
    let cases = vec![
        one("bare-w1", "no filter, one worker", "bare", 1),
        one("keys-1", "1 key, one worker", "keys-1", 1),
        one("keys-1000", "1 000 keys, one worker", "keys-1000", 1000),
        one("keys-100000", "100 000 keys, one worker", "keys-100000", 100_000),
        two("bare-w2", "no filter, two workers", "bare", 1),
        two("keys-1000-w2", "1 000 keys, two workers", "keys-1000", 1000),
        two("keys-1-w2", "1 key, two workers", "keys-1", 1),
    ];
    let gate = |listener| (listener, Chain::gate(Gate::Everything, listener));
    Group {
        name: "scaling",
        title: "Keys and workers, everything on",
        proxies: vec![
            Proxy {
                workers: 1,
                cpus: "0",
                listeners: vec![
                    ("bare", Chain::bare()),
                    gate("keys-1"),
                    gate("keys-1000"),
                    gate("keys-100000"),
                ],
            },
            Proxy {
                workers: 2,
                cpus: "0,1",
                listeners: vec![("bare", Chain::bare()), gate("keys-1"), gate("keys-1000")],
            },
        ],
        cases,
        references: vec![("1 key", "keys-1"), ("1 000 keys", "keys-1000")],
    }
}

/// Streams, which are counted only.
pub(crate) fn streams(issuer: &Issuer, streams: &Streams) -> Group {
    let plain = key(issuer, 1, 0);
    let metered = Claims { tier: Some(METERED_TIER), ..Claims::new(tenant_name(0), 2) };
    let metered = issuer.key(&metered);
    let chat = Chat { pieces: FEW as usize, includes_usage: true, is_metered: false };
    let charged = Chat { is_metered: true, ..chat };
    let case = |id, title, key: &str, chat| {
        let ask = Ask::with(key).chat(chat);
        Case::new(id, title, "gate", ask).over(BARE, "").guarded(key)
    };
    let bare = Ask::with(plain.clone()).chat(chat);
    let cases = vec![
        Case::new(BARE, "no filter", "bare", bare).over(BARE, ""),
        case(UNMETERED, "vkey: everything on, no quota of tokens", &plain, chat),
        case("stream-metered", "vkey: + a quota of tokens", &metered, charged),
        case(
            "stream-stripped",
            "vkey: the same, the usage asked for and removed",
            &metered,
            Chat { includes_usage: false, ..charged },
        ),
    ];
    let listeners =
        vec![("bare", Chain::stream(streams, "bare")), ("gate", Chain::metered(streams, "gate"))];
    Group {
        name: "streams",
        title: "Streams, one worker",
        proxies: vec![Proxy { workers: 1, cpus: "0", listeners }],
        cases,
        references: Vec::new(),
    }
}

/// Messages of MCP, which are counted only.
fn calls(issuer: &Issuer, server: &Server) -> Group {
    let caller = Claims { tier: Some(CALLER_TIER), ..Claims::new(tenant_name(0), 3) };
    let caller = issuer.key(&caller);
    let ask = |path| Ask::with(caller.clone()).path(path).message(Message::ALLOWED);
    let (call, plain) = (|| ask(Message::PATH), || ask(Message::PLAIN_PATH));
    let refused = |message| call().message(message);
    let case = |id, title, listener, ask| Case::new(id, title, listener, ask).over("mcp-bare", "");
    let cases = vec![
        case("mcp-bare", "no filter, a POST of 1 kB to a server", "mcp-bare", call()),
        case("mcp-plain", "vkey: everything on, the same, no path of MCP", "mcp", plain())
            .guarded(&caller),
        case("mcp-call", "vkey: everything on, the same, a call of a tool", "mcp", call())
            .guarded(&caller)
            .check(refused(Message { tool: "delete_documents", ..Message::ALLOWED }), 403)
            .check(refused(Message { limit: 101, ..Message::ALLOWED }), 403),
    ];
    let listeners =
        vec![("mcp-bare", Chain::server(server, "mcp-bare")), ("mcp", Chain::calls(server, "mcp"))];
    Group {
        name: "calls",
        title: "Messages of MCP, one worker",
        proxies: vec![Proxy { workers: 1, cpus: "0", listeners }],
        cases,
        references: Vec::new(),
    }
}
