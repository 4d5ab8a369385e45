use super::*;
use crate::json::line;

const SHIPPED: &[u8] = include_bytes!("../../../filters/vkey/upstream-tls.json");

/// 2027-03-31, 24:00 UTC.
const UNTIL: u64 = 1_806_537_600;

/// A file with the known hosts and these rules, one on each line. `A`, `B` and `C` are replaced by pins.
fn file(rules: &[&str]) -> String {
    let rules = rules.join(",\n");
    let text = format!(
        "{{\n\"version\": 1,\n\"default\": {{\"min_version\": \"TLSv1.2\", \"unlisted\": \"observe\"}},\n\
         \"known_hosts\": [\"api.openai.com\", \"*.openai.azure.com\", \"10.0.0.5\"],\n\
         \"upstreams\": [\n{rules}\n]}}\n"
    );
    pinned(&text)
}

/// The line of the first rule in [`file`].
const FIRST_RULE: usize = 6;

fn pinned(text: &str) -> String {
    let pin = |digits: &str| format!("\"sha256:{}\"", digits.repeat(32));
    text.replace("\"A\"", &pin("aa")).replace("\"B\"", &pin("bb")).replace("\"C\"", &pin("cc"))
}

fn parse(rules: &[&str]) -> Policy {
    Policy::parse(file(rules).as_bytes()).unwrap()
}

fn error(text: &str) -> (usize, String) {
    let invalid = Policy::parse(text.as_bytes()).map(drop).expect_err(text);
    (line(text.as_bytes(), &invalid), invalid.to_string())
}

fn host(text: &str) -> UpstreamHost<'_> {
    UpstreamHost::parse(text.as_bytes())
}

fn effective(rules: &[&str], tighten: &[&str]) -> EffectivePolicy {
    let read = |text: &&str| {
        let json = Json::parse(pinned(text).as_bytes()).unwrap();
        PolicyRule::read_tightening(&json.root(Integers::Digits)).unwrap()
    };
    EffectivePolicy::new(parse(rules), tighten.iter().map(read).collect())
}

/// The requirement for a host in short form: the version, the first digits of the pins, `client`.
fn demand(policy: &EffectivePolicy, authority: &str, now_secs: u64) -> String {
    match policy.demand(&host(authority), now_secs) {
        Demand::Skip(_) => "skip".to_owned(),
        Demand::Unlisted => "unlisted".to_owned(),
        Demand::Verify(requirement) => {
            let mut text = requirement.min_version.to_string();
            for pins in requirement.pins {
                text += " ";
                text.extend(pins.iter().map(|pin| pin.get(..1).unwrap()));
            }
            text + if requirement.client_certificate { " client" } else { "" }
        }
    }
}

// === the file ===

#[test]
fn the_shipped_file_is_valid() {
    let policy = Policy::parse(SHIPPED).unwrap();
    assert_eq!(policy.digest(), sha256_hex(SHIPPED));
    assert_eq!(policy.min_version(), TlsVersion::V1_2);
    assert_eq!(policy.unlisted(), Unlisted::Observe);
    assert!(policy.upstreams().is_empty());
    for known in [
        "api.openai.com",
        "my.openai.azure.com",
        "api.anthropic.com",
        "generativelanguage.googleapis.com",
        "us-central1-aiplatform.googleapis.com",
        "bedrock-runtime.us-east-1.amazonaws.com",
        "api.mistral.ai",
        "api.cohere.com",
        "api.groq.com",
        "api.deepseek.com",
        "api.x.ai",
        "api.together.ai",
        "api.fireworks.ai",
        "openrouter.ai",
        "api.perplexity.ai",
        "router.huggingface.co",
        "ark.cn-beijing.volces.com",
        "ark.ap-southeast.bytepluses.com",
        "qianfan.baidubce.com",
        "api.hunyuan.cloud.tencent.com",
        "api.minimax.io",
        "api.siliconflow.cn",
        "api.stepfun.com",
        "api.friendli.ai",
        "api.hyperbolic.xyz",
        "inference.api.nscale.com",
        "api.lambda.ai",
        "ai-gateway.vercel.sh",
        "api.business.githubcopilot.com",
        "chat.westeurope.inference.ml.azure.com",
        "models.inference.ai.azure.com",
        "runtime.sagemaker.eu-west-1.amazonaws.com",
        "api.eu.residency.elevenlabs.io",
        "api.deepgram.com",
        "llm-gateway.eu.assemblyai.com",
        "eu.api.openai.com",
    ] {
        assert!(policy.knows(&host(known)), "{known}");
    }
    let mut patterns: Vec<String> = policy.known_hosts().iter().map(ToString::to_string).collect();
    patterns.sort();
    patterns.dedup();
    assert_eq!(patterns.len(), policy.known_hosts().len(), "no host twice");
}

#[test]
fn unlisted_hosts_are_verified_by_default() {
    let text = r#"{"version": 1, "default": {"min_version": "TLSv1.3"}, "known_hosts": []}"#;
    let policy = Policy::parse(text.as_bytes()).unwrap();
    assert_eq!(policy.unlisted(), Unlisted::Verify);
    assert_eq!(policy.digest(), sha256_hex(text.as_bytes()));
    let policy = EffectivePolicy::new(policy, Box::default());
    assert_eq!(demand(&policy, "other.example", 0), "TLSv1.3");
    assert_eq!(demand(&effective(&[], &[]), "other.example", 0), "unlisted");
}

#[test]
fn a_file_with_an_invalid_member_is_rejected() {
    let known = "(known here: version, default, known_hosts, upstreams)";
    let hosts = "expected a host name in lower case, *.suffix, prefix.*.suffix, or an address, without port; \
                 international names in their ASCII form (xn--)";
    let version = "expected one of TLSv1.0, TLSv1.1, TLSv1.2, TLSv1.3";
    let whole = file(&[]);
    assert!(Policy::parse(whole.as_bytes()).is_ok());
    for (part, wrong, at, expected) in [
        ("\"version\": 1", "\"version\": 2", 2, "version: expected version 1"),
        ("\"version\": 1", "\"version\": 1.0", 2, "version: expected a whole number, 0 to 2^53"),
        ("\"version\": 1", "\"version\": \"1\"", 2, "version: expected a whole number"),
        ("\"version\": 1,\n", "\n", 1, "version: missing"),
        ("\"default\"", "\"defaults\"", 3, &format!("defaults: unknown member {known}")),
        ("\"known_hosts\"", "\"x\\n\"", 4, &format!("x\\n: unknown member {known}")),
        (
            "{\"min_version\": \"TLSv1.2\", \"unlisted\": \"observe\"}",
            "[]",
            3,
            "default: expected an object",
        ),
        ("\"min_version\": \"TLSv1.2\", ", "", 3, "default.min_version: missing"),
        ("TLSv1.2", "tlsv1.2", 3, &format!("default.min_version: {version}")),
        ("TLSv1.2", "unknown", 3, &format!("default.min_version: {version}")),
        ("\"TLSv1.2\"", "null", 3, "default.min_version: expected a string"),
        ("observe", "skip", 3, "default.unlisted: expected one of observe, verify"),
        (
            "\"unlisted\"",
            "\"unliste\"",
            3,
            "default.unliste: unknown member (known here: min_version, unlisted)",
        ),
        ("\"10.0.0.5\"", "10", 4, "known_hosts[2]: expected a string"),
        ("\"api.openai.com\"", "\"*\"", 4, &format!("known_hosts[0]: {hosts}")),
        ("\"api.openai.com\"", "\"Api.openai.com\"", 4, &format!("known_hosts[0]: {hosts}")),
        ("\"upstreams\": [\n\n]", "\"upstreams\": {}", 5, "upstreams: expected a list"),
        ("\"upstreams\": [\n\n]", "\"upstreams\": [[]]", 5, "upstreams[0]: expected an object"),
    ] {
        let text = whole.replacen(part, wrong, 1);
        assert_ne!(text, whole, "{part}");
        assert_eq!(error(&text), (at, expected.to_owned()), "{wrong}");
    }
    let twice = whole.replacen("\"version\": 1,", "\"version\": 1,\n\"version\": 1,", 1);
    let (at, text) = error(&twice);
    assert_eq!(at, 3);
    assert!(text.starts_with("not valid JSON: a member is named twice"), "{text}");
    assert_eq!(error(&whole.replacen(",\n\"known", "\n\"known", 1)).0, 4);
    let (before, rest) = whole.split_once("\"known_hosts\"").unwrap();
    let without = [before, rest.split_once("],").unwrap().1].concat();
    assert_eq!(error(&without), (1, "known_hosts: missing".to_owned()));
}

#[test]
fn an_invalid_rule_is_rejected() {
    let hosts = "expected a host name in lower case, *.suffix, prefix.*.suffix, or an address, without port; \
                 international names in their ASCII form (xn--)";
    let pin =
        "expected sha256: and the 64 lower-case hexadecimal digits of a certificate's SHA-256";
    let few = "expected at least two pins, one of them in reserve";
    let upper = format!(r#"{{"host": "a.example", "pins": ["A", "sha256:{}"]}}"#, "AA".repeat(32));
    let short = format!(r#"{{"host": "a.example", "pins": ["A", "sha256:{}"]}}"#, "a".repeat(63));
    let long = format!(r#"{{"host": "a.example", "pins": ["A", "sha256:{}"]}}"#, "a".repeat(65));
    let bare = format!(r#"{{"host": "a.example", "pins": ["{}", "A"]}}"#, "bb".repeat(32));
    for (rule, member, expected) in [
        (r#"{"min_version": "TLSv1.3"}"#, ".host", "missing"),
        (r#"{"host": 5}"#, ".host", "expected a string"),
        (r#"{"host": "a.example:443"}"#, ".host", hosts),
        (r#"{"host": "*"}"#, ".host", hosts),
        (r#"{"host": "a.*b.example"}"#, ".host", hosts),
        (r#"{"host": "bücher.example"}"#, ".host", hosts),
        (r#"{"host": "a.example."}"#, ".host", hosts),
        (r#"{"host": "010.0.0.1"}"#, ".host", hosts),
        (r#"{"host": "::1"}"#, ".host", hosts),
        (
            r#"{"host": "a.example", "pin": []}"#,
            ".pin",
            "unknown member (known here: host, min_version, pins, client_certificate, \
             insecure_skip_verify)",
        ),
        (
            r#"{"host": "a.example", "min_version": "1.2"}"#,
            ".min_version",
            "expected one of TLSv1.0, TLSv1.1, TLSv1.2, TLSv1.3",
        ),
        (
            r#"{"host": "a.example", "client_certificate": "yes"}"#,
            ".client_certificate",
            "expected true or false",
        ),
        (r#"{"host": "a.example", "pins": "A"}"#, ".pins", "expected a list"),
        (r#"{"host": "a.example", "pins": []}"#, ".pins", few),
        (r#"{"host": "a.example", "pins": ["A"]}"#, ".pins", few),
        (
            r#"{"host": "a.example", "pins": ["A", "B", "A"]}"#,
            ".pins[2]",
            "an earlier pin is the same",
        ),
        (r#"{"host": "a.example", "pins": ["A", 5]}"#, ".pins[1]", "expected a string"),
        (&upper, ".pins[1]", pin),
        (&short, ".pins[1]", pin),
        (&long, ".pins[1]", pin),
        (&bare, ".pins[0]", pin),
        (r#"{"host": "first.example"}"#, "", "an earlier rule already applies to this host"),
    ] {
        let text = file(&[r#"{"host": "first.example"}"#, rule]);
        let expected = format!("upstreams[1]{member}: {expected}");
        assert_eq!(error(&text), (FIRST_RULE + 1, expected), "{rule}");
    }
}

#[test]
fn an_exception_needs_a_reason_an_owner_and_a_day() {
    let day = "expected a day, e.g. 2027-03-31";
    for (skip, member, expected) in [
        ("true", "", "expected an object"),
        (r#"{"owner": "o", "until": "2027-03-31"}"#, ".reason", "missing"),
        (r#"{"reason": "r", "until": "2027-03-31"}"#, ".owner", "missing"),
        (r#"{"reason": "r", "owner": "o"}"#, ".until", "missing"),
        (r#"{"reason": "", "owner": "o", "until": "2027-03-31"}"#, ".reason", "expected a text"),
        (
            r#"{"reason": "r", "owner": " \n\u00a0", "until": "2027-03-31"}"#,
            ".owner",
            "expected a text",
        ),
        (r#"{"reason": "r", "owner": "o", "until": 5}"#, ".until", "expected a string"),
        (
            r#"{"reason": "r", "owner": "o", "until": "2027-03-31", "for": 1}"#,
            ".for",
            "unknown member (known here: reason, owner, until)",
        ),
    ] {
        let rule = format!(r#"{{"host": "dev.example", "insecure_skip_verify": {skip}}}"#);
        let expected = format!("upstreams[0].insecure_skip_verify{member}: {expected}");
        assert_eq!(error(&file(&[&rule])), (FIRST_RULE, expected), "{skip}");
    }
    for until in [
        "",
        "forever",
        "2027",
        "2027-3-31",
        "31-03-2027",
        "2027-02-29",
        "2027-13-01",
        "2027-00-10",
        "2027-01-00",
        "1969-12-31",
        "20270331",
        "2027/03/31",
        " 2027-03-31",
        "2027-03-31 ",
        "2027-03-31T00:00:00Z",
        "2027-03-31T00:00:00",
        "2027-03-31T00:00:00.",
        "+027-03-31",
        "２027-03-31",
        "12027-03-31",
    ] {
        let rule = skipping("dev.example", until);
        let expected = format!("upstreams[0].insecure_skip_verify.until: {day}");
        assert_eq!(error(&file(&[&rule])), (FIRST_RULE, expected), "{until}");
    }
    let leap = parse(&[&skipping("dev.example", "2028-02-29")]);
    assert_eq!(leap.upstreams()[0].skip.as_ref().unwrap().until_secs, 1_835_481_600);
}

fn skipping(host: &str, until: &str) -> String {
    format!(
        r#"{{"host": "{host}", "insecure_skip_verify": {{"reason": " lab ", "owner": "o", "until": "{until}"}}}}"#
    )
}

#[test]
fn a_rule_cannot_weaken_a_known_host() {
    for (pattern, known) in [
        ("api.openai.com", "api.openai.com"),
        ("eu.api.openai.com", "api.openai.com"),
        ("a.b.api.openai.com", "api.openai.com"),
        ("*.api.openai.com", "api.openai.com"),
        ("*.openai.com", "api.openai.com"),
        ("*.com", "api.openai.com"),
        ("my.openai.azure.com", "*.openai.azure.com"),
        ("*.my.openai.azure.com", "*.openai.azure.com"),
        ("*.openai.azure.com", "*.openai.azure.com"),
        ("*.azure.com", "*.openai.azure.com"),
        ("10.0.0.5", "10.0.0.5"),
    ] {
        let expected = format!(
            "upstreams[0].insecure_skip_verify: {known} is a known host, which is always verified"
        );
        let text = file(&[&skipping(pattern, "2027-03-31")]);
        assert_eq!(error(&text), (FIRST_RULE, expected), "{pattern}");
        for version in ["TLSv1.0", "TLSv1.1"] {
            let rule = format!(r#"{{"host": "{pattern}", "min_version": "{version}"}}"#);
            let expected = format!(
                "upstreams[0].min_version: {known} is a known host, which speaks TLSv1.2 or later"
            );
            assert_eq!(error(&file(&[&rule])), (FIRST_RULE, expected), "{pattern}");
        }
        for version in ["TLSv1.2", "TLSv1.3"] {
            parse(&[&format!(r#"{{"host": "{pattern}", "min_version": "{version}"}}"#)]);
        }
    }
    // Patterns that are not in canonical form are rejected earlier.
    for pattern in ["API.openai.com", "api.openai.com.", "api.openai.com:443", "[::ffff:10.0.0.5]"]
    {
        assert!(Policy::parse(file(&[&skipping(pattern, "2027-03-31")]).as_bytes()).is_err());
    }
    for pattern in ["dev.example", "xapi.openai.com", "api.openai.com.example", "10.0.0.6", "[::5]"]
    {
        parse(&[&skipping(pattern, "2027-03-31")]);
    }
}

#[test]
fn a_rule_can_require_more_of_a_known_host() {
    let policy = effective(
        &[r#"{"host": "api.openai.com", "pins": ["A", "B"], "client_certificate": true}"#],
        &[],
    );
    assert_eq!(demand(&policy, "API.openai.com.:443", 0), "TLSv1.2 ab client");
    assert_eq!(demand(&policy, "eu.api.openai.com", 0), "TLSv1.2");
}

#[test]
fn a_known_host_requires_tls_1_2_with_any_default() {
    let text = file(&[]).replace("\"TLSv1.2\"", "\"TLSv1.0\"");
    let policy = EffectivePolicy::new(Policy::parse(text.as_bytes()).unwrap(), Box::default());
    for known in
        ["api.openai.com", "eu.api.openai.com", "my.openai.azure.com", "[::ffff:a00:5]", "a@b"]
    {
        assert_eq!(demand(&policy, known, 0), "TLSv1.2", "{known}");
    }
    let text = text.replace("observe", "verify");
    let policy = EffectivePolicy::new(Policy::parse(text.as_bytes()).unwrap(), Box::default());
    assert_eq!(demand(&policy, "other.example", 0), "TLSv1.0");
}

// === exceptions ===

#[test]
fn an_exception_ends_with_its_day() {
    let rule = r#"{"host": "dev.example", "min_version": "TLSv1.3", "pins": ["A", "B"],
        "insecure_skip_verify": {"reason": " lab ", "owner": "o", "until": "2027-03-31"}}"#;
    let policy = effective(&[rule], &[]);
    let skip = Skip { reason: "lab".into(), owner: "o".into(), until_secs: UNTIL };
    assert_eq!(policy.file().upstreams()[0].skip, Some(skip));
    for now_secs in [0, UNTIL - 86_400, UNTIL - 1] {
        assert_eq!(demand(&policy, "DEV.example:80", now_secs), "skip");
    }
    for now_secs in [UNTIL, UNTIL + 1, u64::MAX] {
        assert_eq!(demand(&policy, "dev.example", now_secs), "TLSv1.3 ab");
    }
    assert_eq!(demand(&policy, "a.dev.example", 0), "unlisted");
}

#[test]
fn the_narrowest_rule_applies() {
    let rules = [
        r#"{"host": "*.example", "min_version": "TLSv1.0"}"#,
        r#"{"host": "a.b.example", "min_version": "TLSv1.3"}"#,
        r#"{"host": "*.b.example", "min_version": "TLSv1.1", "client_certificate": true}"#,
        r#"{"host": "192.0.2.1", "client_certificate": true}"#,
    ];
    let mut backwards = rules;
    backwards.reverse();
    for rules in [rules, backwards] {
        let policy = effective(&rules, &[]);
        assert_eq!(demand(&policy, "a.b.example", 0), "TLSv1.3");
        assert_eq!(demand(&policy, "c.b.example", 0), "TLSv1.1 client");
        assert_eq!(demand(&policy, "a.a.b.example", 0), "TLSv1.1 client");
        assert_eq!(demand(&policy, "b.example", 0), "TLSv1.0");
        assert_eq!(demand(&policy, "example", 0), "unlisted");
        assert_eq!(demand(&policy, "192.0.2.1", 0), "TLSv1.2 client");
    }
}

// === what a configuration adds ===

#[test]
fn each_requirement_is_tightened_and_never_loosened() {
    let rule = r#"{"host": "a.example", "min_version": "TLSv1.2", "pins": ["A", "B"]}"#;
    let strict = r#"{"host": "b.example", "min_version": "TLSv1.3", "client_certificate": true}"#;
    for (tighten, a, b) in [
        (r#"{"host": "*.example"}"#, "TLSv1.2 ab", "TLSv1.3 client"),
        (r#"{"host": "*.example", "min_version": "TLSv1.0"}"#, "TLSv1.2 ab", "TLSv1.3 client"),
        (r#"{"host": "*.example", "min_version": "TLSv1.3"}"#, "TLSv1.3 ab", "TLSv1.3 client"),
        (r#"{"host": "*.example", "pins": ["B", "C"]}"#, "TLSv1.2 ab bc", "TLSv1.3 bc client"),
        (r#"{"host": "*", "client_certificate": true}"#, "TLSv1.2 ab client", "TLSv1.3 client"),
        (r#"{"host": "*", "client_certificate": false}"#, "TLSv1.2 ab", "TLSv1.3 client"),
        (r#"{"host": "other.example", "min_version": "TLSv1.3"}"#, "TLSv1.2 ab", "TLSv1.3 client"),
    ] {
        let policy = effective(&[rule, strict], &[tighten]);
        assert_eq!(demand(&policy, "a.example", 0), a, "{tighten}");
        assert_eq!(demand(&policy, "b.example", 0), b, "{tighten}");
    }
}

#[test]
fn all_matching_rules_of_a_configuration_apply() {
    let tighten = [
        r#"{"host": "a.example", "pins": ["A", "B"]}"#,
        r#"{"host": "*.example", "pins": ["B", "C"], "min_version": "TLSv1.3"}"#,
        r#"{"host": "*", "client_certificate": true}"#,
    ];
    let policy = effective(&[], &tighten);
    assert_eq!(policy.tighten().len(), 3);
    assert_eq!(demand(&policy, "a.example", 0), "TLSv1.3 ab bc client");
    assert_eq!(demand(&policy, "b.example", 0), "TLSv1.3 bc client");
    assert_eq!(demand(&policy, "192.0.2.9", 0), "TLSv1.2 client");
    assert_eq!(demand(&policy, "a b", 0), "TLSv1.2 client");
    assert_eq!(demand(&policy, "api.openai.com", 0), "TLSv1.2 client");
}

#[test]
fn any_added_rule_ends_an_exception() {
    let skip = skipping("dev.example", "2027-03-31");
    for (tighten, expected) in [
        (r#"{"host": "*"}"#, "TLSv1.2"),
        (r#"{"host": "dev.example"}"#, "TLSv1.2"),
        (r#"{"host": "*.example", "min_version": "TLSv1.0"}"#, "TLSv1.2"),
        (r#"{"host": "*.dev.example"}"#, "skip"),
    ] {
        let policy = effective(&[&skip], &[tighten]);
        assert_eq!(demand(&policy, "dev.example", UNTIL - 1), expected, "{tighten}");
    }
}

#[test]
fn a_configuration_cannot_loosen() {
    for (text, expected) in [
        (
            r#"{"host": "*", "insecure_skip_verify": {}}"#,
            "insecure_skip_verify: unknown member (known here: host, min_version, pins, \
             client_certificate)",
        ),
        (
            r#"{"host": "*", "pins": []}"#,
            "pins: expected at least two pins, one of them in reserve",
        ),
        ("{}", "host: missing"),
    ] {
        let json = Json::parse(text.as_bytes()).unwrap();
        let error =
            PolicyRule::read_tightening(&json.root(Integers::Digits)).map(drop).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
