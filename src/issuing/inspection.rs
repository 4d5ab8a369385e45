//! What a key says, for a person.

use crate::access::restriction::{Restriction, Slashes, refuse_mistakes};
use crate::json::{Integers, Invalid, Json, pretty};
use crate::key::claims::Claims;
use crate::key::token::Unverified;
use crate::time::rfc3339;

/// The content of a key, unverified.
#[derive(Debug, Default)]
pub struct Inspection {
    /// What it says, as text in ASCII. A line may have line ends.
    pub lines: Vec<String>,
    /// What is wrong with it.
    pub notes: Vec<String>,
    /// Whether a gate would understand all of it.
    pub is_understood: bool,
}

impl Inspection {
    /// Shows the content of a key.
    pub fn of(key: &Unverified<'_>) -> Self {
        let (claims, caveats) = key.untrusted_content();
        let kid = key.kid();
        let mut shown = Self { is_understood: true, ..Self::default() };
        shown.lines.push(format!("kid         {kid} (ring {}, epoch {})", kid.ring(), kid.epoch()));
        shown.add_claims(claims);
        for (index, caveat) in caveats.enumerate() {
            let name = format!("caveat {}", index + 1);
            shown.add(&name, caveat);
            let restriction = Restriction::parse(caveat);
            shown.note(&name, &restriction);
            if let (Ok(restriction), Ok(json)) = (restriction, Json::parse(caveat)) {
                shown.add_restriction(&name, &restriction, &json);
            }
        }
        shown
    }

    fn add_claims(&mut self, text: &[u8]) {
        let claims = Claims::parse(text);
        if let Ok(claims) = &claims {
            self.lines.push(format!("issued      {}", rfc3339(claims.iat)));
            self.add_span(claims.nbf, Some(claims.exp), "");
        }
        self.add("claims", text);
        self.note("claims", &claims);
        let Some(only) = claims.ok().and_then(|claims| claims.only) else { return };
        let restriction = Restriction::read(&only.root(Integers::Digits));
        self.note("only", &restriction);
        if let Ok(restriction) = restriction {
            self.add_restriction("only", &restriction, &only);
        }
    }

    /// Adds what a person cannot see in a restriction's JSON: its times as dates, and the parts that no request
    /// can match.
    fn add_restriction(&mut self, name: &str, restriction: &Restriction, json: &Json) {
        self.add_span(restriction.nbf_secs(), restriction.exp_secs(), &format!("  ({name})"));
        for (index, alternative) in restriction.alternatives().iter().enumerate() {
            let of = format!("  ({name}, any_of[{index}])");
            self.add_span(alternative.nbf_secs(), alternative.exp_secs(), &of);
        }
        if let Err(invalid) = refuse_mistakes(&json.root(Integers::Digits), Slashes::Found) {
            self.notes.push(format!("{name}: {invalid}; no request can match it"));
        }
    }

    fn add_span(&mut self, nbf: Option<u64>, exp: Option<u64>, of: &str) {
        self.lines.extend(nbf.map(|nbf| format!("not before  {}{of}", rfc3339(nbf))));
        self.lines.extend(exp.map(|exp| format!("expires     {}{of}", rfc3339(exp))));
    }

    fn add(&mut self, name: &str, text: &[u8]) {
        self.lines.push(match Json::parse(text) {
            Ok(json) => format!("{name}\n{}", pretty(&json)),
            Err(_) => format!("{name}\n(not JSON)"),
        });
    }

    /// Notes why a gate would not understand what was read.
    fn note<T>(&mut self, name: &str, read: &Result<T, Invalid>) {
        if let Err(invalid) = read {
            self.notes.push(format!("{name}: {invalid}; a gate refuses the key"));
            self.is_understood = false;
        }
    }
}
