#!/usr/bin/env python3
"""mutants.py [--short | TEXT…]: breaks the limits, the upstream gate, the rules for hosts and nginx.conf on purpose, one
way at a time, in a copy of the sources, and checks that tests fail. With TEXT: only the mutants whose names contain one
of the texts. With --short: those of SHORT.

A mutant is a change of one file: the present text, its replacement, and the tests that must fail. It is an error if the
text does not occur exactly once, or if the mutant does not compile: then the mutant must follow the code.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "target" / "mutants"
# The dependencies of the tests are built there already.
BUILD = ROOT / "target"

LIB = ["-p", "vkey", "--lib", "--", "gcra::", "quota::", "tally::", "cell::", "host::", "gate::"]
MODEL = ["-p", "vkey", "--test", "interleavings"]
UPSTREAM = ["-p", "vkey", "--lib", "--", "gate::"]
SCENARIOS = ["-p", "vkey", "--test", "scenarios"]
CORE = ["-p", "vkey", "--lib", "--", "upstream_tls::"]
VIEW = ["-p", "vkey", "--lib", "--", "host::view::"]
RULES = ["-p", "vkey", "--lib", "--", "host::rules::"]
NGINX = ["-p", "vkey-e2e", "--test", "nginx"]
NGINX_CONF = "examples/nginx/nginx.conf"

MUTANTS = [
    ("cells are created with cas 0", "src/host/store.rs", MODEL,
     "const NEVER_ISSUED: u32 = u32::MAX;",
     "const NEVER_ISSUED: u32 = 0;"),
    ("a limit is checked outside the loop", "src/gate/admission.rs", MODEL,
     "        self.store.update(self.key.cell_name(), |cell: &mut Cell| {\n            cell.set_tier(self.key.tier());",
     "        let mut before: Cell = self.store.read(self.key.cell_name())?;\n"
     "        let early = before.count(decision, self.key.charges(), &self.amounts, None, self.now_ns, self.mode);\n"
     "        self.store.update(self.key.cell_name(), |cell: &mut Cell| {\n"
     "            cell.set_tier(self.key.tier());\n"
     "            let early = early.clone();\n"
     "            if early.decision.forwards() {\n"
     "                cell.count(decision, &[], &self.amounts, None, self.now_ns, self.mode);\n"
     "                return (Entry { counted: early, left: Vec::new() }, None);\n"
     "            }"),
    ("what the cluster refuses stays charged", "src/gate/cluster.rs", UPSTREAM,
     "refund: Refund::Everything",
     "refund: Refund::Nothing"),
    ("a lost service of the cluster opens nothing but the record", "src/gate/cluster.rs", UPSTREAM,
     "            NO_ANSWER => DenyReason::ClusterUnknown,\n",
     ""),
    ("the record is final before the cluster has a say", "src/gate/request.rs", UPSTREAM,
     "            || self.engine.settings().limits.of_cluster\n",
     ""),
    ("nobody learns whose request the cluster limits", "src/gate/request.rs", UPSTREAM,
     "            self.host.set_filter_state(FilterState::Tenant.key(), key.tenant())?;\n",
     ""),
    ("a mismatch is taken for success", "src/host/store.rs", MODEL,
     "            Err(WriteError::CasMismatch) => Ok(false),",
     "            Err(WriteError::CasMismatch) => Ok(true),"),
    ("contention lets through", "src/gate/admission.rs", MODEL,
     "Admitted { anomaly, ..admitted }\n            }\n"
     "            Err(not_counted) => Admitted::uncounted(Decision::Deny(not_counted.into())),",
     "Admitted { anomaly, ..admitted }\n            }\n"
     "            Err(_) => Admitted::uncounted(decision),"),
    ("what the tenant refuses stays charged to the key", "src/gate/admission.rs", MODEL,
     "            cell.recount(was, is, self.key.charges(), reservation.zip(Some(&self.amounts)));",
     "            cell.recount(was, is, self.key.charges(), reservation.filter(|_| false).zip(Some(&self.amounts)));"),
    ("what cannot go on stays charged to the tenant", "src/gate/admission.rs", MODEL,
     "cell.recount(was, is, self.key.tenant_charges(), of_tenant);",
     "cell.recount(was, is, self.key.tenant_charges(), of_tenant.filter(|_| false));"),
    ("a refused request burns the allowance", "src/limits/tally.rs", LIB,
     "        let used = self.charged(charges, amounts, now_ns)?;",
     "        let used = match self.charged(charges, amounts, now_ns) {\n"
     "            Ok(used) => used,\n"
     "            Err(exceeded) => {\n"
     "                for charge in charges {\n"
     "                    if let Ok(used) = self.charge(charge, amounts, now_ns) {\n"
     "                        self.set(charge.scope, &used);\n"
     "                    }\n"
     "                }\n"
     "                return Err(exceeded);\n"
     "            }\n"
     "        };"),
    ("a new configuration refills", "src/engine/known.rs", LIB,
     "            cell_name: key_name(&claims.tenant, &claims.jti),",
     "            cell_name: key_name(&claims.tenant, &format!(\"{}-{}\", claims.jti, tier.charges.len())),"),
    ("a clock that goes back refills a window", "src/limits/quota.rs", LIB,
     "        let Some(elapsed @ 1..) = window.checked_sub(spent.window) else {\n            return spent;\n        };",
     "        let elapsed = window.abs_diff(spent.window);\n        if elapsed == 0 {\n            return spent;\n        }"),
    ("the tally forgets its clock", "src/limits/tally.rs", LIB,
     "        self.clock_ns = self.clock_ns.max(now_ns);",
     "        self.clock_ns = now_ns;"),
    ("a full table of children forgets one", "src/limits/tally.rs", LIB,
     "(ends_ns.len() + wanted).checked_sub(places).filter(|lacking| *lacking > 0)?;",
     "(ends_ns.len() + wanted).checked_sub(usize::MAX - places).filter(|lacking| *lacking > 0)?;"),
    ("one narrowed key takes the places of its siblings", "src/limits/tally.rs", LIB,
     "            (MAX_FAMILY_LIMITS, &is_of_family),",
     "            (MAX_CHILD_LIMITS, &is_of_family),"),
    ("a rate gives back what has drained", "src/limits/gcra.rs", LIB,
     "        let refund = of_interval.max(of_backlog.min(self.interval()));",
     "        let refund = of_interval.max(self.interval());"),
    ("what two hold of a backlog is given back twice", "src/limits/tally/settlement.rs", LIB,
     "        self.undone = self.undone.wrapping_add(1);",
     "        self.undone = self.undone.wrapping_add(0);"),
    ("a child that is over begins again", "src/limits/tally.rs", LIB,
     "        if charge.scope.is_over(now_ns) {",
     "        if charge.scope.is_over(0) {"),
    ("a rate lets one more in", "src/limits/gcra.rs", LIB,
     "            None | Some(0) => self.tat_after(",
     "            None | Some(0..=1) => self.tat_after("),
    ("keys of two tenants share a cell", "src/limits/cell.rs", SCENARIOS,
     '    Name::within("k", tenant, jti)',
     '    Name::within("k", tenant.get(..0).unwrap_or_default(), jti)'),
    ("a key that one tenant revokes is revoked for all", "src/key/revocations.rs", SCENARIOS,
     '[tenant, "/", jti].concat()',
     '[&tenant[..0], "/", jti].concat()'),
    ("a client sleeps for weeks", "src/reply.rs", SCENARIOS,
     "const MAX_WAIT_MS: u64 = 60_000;",
     "const MAX_WAIT_MS: u64 = u64::MAX;"),
    ("a gRPC caller over its limit is told of an outage", "src/reply.rs", SCENARIOS,
     "(429, 8, ",
     "(429, 14, "),
    ("a probe counts as a denial", "src/decision.rs", SCENARIOS,
     'pub const UNSEEN: &str = "unseen";',
     'pub const UNSEEN: &str = "deny";'),
    ("debt is forgiven", "src/limits/quota.rs", LIB,
     "        let used = spent.over.saturating_sub(paid);",
     "        let used = spent.over.saturating_sub(paid).min(0);"),
    ("an old version of TLS passes", "src/upstream_tls/mod.rs", UPSTREAM,
     "        if version < self.min_version {",
     "        if version < TlsVersion::Unknown {"),
    ("a certificate that is not pinned passes", "src/upstream_tls/mod.rs", UPSTREAM,
     "            Some(_) => Err(DenyReason::UpstreamPin),",
     "            Some(_) => Ok(Proof::Shown),"),
    ("a stamp vouches for a wrong pin", "src/upstream_tls/mod.rs", UPSTREAM,
     "            Some(_) => Err(DenyReason::UpstreamPin),",
     "            Some(_) if stamped => Ok(Proof::Vouched),\n"
     "            Some(_) => Err(DenyReason::UpstreamPin),"),
    ("a certificate without the name passes", "src/upstream_tls/mod.rs", UPSTREAM,
     "        NameProof::FirstDiffers | NameProof::Differs => Err(DenyReason::UpstreamName),",
     "        NameProof::FirstDiffers => Err(DenyReason::UpstreamName),\n"
     "        NameProof::Differs => Ok(Proof::Shown),"),
    ("a certificate of another first name passes", "src/upstream_tls/mod.rs", UPSTREAM,
     "        NameProof::FirstDiffers if stamped => Ok(Proof::Vouched),",
     "        NameProof::FirstDiffers => Ok(Proof::Shown),"),
    ("no client certificate is needed", "src/upstream_tls/mod.rs", UPSTREAM,
     "            Ok(_) if self.client_certificate && !connection.has_client_certificate() => {",
     "            Ok(_) if self.client_certificate && self.pins.len() > 99 => {"),
    ("the stamp of another policy vouches", "src/upstream_tls/stamp.rs", SCENARIOS,
     "        self.policy == policy && self.is_for(host)",
     "        !policy.is_empty() && self.is_for(host)"),
    ("a known host is like any other", "src/upstream_tls/policy.rs", UPSTREAM,
     "        if !known && tighten().next().is_none() {",
     "        if tighten().next().is_none() {"),
    ("a configuration tightens nothing", "src/upstream_tls/policy.rs", UPSTREAM,
     "        for rule in rule.into_iter().chain(tighten()) {",
     "        for rule in rule {"),
    ("a skip does not end", "src/upstream_tls/policy.rs", UPSTREAM,
     "        now_secs < self.until_secs",
     "        now_secs > 0 || self.until_secs > 0"),
    ("an attempt leaves while it waits", "src/gate/upstream/mod.rs", UPSTREAM,
     "        if self.wait(host, context) {\n            return Action::Pause;",
     "        if self.wait(host, context) {\n            return Action::Continue;"),
    ("the body of an attempt leaves while it waits", "src/gate/upstream/mod.rs", UPSTREAM,
     "            State::New | State::Waiting { .. } | State::Refused => Action::Pause,",
     "            State::Waiting { .. } => Action::Continue,\n"
     "            State::New | State::Refused => Action::Pause,"),
    ("an attempt waits for ever", "src/gate/upstream/mod.rs", UPSTREAM,
     "        let late = waited_ns >= self.deadline_ns;",
     "        let late = waited_ns >= self.deadline_ns.max(u64::MAX);"),
    ("the tick never ends", "src/gate/upstream/mod.rs", UPSTREAM,
     "            Some(0)\n",
     "            None\n"),
    ("an attempt without a tick waits", "src/gate/upstream/mod.rs", UPSTREAM,
     "        ticks || host.set_tick_period(TICK_MILLIS).is_ok()",
     "        ticks || host.set_tick_period(TICK_MILLIS).is_ok() || TICK_MILLIS > 0"),
    ("the connection of the answer is not compared", "src/gate/upstream/mod.rs", UPSTREAM,
     "            || self.upstreams.is_same(host, passage, !turn.has_waited())",
     "            || self.upstreams.is_same(host, passage, !turn.has_waited()) || TICK_MILLIS > 0"),
    ("a standing refuses nobody", "src/upstream_tls/status.rs", UPSTREAM,
     "        refused.then_some(withheld.reason)",
     "        (refused && now_secs == 0).then_some(withheld.reason)"),
    ("an attempt is judged before its connection is up", "src/gate/upstream/attempts.rs", UPSTREAM,
     "    is_up(host).then(|| connection_id(host))",
     "    Some(connection_id(host))"),
    ("a copy of a request is taken to carry nothing", "src/gate/upstream/credentials.rs", UPSTREAM,
     "        return decision.map_or(Carried::VERIFIED_ONLY, |_| Carried::Nothing);",
     "        return decision.map_or(Carried::Nothing, |_| Carried::Nothing);"),
    ("a withheld response refuses hosts that are not judged", "src/upstream_tls/status.rs", CORE,
     "            RefusalScope::Checked if checked => true,",
     "            RefusalScope::Checked if checked || now_secs > 0 => true,"),
    ("a withheld response refuses its own host alone", "src/upstream_tls/status.rs", CORE,
     "            RefusalScope::Checked if checked => true,",
     "            RefusalScope::Checked if checked && now_secs == 0 => true,"),
    ("a missing gate is not noticed", "src/gate/upstream/verdicts.rs", SCENARIOS,
     "            let ungated = self.require_gate && status.misses_gate(checked, now_secs);",
     "            let ungated = self.require_gate && status.misses_gate(checked, 0);"),
    ("the route that was taken is not checked", "src/gate/upstream/verdicts.rs", SCENARIOS,
     "        if taken == checked || (",
     "        if taken == checked || now_secs > 0 || ("),
    ("a credential goes over a connection that was not verified", "src/gate/upstream/credentials.rs", UPSTREAM,
     "        let held = grant.filter(|_| fit).",
     "        let held = grant.filter(|_| fit || verdict != Verdict::Verified)."),
    ("a credential goes to whatever host is asked", "src/gate/upstream/credentials.rs", UPSTREAM,
     "position(|held| meant(&held) && grants(words, held))",
     "position(|held| (meant(&held) || name.is_empty() || words.is_some()) && grants(words, held))"),
    ("a credential goes where it was not granted", "src/gate/upstream/credentials.rs", UPSTREAM,
     "position(|held| meant(&held) && grants(words, held))",
     "position(|held| meant(&held) && (grants(words, held) || words.is_some()))"),
    ("what was sent is given back", "src/gate/response.rs", SCENARIOS,
     "            let refund = if sent { Refund::Nothing } else { Refund::Everything };",
     "            let refund = if sent { Refund::Everything } else { Refund::Everything };"),
    ("a path is judged in another form than it is sent in", "src/access/mod.rs", SCENARIOS,
     "        if has_empty_segment(path.as_bytes()) || path.split('/').any(ambiguous) {",
     "        if path.split('/').any(ambiguous) {"),
    ("a host is judged in another spelling than it is routed by", "src/exchange/seen.rs", SCENARIOS,
     "        host: head.authority.and_then(exact_host),",
     "        host: head.authority.and_then(|a| exact_host(a.split(|b| *b == b':').next()?)),"),
    ("a key in another header is let through", "src/engine/stages.rs", SCENARIOS,
     "    } else if head.holds_stray_key(&is_key) {",
     "    } else if head.holds_stray_key(&is_key) && head.claims_identity {"),
    ("a header changes what was judged", "src/exchange/edits.rs", SCENARIOS,
     "head.unforwardable(head.overrides_target() && is_judged)",
     "head.unforwardable(head.overrides_target() && is_judged && head.upgrades)"),
    ("a body of any size is held", "src/gate/hold.rs", SCENARIOS,
     "    if bytes > max_bytes {",
     "    if bytes > max_bytes && max_bytes == 0 {"),
    ("a body that ends early is judged as whole", "src/body/request/reader.rs", LIB,
     "            self.scanner.finish(&mut self.places)?;",
     "            _ = self.scanner.finish(&mut self.places);"),
    ("tools that come in the input are not read", "src/body/request/places.rs", SCENARIOS,
     '    INPUT: Tokens, items INPUT, { "tools" TOOLS, };',
     "    INPUT: Tokens, items INPUT;"),
    ("a query takes the usage out of the response", "src/body/request/query.rs", SCENARIOS,
     "            (Some(Kind::Form), _) | (None, true) => Self::Form,",
     "            (None, true) => Self::Form,"),
    ("a path of an AI service outside of llm.paths passes", "src/engine/reading.rs", SCENARIOS,
     "        let is_ai = is_uncounted || rules.is_some() || head.upgrades;",
     "        let is_ai = rules.is_some() || head.upgrades;"),
    ("a trailer forges an identity", "src/gate/mod.rs", SCENARIOS,
     "        names.into_iter().try_for_each(|name| host.remove_request_trailer(name)).ok()",
     "        names.into_iter().take(0).try_for_each(|name| host.remove_request_trailer(name)).ok()"),
    ("a required stamp is not asked for by the gate of a cluster", "src/gate/upstream/attempts.rs", UPSTREAM,
     "        if self.require_stamp && !stamped {",
     "        if self.require_stamp && !stamped && now_secs == 0 {"),
    ("a required stamp is not asked for by the gate of the routes", "src/gate/upstream/verdicts.rs", SCENARIOS,
     "        let needs_stamp = self.require_stamp || shows_nothing || uncovered;",
     "        let needs_stamp = shows_nothing || uncovered;"),
    ("a credential leaves for an upstream that nobody judges", "src/gate/upstream/verdicts.rs", SCENARIOS,
     "        let needs_stamp = self.require_stamp || shows_nothing || uncovered;",
     "        let needs_stamp = self.require_stamp || shows_nothing || (uncovered && now_secs == 0);"),
    ("a host that shows nothing is trusted", "src/gate/upstream/verdicts.rs", SCENARIOS,
     "        let needs_stamp = self.require_stamp || shows_nothing || uncovered;",
     "        let needs_stamp = self.require_stamp || (shows_nothing && now_secs == 0) || uncovered;"),
    ("what an upstream is refused for stays charged", "src/gate/response.rs", SCENARIOS,
     "            let refund = if sent { Refund::Nothing } else { Refund::Everything };",
     "            let refund = if sent { Refund::Nothing } else { Refund::Nothing };"),
    ("a request that has ended is not judged", "src/gate/ending.rs", SCENARIOS,
     "        if upstream.is_some() || host.rules() == Rules::Bare {",
     "        if upstream.is_none() {"),
    ("a record is final before its verdict", "src/gate/ending.rs", UPSTREAM,
     "        if request.route().awaits_verdict || self.has_gates(host) {",
     "        if self.has_gates(host) {"),
    ("a record does not wait for the gate of a cluster", "src/gate/ending.rs", UPSTREAM,
     "        if request.route().awaits_verdict || self.has_gates(host) {",
     "        if request.route().awaits_verdict {"),
    ("nothing is followed", "src/gate/ending.rs", UPSTREAM,
     "        !follows\n",
     "        true\n"),
    ("a final request is checked again", "src/gate/mod.rs", UPSTREAM,
     "        let withheld = if is_final { None } else { self.check_response(host, &mut request) };",
     "        let withheld = self.check_response(host, &mut request);"),
    ("the host is believed to be the one that is named", "src/host/rules.rs", SCENARIOS,
     "                Err(UnknownRules::Contradicted(found))",
     "                Ok(found)"),
    ("nginx is taken for a host without shared data", "src/host/rules.rs", SCENARIOS,
     "Dialect::Bare if host.property(Property::NginxVersion).is_some() => {",
     "Dialect::Bare if host.property(Property::NodeId).is_some() => {"),
    ("nginx is taken for one before its first request", "src/host/rules.rs", SCENARIOS,
     "if self.dialect == Dialect::Bare { Ok(None) }",
     "if self.unreadable_is_logged.get() { Ok(None) }"),
    ("a request is public for any method", "src/engine/mod.rs", SCENARIOS,
     "any(|rule| rule.prohibits(&access).is_none())",
     "any(|rule| rule.prohibits_request(&access) != Some(DenyReason::Path))"),
    ("a public request keeps the identity that a client claims", "src/exchange/edits.rs", SCENARIOS,
     "Self { remove: head.unforwardable(true), shorten, ..Self::default() }",
     "Self { shorten, ..Self::default() }"),
    ("a key of a ring that is not ready is taken for a stranger's", "src/key/keyring.rs", SCENARIOS,
     "key_of(keys, kid).map(drop),\n            Signer::Missing => Err(DenyReason::NotReady),",
     "key_of(keys, kid).map(drop),\n            Signer::Missing => Err(DenyReason::KeyUnknown),"),
    ("the end of the clock lets everything pass", "src/limits/gcra.rs", LIB,
     "        let after = now_ns.checked_add(ns).map(|ns| Tat { ns, fraction });",
     "        let after = Some(Tat { ns: now_ns.saturating_add(ns), fraction: 0 });"),
    ("a host that does not compare is counted on", "src/host/rules.rs", RULES,
     "Ok(()) => Err(NotCounted::HostOverwrites),",
     "Ok(()) => Ok(Self::Envoy),"),
    ("the record of another is believed at once", "src/host/store.rs", LIB,
     "_ if !self.is_unchanged(tried, record)? => return Ok(false),\n"
     "            NotThisRecord::Foreign => return Ok(true),",
     "NotThisRecord::Foreign => return Ok(true),\n"
     "            _ if !self.is_unchanged(tried, record)? => return Ok(false),"),
    ("the rules are found by cas 0", "src/host/rules.rs", LIB,
     "shared.set_shared_data(&tried, &probe, NEVER_ISSUED)",
     "shared.set_shared_data(&tried, &probe, 0)"),
    ("nginx: a header is removed, which only hides it", "src/host/view.rs", SCENARIOS,
     "        self.host.set_request_header(name, \"\")",
     "        self.host.remove_request_header(name.as_bytes())"),
    ("nginx: the identity is added behind another", "src/host/view.rs", SCENARIOS,
     "        if self.is_nginx() {\n            self.host.set_request_header(name, value)",
     "        if self.is_nginx() {\n            self.host.add_request_header(\"x-vkey-other\", value)"),
    ("nginx: the authority is the pseudo header", "src/host/view.rs", SCENARIOS,
     "let asked = [(AUTHORITY, authority), (PATH, target.as_deref())];",
     "let asked = [(AUTHORITY, Some(&b\"server.invalid:8080\"[..])), (PATH, target.as_deref())];"),
    ("nginx: the path is the one that it decoded", "src/host/view.rs", SCENARIOS,
     "let is_replaced = |name: &[u8]| name == AUTHORITY || name == PATH;",
     "let target = shown.iter().find(|(name, _)| *name == PATH).map(|(_, path)| path.to_vec());\n"
     "        let is_replaced = |name: &[u8]| name == AUTHORITY || name == PATH;"),
    ("nginx: a host that it has not chosen by is judged", "src/host/view.rs", VIEW,
     "    let ends = rest.is_empty() || port.is_some_and(|port| port.iter().all(u8::is_ascii_digit));\n",
     "    let ends = true;\n    _ = port;\n"),
    ("nginx: a map that was cut is judged", "src/host/view.rs", SCENARIOS,
     "shown.len() >= MAX_NGINX_HEADERS",
     "shown.len() > MAX_NGINX_HEADERS"),
    ("nginx: a header that must go and is there twice goes on", "src/gate/request.rs", SCENARIOS,
     "self.head.is_flawed() || self.head.doubles_any(&edits().changed());",
     "self.head.is_flawed() || (self.head.doubles_any(&edits().changed()) && self.now_ns == 0);"),
    ("nginx: it is asked for the address of the upstream", "src/host/view.rs", VIEW,
     "last_address(&self.host.property(Property::NginxUpstreamAddress)?)",
     "last_address(&self.host.property(Property::UpstreamAddress)?)"),
    ("nginx: a request goes on without its seal", "src/gate/seal.rs", VIEW,
     "            host.log(Level::Error, NO_SEAL_VARIABLE);\n            set",
     "            host.log(Level::Error, NO_SEAL_VARIABLE);\n            Ok(())"),
    ("nginx: an audit line is cut by the log", "src/host/view.rs", SCENARIOS,
     "        self.is_nginx().then_some(MAX_NGINX_LINE_BYTES)",
     "        self.is_nginx().then_some(MAX_NGINX_LINE_BYTES * 2)"),
    ("nginx: the seal opens by default", NGINX_CONF, NGINX,
     "default http://nowhere;",
     "default http://service;"),
    ("nginx: every header goes on", NGINX_CONF, NGINX,
     "proxy_pass_request_headers off;",
     "proxy_pass_request_headers on;"),
    ("nginx: the path is what a rewrite makes of it", NGINX_CONF, NGINX,
     "proxy_pass $vkey_upstream$request_uri;",
     "proxy_pass $vkey_upstream;"),
    ("nginx: targets that are no path pass", NGINX_CONF, NGINX,
     'if ($request !~ "^[A-Z]+ /") { return 400; }',
     'if ($request = "") { return 400; }'),
    ("nginx: two slashes pass", NGINX_CONF, NGINX,
     "(//|/",
     "(/"),
    ("nginx: dots pass", NGINX_CONF, NGINX,
     "|/\\.\\.?(/|\\?|$)",
     ""),
    ("nginx: an escaped slash passes", NGINX_CONF, NGINX,
     "|2e|2f|",
     "|2e|"),
    ("nginx: a backslash passes", NGINX_CONF, NGINX,
     "|5c)|\\\\\\\\)",
     "|5c))"),
    ("nginx: a fragment passes", NGINX_CONF, NGINX,
     ')|#")',
     ')")'),
    ("nginx: another host is served", NGINX_CONF, NGINX,
     "        return 421;\n",
     "        location / { proxy_pass http://service; }\n"),
    ("nginx: the service sends requests elsewhere", NGINX_CONF, NGINX,
     "proxy_ignore_headers X-Accel-Redirect;",
     ""),
    ("nginx: the client's own host goes on", NGINX_CONF, NGINX,
     "proxy_set_header host                 $host;",
     "proxy_set_header host                 $http_host;"),
    ("nginx: a name with underscores is one", NGINX_CONF, NGINX,
     "underscores_in_headers off;",
     "underscores_in_headers on;"),
    ("nginx: an upstream is not verified", NGINX_CONF, NGINX,
     "proxy_ssl_verify on;",
     "proxy_ssl_verify off;"),
    ("nginx: the log holds the query", NGINX_CONF, NGINX,
     '"path":"$uri"',
     '"path":"$request_uri"'),
    ("a preflight has a body", "src/gate/mod.rs", SCENARIOS,
     "if bytes > 0 && request.is_preflight() => {",
     "if bytes > u64::MAX - 1 && request.is_preflight() => {"),
    ("a preflight has cookies", "src/headers.rs", SCENARIOS,
     "is_one_of(name, &CREDENTIALS) && !self.sources",
     "is_one_of(name, &[]) && !self.sources"),
    ("a JWT that names a ring is foreign where no gate takes it", "src/engine/mod.rs", SCENARIOS,
     "jwt_kid(credential).is_some_and(names_ring)",
     "self.may_be_key(credential)"),
    ("a key goes on as a password", "src/headers.rs", SCENARIOS,
     "encoded.is_some_and(|text| holds_key(&text, tag, is_key))",
     "encoded.is_some_and(|text| text.is_empty())"),
]


# One of each kind, for `make check`.
SHORT = {
    "cells are created with cas 0",
    "a limit is checked outside the loop",
    "what the tenant refuses stays charged to the key",
    "a refused request burns the allowance",
    "a clock that goes back refills a window",
    "a rate gives back what has drained",
    "an old version of TLS passes",
    "a certificate without the name passes",
    "an attempt leaves while it waits",
    "the host is believed to be the one that is named",
    "nginx: a header is removed, which only hides it",
    "nginx: the authority is the pseudo header",
    "nginx: the seal opens by default",
    "nginx: every header goes on",
}


def copy_sources():
    """The tracked and new files as they are now, without those that git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True).stdout
    shutil.rmtree(COPY, ignore_errors=True)
    for name in filter(None, listed.split("\0")):
        source, copy = ROOT / name, COPY / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            # With the current time, so that cargo does not take what it built from another copy for up to date.
            shutil.copy(source, copy)


def cargo(*arguments):
    nginx, command = ROOT / ".tools" / "nginx", ROOT / "target" / "debug" / "vkey"
    tools = {"VKEY_TEST_NGINX": str(nginx), "VKEY_TEST_COMMAND": str(command)}
    environment = {"PROPTEST_CASES": "4000", **os.environ, "CARGO_TARGET_DIR": str(BUILD), **tools}
    return subprocess.run(
        ["cargo", "test", "--quiet", "--locked", *arguments],
        cwd=COPY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def without_run(tests):
    return [*tests[:tests.index("--")], "--no-run"] if "--" in tests else [*tests, "--no-run"]


def survives(file, tests, old, new):
    """Why a mutant counts as not caught; None if tests fail."""
    path = COPY / file
    text = path.read_text()
    if text.count(old) != 1:
        return f"{file} has its text {text.count(old)} times"
    path.write_text(text.replace(old, new))
    try:
        built = cargo(*without_run(tests))
        if built.returncode != 0:
            return f"does not compile:\n{built.stdout}"
        return "no test fails" if cargo(*tests).returncode == 0 else None
    finally:
        path.write_text(text)


def main():
    sets = {"--short": SHORT}
    if len(sys.argv) == 2 and sys.argv[1] in sets:
        meant = [m for m in MUTANTS if m[0] in sets[sys.argv[1]]]
    else:
        meant = [m for m in MUTANTS if not sys.argv[1:] or any(text in m[0] for text in sys.argv[1:])]
    copy_sources()
    for tests in (LIB, MODEL, UPSTREAM, CORE, VIEW, SCENARIOS, NGINX):
        if all(mutant[2] != tests for mutant in meant):
            continue
        sound = cargo(*tests)
        if sound.returncode != 0:
            sys.exit(f"mutants: the tests fail without any mutant:\n{sound.stdout}")
    survivors = 0
    for name, file, tests, old, new in meant:
        problem = survives(file, tests, old, new)
        survivors += problem is not None
        print(f"{'SURVIVES' if problem else 'caught  '} {name}{': ' + problem if problem else ''}", flush=True)
    print(f"mutants: {len(meant) - survivors} of {len(meant)} caught")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
