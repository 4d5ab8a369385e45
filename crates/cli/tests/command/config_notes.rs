//! What `vkey config check` notes about MCP, and about requests that the proxy should hold.

use serde_json::{Value, json};

use crate::harness::{Vkey, root, text};

/// The notes about a file, without their label.
#[track_caller]
fn notes_of(file: &Value) -> Vec<String> {
    let done = Vkey::new(&["config", "check", "-"]).stdin(file.to_string()).ok();
    let notes = done.out.lines().filter_map(|line| line.strip_prefix("note         "));
    notes.map(str::to_owned).collect()
}

/// A configuration with these members.
fn config(members: &Value) -> Value {
    let mut config = json!({"keyring": [{"name": "main", "secret": "${MAIN}"}]});
    let members = members.as_object().expect("an object").clone();
    config.as_object_mut().expect("an object").extend(members);
    config
}

/// The only note about a configuration with these members starts so.
#[track_caller]
fn says(members: &Value, start: &str) {
    let notes = notes_of(&config(members));
    assert!(notes.len() == 1 && notes[0].starts_with(start), "{members}: {notes:#?}");
}

#[track_caller]
fn says_nothing(members: &Value) {
    assert_eq!(notes_of(&config(members)), [""; 0], "{members}");
}

/// One tier, which is the default.
fn tier(mcp: &Value, only: &Value) -> Value {
    json!({"mcp": mcp, "tiers": {"default": {"only": only}}})
}

#[test]
fn the_summary_has_the_servers() {
    let line = |mcp: Value| {
        let file = config(&json!({"mcp": mcp})).to_string();
        let out = Vkey::new(&["config", "check", "-"]).stdin(file).ok().out;
        out.lines().find_map(|line| line.strip_prefix("mcp          ")).map(str::to_owned)
    };
    let routes = json!([{"path": "/mcp", "server": "main"}, {"path": "/mcp/{server}"}]);
    let paths = "\"/mcp\" is \"main\", \"/mcp/{server}\", \"/old/**\"";
    assert_eq!(line(json!({"routes": routes, "paths": ["/old/**"]})).unwrap(), paths);
    let strict =
        json!({"paths": ["/a"], "legacy": false, "refuse_with": "http", "verify": "headers"});
    let rules = "\"/a\"; revisions before 2026-07-28 are refused; refusals have their HTTP status; headers decide";
    assert_eq!(line(strict).unwrap(), rules);
    assert_eq!(line(json!({"legacy": false})), None);
}

#[test]
fn a_route_that_never_counts_is_noted() {
    let routes = |routes: &Value| json!({"mcp": {"routes": routes}});
    says(
        &routes(&json!([{"path": "/mcp", "server": "a"}, {"path": "/mcp/", "server": "b"}])),
        "mcp.routes[1] (\"/mcp/\"): the earlier mcp.routes[0] (\"/mcp\") has the same path",
    );
    says(
        &routes(&json!([{"path": "/mcp/{server}"}, {"path": "/mcp/docs", "server": "d"}])),
        "mcp.routes[1] (\"/mcp/docs\"): the earlier mcp.routes[0] (\"/mcp/{server}\") has its path too",
    );
    says(
        &routes(&json!([{"path": "/a/{server}"}, {"path": "/b"}, {"path": "/a/{server}"}])),
        "mcp.routes[2] (\"/a/{server}\"): the earlier mcp.routes[0]",
    );
    says_nothing(&routes(
        &json!([{"path": "/mcp/docs"}, {"path": "/mcp/{server}"}, {"path": "/{server}/mcp"}]),
    ));
}

#[test]
fn a_server_that_no_tier_reaches_is_noted() {
    let mcp = json!({"routes": [{"path": "/mcp/{server}"}], "paths": ["/old/**"]});
    let start = "mcp.paths[0] (\"/old/**\"): no tier allows it";
    says(&tier(&mcp, &json!({"paths": ["/v1/**", "/mcp/docs"]})), start);
    let either = json!({"any_of": [{"paths": ["/mcp/*"]}, {"paths": ["/old/a"], "models": ["m"]}]});
    says(&tier(&mcp, &either), start);
    for open in
        [json!({}), json!({"paths": ["/*/docs"]}), json!({"any_of": [{"models": ["m"]}, {}]})]
    {
        says_nothing(&tier(&mcp, &open));
    }
    // The tier `default` allows everything if it is not listed.
    says_nothing(&json!({"mcp": mcp, "tiers": {"chat": {"only": {"paths": ["/v1/**"]}}}}));
    let two = json!({"mcp": mcp, "tiers": {
        "default": {"only": {"paths": ["/v1/**"]}}, "tools": {"rate": {"requests": 1, "per": "1s"}},
    }});
    says_nothing(&two);
}

#[test]
fn paths_of_mcp_that_are_those_of_ai_requests_are_noted() {
    says(
        &json!({"mcp": {"paths": ["/v1/chat/*"]}}),
        "mcp has the paths /v1/chat/completions, so that AI requests there are read as messages of MCP",
    );
    says(
        &json!({"mcp": {"routes": [{"path": "/v1/{server}"}]}}),
        "mcp has the paths /v1/completions, /v1/embeddings, /v1/messages, /v1/responses, so that",
    );
    // A path below those of AI services is one of MCP.
    says_nothing(&json!({"mcp": {"routes": [{"path": "/v1/mcp"}]}}));
    let mcp = json!({"routes": [{"path": "/mcp", "server": "main"}]});
    for (llm, start) in [
        (json!({"unmetered": ["/v1/models", "/mcp"]}), "llm.unmetered: \"/mcp\" is a path of mcp"),
        (
            json!({"routes": [{"paths": ["/ai/**"]}, {"paths": ["/mcp"]}]}),
            "llm.routes[1].paths: \"/mcp\"",
        ),
        (json!({"paths": ["/v1/**", "/mcp"]}), "llm.paths: \"/mcp\" is a path of mcp"),
        (
            json!({"hosted_mcp": ["https://a.example/*", "/mcp"]}),
            "llm.hosted_mcp has \"/mcp\": it is for servers",
        ),
        (json!({"hosted_mcp": ["main"]}), "llm.hosted_mcp has \"main\": it is for servers"),
    ] {
        says(&json!({"mcp": mcp, "llm": llm}), start);
    }
    says_nothing(
        &json!({"mcp": mcp, "llm": {"paths": ["/**"], "hosted_mcp": ["https://a.example/mcp", "connector_x"]}}),
    );
}

#[test]
fn restrictions_of_mcp_that_never_hold_are_noted() {
    let owned = |group: &str, only: &Value| json!({group: {"acme": {"only": only}}});
    let tools = json!({"mcp": {"tools": ["a"]}});
    says(
        &owned("tenants", &tools),
        "tenant \"acme\": the configuration has no mcp, so restrictions of mcp never hold: every request is refused",
    );
    let either = json!({"any_of": [{"models": ["m"]}, {"mcp": {}}]});
    says(
        &owned("tiers", &either),
        "tier \"acme\": the configuration has no mcp, so restrictions of mcp never hold, alternatives of any_of",
    );
    let routes = json!({"routes": [
        {"path": "/mcp", "server": "main"}, {"path": "/s/{server}"}, {"path": "/bare"},
    ]});
    let with = |only: Value| json!({"mcp": routes, "tenants": {"acme": {"only": only}}});
    let outside = "its paths have none of mcp, so that mcp never holds; add one, e.g. \"/mcp\"";
    let either = |more: Value| json!({"any_of": [{"models": ["m"]}, more]});
    for (only, says_of_it) in [
        (json!({"paths": ["/v1/**"], "mcp": {"tools": ["a"]}}), format!(": {outside}")),
        (either(json!({"paths": ["/v1/*"], "mcp": {"tools": ["a"]}})), format!(", any_of[1]: {outside}")),
        (
            json!({"paths": ["/mcp", "/bare"], "mcp": {"servers": ["docs"]}}),
            ": mcp.servers matches no server that its paths lead to, so that mcp never holds; the routes have \"main\"".to_owned(),
        ),
        (
            json!({"paths": ["/bare"], "mcp": {"servers": ["*"]}}),
            ": mcp.servers matches no server that its paths lead to, so that mcp never holds; give the routes a server".to_owned(),
        ),
        (json!({"methods": ["GET"], "mcp": {"tools": ["a"]}}), ": its methods lack POST".to_owned()),
        (json!({"mcp": {"methods": ["POST"]}}), ": mcp.methods has \"POST\", a method of HTTP".to_owned()),
        (
            json!({"mcp": {"tools": ["a"], "methods": ["tools/list", "resources/*"]}}),
            ": mcp.methods does not allow tools/call, so that mcp.tools allows nothing".to_owned(),
        ),
        (
            json!({"mcp": {"prompts": ["a"], "methods": ["tools/*"]}}),
            ": mcp.methods does not allow prompts/get, so that mcp.prompts allows nothing".to_owned(),
        ),
        (json!({"mcp": {}}), ": mcp: {} allows every MCP call, and no other request".to_owned()),
    ] {
        says(&with(only), &format!("tenant \"acme\"{says_of_it}"));
    }
    for only in [
        json!({"paths": ["/mcp", "/v1/**"], "mcp": {"tools": []}}),
        json!({"mcp": {"servers": ["docs"]}}),
        json!({"paths": ["/mcp"], "mcp": {"servers": ["m*"], "methods": ["tools/*"], "tools": ["a"]}}),
        either(json!({"mcp": {}})),
    ] {
        says_nothing(&with(only));
    }
}

#[test]
fn conditions_on_arguments_need_the_body() {
    for (entry, is_noted) in [
        (json!({"name": "a", "only_args": ["x"]}), true),
        (json!({"name": "a", "args": [{"at": "/x", "absent": true}]}), true),
        (json!({"name": "a"}), false),
        (json!("a"), false),
    ] {
        for (verify, trusts) in [("headers", true), ("body", false)] {
            let members = tier(
                &json!({"routes": [{"path": "/mcp"}], "verify": verify}),
                &json!({"mcp": {"tools": [entry]}}),
            );
            match is_noted && trusts {
                true => says(
                    &members,
                    "tier \"default\": mcp.verify is headers, and headers say no arguments",
                ),
                false => says_nothing(&members),
            }
        }
    }
}

// === what the proxy holds ===

const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";

/// A listener of Envoy with the gate. `flag`, `buffer`: what it says about holding bodies.
fn listener(config: &Value, flag: &Value, buffer: &Value) -> Value {
    let message = json!({"@type": STRING, "value": config.to_string()});
    let variables = json!({"environment_variables": {"host_env_keys": ["MAIN"]}});
    let plugin = json!({"name": "vkey", "vm_config": variables, "configuration": message,
        "allow_on_headers_stop_iteration": flag});
    let filter = json!({"name": "wasm", "typed_config": {"@type": WASM, "config": plugin}});
    let chain = json!({"filters": [{"name": "hcm", "typed_config": {"http_filters": [filter]}}]});
    json!({"name": "gate", "filter_chains": [chain], "per_connection_buffer_limit_bytes": buffer})
}

fn bootstrap(listeners: &[Value]) -> Value {
    json!({"static_resources": {"listeners": listeners}})
}

/// A configuration in which bodies decide, in each way in which they may.
fn deciding() -> Vec<(Value, &'static str)> {
    let default = |rules: Value| config(&json!({"tiers": {"default": rules}}));
    let tenant = |only: Value| config(&json!({"tenants": {"acme": {"only": only}}}));
    vec![
        (config(&json!({"mcp": {"routes": [{"path": "/mcp"}]}})), "mcp"),
        (default(json!({"quotas": [{"tokens": 9999, "per": "day"}]})), "tier \"default\""),
        (
            tenant(json!({"any_of": [{"models": ["m"]}, {"paths": ["/v1/models"]}]})),
            "tenant \"acme\"",
        ),
    ]
}

#[test]
fn a_proxy_that_does_not_hold_requests_is_noted() {
    let enough = json!(9_437_184);
    for (config, what) in deciding() {
        for flag in [json!(null), json!(false)] {
            let notes = notes_of(&bootstrap(&[listener(&config, &flag, &enough)]));
            let start = format!(
                "bodies decide about requests ({what}), and without allow_on_headers_stop_iteration: true Envoy does"
            );
            assert!(notes.len() == 1 && notes[0].starts_with(&start), "{notes:#?}");
        }
        assert_eq!(notes_of(&bootstrap(&[listener(&config, &json!(true), &enough)])), [""; 0]);
        assert_eq!(notes_of(&config), [""; 0]);
        let extension = json!({"kind": "WasmPlugin", "apiVersion": "extensions.istio.io/v1alpha1",
            "metadata": {"name": "vkey"}, "spec": {"pluginConfig": config,
            "vmConfig": {"env": [{"name": "MAIN", "valueFrom": "HOST"}]}}});
        let policy = json!({"kind": "EnvoyExtensionPolicy", "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "metadata": {"name": "vkey"}, "spec": {"wasm": [{"name": "vkey", "config": config,
            "env": {"hostKeys": ["MAIN"]}}]}});
        for (object, says) in [
            (extension, "no WasmPlugin can set allow_on_headers_stop_iteration: true"),
            (policy, "no EnvoyExtensionPolicy can set allow_on_headers_stop_iteration: true"),
        ] {
            let notes = notes_of(&object);
            assert!(notes.len() == 1 && notes[0].contains(says), "{notes:#?}");
        }
        let nginx = format!("env MAIN;\nproxy_wasm vkey '{config}';");
        let out = Vkey::new(&["config", "check", "-"]).stdin(nginx).ok().out;
        assert!(out.contains(&format!("({what}), and nginx does not hold them")), "{out}");
    }
    // What no body decides needs no holding.
    let headers = json!({"routes": [{"path": "/mcp"}], "verify": "headers"});
    for free in [json!({}), json!({"mcp": headers}), json!({"llm": {"audit_tokens": true}})] {
        assert_eq!(
            notes_of(&bootstrap(&[listener(&config(&free), &json!(null), &enough)])),
            [""; 0]
        );
    }
}

/// Two listeners have the same configuration, and one of them holds no requests.
#[test]
fn each_place_of_a_configuration_has_its_notes() {
    let (config, _) = deciding().remove(0);
    let enough = json!(9_437_184);
    let good = listener(&config, &json!(true), &enough);
    let bad = listener(&config, &json!(null), &enough);
    assert_eq!(notes_of(&bootstrap(&[good.clone(), bad.clone()])).len(), 1);
    assert_eq!(notes_of(&bootstrap(&[bad, good])).len(), 1);
}

#[test]
fn a_listener_that_holds_less_than_the_module_is_noted() {
    let held = json!(true);
    for (config, _) in deciding() {
        for (buffer, shown) in
            [(json!(null), 1_048_576), (json!(8_388_607), 8_388_607), (json!("65536"), 65_536)]
        {
            let notes = notes_of(&bootstrap(&[listener(&config, &held, &buffer)]));
            let start = format!(
                "body.max_bytes is 8388608, but the listener holds {shown} bytes, and Envoy refuses"
            );
            assert!(notes[0].starts_with(&start), "{notes:#?}");
            // Lists of MCP are shorter.
            let short_lists = usize::from(shown < 1_000_000 && config.get("mcp").is_some());
            assert_eq!(notes.len(), 1 + short_lists, "{notes:#?}");
        }
        for buffer in [json!(8_388_608), json!(0)] {
            assert_eq!(
                notes_of(&bootstrap(&[listener(&config, &held, &buffer)])),
                [""; 0],
                "{buffer}"
            );
        }
    }
    let audited = config(&json!({"llm": {"audit_tokens": true}}));
    assert_eq!(notes_of(&bootstrap(&[listener(&audited, &held, &json!(null))])).len(), 1);
    let small = json!({"mcp": {"routes": [{"path": "/mcp"}]}, "body": {"max_bytes": 1024, "max_list_bytes": 2_000_000}});
    let notes = notes_of(&bootstrap(&[listener(&config(&small), &held, &json!(null))]));
    let start = "body.max_list_bytes is 2000000, but the listener holds 1048576 bytes, and Envoy does not hold";
    assert!(notes.len() == 1 && notes[0].starts_with(start), "{notes:#?}");
    assert_eq!(
        notes_of(&bootstrap(&[listener(&config(&json!({})), &held, &json!(null))])),
        [""; 0]
    );
}

/// What is shipped for Envoy has no such mistake.
#[test]
fn the_shipped_listeners_hold_what_the_module_reads() {
    for file in [
        "envoy.yaml",
        "examples/add-to-envoy/after.yaml",
        "examples/add-to-envoy/after-credential.yaml",
    ] {
        let out = Vkey::new(&["config", "check", &text(root().join(file))]).ok().out;
        assert!(!out.contains("allow_on_headers_stop_iteration"), "{file}: {out}");
        assert!(!out.contains("but the listener holds"), "{file}: {out}");
    }
}
