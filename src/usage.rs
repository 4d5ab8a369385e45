//! What a key is told of its own use, and of that of others where its tier may know.

use crate::allowance::Allowance;
use crate::cell::Cell;
use crate::claims::is_id;
use crate::json::Object;

/// Whose usage a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The key's own.
    Own,
    /// That of the key of this id.
    Key(String),
    /// That of this tenant.
    Tenant(String),
}

/// The query does not say whose usage is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmbiguousSubject(());

/// Whose usage an answer tells of, as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account<'a> {
    /// The id of the key.
    pub jti: Option<&'a str>,
    /// The tenant.
    pub tenant: Option<&'a str>,
    /// The key's tier.
    pub tier: Option<&'a str>,
}

impl Subject {
    /// Reads the query of a request target: `jti=` or `tenant=`, or neither. Other members are not
    /// looked at.
    ///
    /// # Errors
    ///
    /// [`AmbiguousSubject`] for more than one of them, and for what is no id.
    pub fn parse(target: &[u8]) -> Result<Self, AmbiguousSubject> {
        let query = target.splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default();
        let query = query.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut subject = Self::Own;
        for member in query.split(|byte| *byte == b'&') {
            let named = match (member.strip_prefix(b"jti="), member.strip_prefix(b"tenant=")) {
                (Some(jti), _) => Self::Key(id(jti)?),
                (None, Some(tenant)) => Self::Tenant(id(tenant)?),
                (None, None) => continue,
            };
            if std::mem::replace(&mut subject, named) != Self::Own {
                return Err(AmbiguousSubject(()));
            }
        }
        Ok(subject)
    }
}

/// The usage answer: one JSON object.
pub fn answer(account: &Account<'_>, cell: &Cell, allowances: &[Allowance]) -> String {
    let mut text = String::new();
    let mut answer = Object::open(&mut text);
    answer.text("jti", account.jti);
    answer.text("tenant", account.tenant);
    answer.text("tier", account.tier);
    answer.number("seen", Some(cell.seen()));
    answer.number("allowed", Some(cell.allowed()));
    let mut denied = Object::open(answer.member("denied"));
    cell.denied().for_each(|(class, count)| denied.number(class.name(), Some(count)));
    denied.close();
    let limits = answer.member("limits");
    for (index, allowance) in allowances.iter().enumerate() {
        limits.push(if index == 0 { '[' } else { ',' });
        allowance.write(limits);
    }
    limits.push_str(if allowances.is_empty() { "[]" } else { "]" });
    answer.close();
    text
}

fn id(bytes: &[u8]) -> Result<String, AmbiguousSubject> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| is_id(text));
    text.map(str::to_owned).ok_or(AmbiguousSubject(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_one_subject() {
        let subject = |target: &str| Subject::parse(target.as_bytes()).ok();
        assert_eq!(subject("/.vkey/usage"), Some(Subject::Own));
        assert_eq!(subject("/.vkey/usage?"), Some(Subject::Own));
        assert_eq!(subject("/.vkey/usage?pretty"), Some(Subject::Own));
        assert_eq!(subject("/u?jti=k_1"), Some(Subject::Key("k_1".to_owned())));
        assert_eq!(subject("/u?a=b&tenant=acme"), Some(Subject::Tenant("acme".to_owned())));
        for ambiguous in
            ["/u?jti=", "/u?jti=a&jti=a", "/u?jti=a&tenant=b", "/u?tenant=a%20b", "/u?jti=\u{e9}"]
        {
            assert_eq!(subject(ambiguous), None, "{ambiguous}");
        }
    }
}
