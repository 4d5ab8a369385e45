//! Checks that no output contains keys, their tags, or values of the environment.

use vkey::audit::HIDDEN_CHARS;
use vkey::host::HeaderList;
use vkey::json::Json;

use super::check::Context;
use super::step::Expect;
use super::text::{from_bytes, hex, member, secret_bytes, tag};
use super::{Log, Observed};

/// Shorter texts could occur by chance.
const MIN_SECRET_CHARS: usize = 6;
const MIN_KEY_CHARS: usize = 20;

/// Everything that must stay hidden in a conversation.
pub(super) struct Hidden {
    /// Every key and its tag.
    keys: Vec<String>,
    /// Their tags, of which not even a part may be shown.
    tags: Vec<String>,
    /// The secrets of the rings.
    rings: Vec<String>,
    /// Every value of the environment.
    env: Vec<String>,
}

impl Hidden {
    pub(super) fn of(context: &Context<'_>) -> Self {
        let env = context.meaning.env;
        let keys = context.meaning.keys.values();
        let tags = keys.clone().map(|key| tag(key).to_owned()).collect();
        let keys = keys.flat_map(|key| [key.clone(), tag(key).to_owned()]);
        let rings = ring_variables(context.config);
        let rings = rings.iter().filter_map(|name| env.get(*name));
        Self {
            tags,
            keys: keys.filter(|text| text.len() >= MIN_KEY_CHARS).collect(),
            rings: rings.flat_map(|value| spellings(value)).collect(),
            env: env.values().flat_map(|value| spellings(value)).collect(),
        }
    }

    pub(super) fn check_log(&self, log: &Log) -> Vec<String> {
        let shown = |line: &str| {
            let mut problems = self.shown("the log", line);
            problems.extend(shows_part(&self.tags, "the log", line));
            problems
        };
        log.iter().flat_map(|(_, line)| shown(line)).collect()
    }

    pub(super) fn check(&self, expect: &Expect, observed: &Observed) -> Vec<String> {
        let mut problems = self.check_log(&observed.log);
        for (name, value) in &observed.filter_state {
            problems.extend(self.shown(&format!("filter state {name}"), value));
            problems.extend(shows_part(&self.tags, &format!("filter state {name}"), value));
        }
        if let Some(reply) = &observed.reply {
            problems.extend(self.shown("the reply", &format!("{reply:?} {}", reply.body)));
        }
        for (name, value) in &observed.response_headers {
            problems.extend(self.shown(&format!("response header {name}"), value));
        }
        if observed.forwarded == Some(true) {
            problems.extend(self.check_upstream(expect, observed));
        }
        problems
    }

    /// Trailers must not contain anything hidden.
    pub(super) fn check_trailers(&self, trailers: &HeaderList) -> Vec<String> {
        let shown = trailers.iter().flat_map(|(name, value)| {
            self.shown(&format!("trailer {}", from_bytes(name)), &from_bytes(value))
        });
        shown.collect()
    }

    /// A provider credential must be only in the header that the step names.
    fn check_upstream(&self, expect: &Expect, observed: &Observed) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value) in &observed.upstream {
            let (name, value) = (from_bytes(name), from_bytes(value));
            let place = format!("upstream header {name}");
            let present = &expect.upstream.headers.present;
            if present.iter().any(|(listed, _)| *listed == name) {
                problems.extend(shows(&self.keys, &place, &value));
                problems.extend(shows(&self.rings, &place, &value));
            } else {
                problems.extend(self.shown(&place, &value));
            }
        }
        problems
    }

    fn shown(&self, place: &str, text: &str) -> Vec<String> {
        let mut problems = shows(&self.keys, place, text);
        problems.extend(shows(&self.env, place, text));
        problems
    }
}

fn shows(hidden: &[String], place: &str, text: &str) -> Vec<String> {
    let shown = hidden.iter().filter(|secret| text.contains(secret.as_str()));
    let problem = |secret| format!("{place} shows {secret}: {text}");
    shown.map(problem).collect()
}

/// Whether a text contains too many consecutive characters of a tag. Such a text contains a block of half
/// the length, which few texts do, so that is tested first.
fn shows_part(tags: &[String], place: &str, text: &str) -> Option<String> {
    let text_holds = |part: &[u8]| text.contains(from_bytes(part).as_str());
    let shown = tags.iter().find(|tag| {
        tag.as_bytes().chunks_exact(HIDDEN_CHARS / 2).any(text_holds)
            && tag.as_bytes().windows(HIDDEN_CHARS).any(text_holds)
    });
    shown.map(|tag| format!("{place} shows a part of {tag}: {text}"))
}

fn ring_variables(config: Option<&Json>) -> Vec<&str> {
    let Some(Json::Array(rings)) = member(config, &["keyring"]) else {
        return Vec::new();
    };
    let variables = rings.iter().filter_map(|ring| ring.get("secret")?.as_str());
    let names = variables.filter_map(|text| text.strip_prefix("${")?.strip_suffix('}'));
    names.collect()
}

/// A secret in all the spellings in which it could leak.
fn spellings(value: &str) -> Vec<String> {
    let encoded = value.strip_prefix("base64:").unwrap_or(value).to_owned();
    let mut all = vec![value.to_owned(), encoded];
    if value.len() >= MIN_KEY_CHARS {
        all.push(hex(&secret_bytes(value)));
    }
    all.retain(|text| text.len() >= MIN_SECRET_CHARS);
    all
}
