//! The usage reply: counts and limits of a key or a tenant.

use crate::decision::DenyClass;
use crate::json::Object;
use crate::key::claims::is_id;
use crate::limits::allowance::Allowance;
use crate::limits::cell::Cell;

/// Whose usage is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The usage of the key itself.
    Own,
    /// The usage of a tenant, or of one of its keys.
    Of {
        /// The tenant.
        tenant: String,
        /// The id of the key. Other tenants may use the same id.
        jti: Option<String>,
    },
}

/// The parameters of a query that name a subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectQuery {
    /// The id of a key.
    pub jti: Option<String>,
    /// A tenant.
    pub tenant: Option<String>,
}

/// The query does not name one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmbiguousSubject(());

/// The requests of a key or a tenant that were decided on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that were forwarded.
    pub allowed: u64,
    /// Requests refused, by class, in the order of [`DenyClass::ALL`].
    pub denied: [u64; DenyClass::COUNT],
}

/// The subject of a usage reply, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account<'a> {
    /// The id of the key.
    pub jti: Option<&'a str>,
    /// The tenant.
    pub tenant: Option<&'a str>,
    /// The key's tier.
    pub tier: Option<&'a str>,
    /// Since when the proxy counts, Unix seconds: a proxy that starts anew counts from zero.
    pub since_secs: Option<u64>,
    /// No totals are known of it: nothing was counted for the key, or nothing counts the tenant.
    pub is_unknown: bool,
}

impl Totals {
    /// Requests decided on: `allowed` and all of `denied`.
    pub fn seen(&self) -> u64 {
        self.denied.iter().fold(self.allowed, |sum, denied| sum.saturating_add(*denied))
    }
}

impl From<&Cell> for Totals {
    fn from(cell: &Cell) -> Self {
        let mut denied = [0; DenyClass::COUNT];
        for (total, (_, count)) in denied.iter_mut().zip(cell.denied()) {
            *total = count;
        }
        Self { allowed: cell.allowed(), denied }
    }
}

impl SubjectQuery {
    /// Parses the query of a request target: `jti=`, `tenant=`, both or neither. Other parameters are
    /// ignored.
    ///
    /// # Errors
    ///
    /// [`AmbiguousSubject`] if one of them occurs twice or is not a valid id.
    pub fn parse(target: &[u8]) -> Result<Self, AmbiguousSubject> {
        let query = target.splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default();
        let query = query.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut subject = Self::default();
        for member in query.split(|byte| *byte == b'&') {
            let (place, text) =
                match (member.strip_prefix(b"jti="), member.strip_prefix(b"tenant=")) {
                    (Some(jti), _) => (&mut subject.jti, jti),
                    (None, Some(tenant)) => (&mut subject.tenant, tenant),
                    (None, None) => continue,
                };
            if place.replace(id(text)?).is_some() {
                return Err(AmbiguousSubject(()));
            }
        }
        Ok(subject)
    }

    /// Whose usage a key of a tenant requests. An id without a tenant must be that of the key itself,
    /// because keys of several tenants may have the same id.
    ///
    /// # Errors
    ///
    /// [`AmbiguousSubject`] if the query has the id of another key without its tenant.
    pub fn subject(self, tenant: &str, jti: &str) -> Result<Subject, AmbiguousSubject> {
        match (self.tenant, self.jti) {
            (None, None) => Ok(Subject::Own),
            (named, Some(id)) if id == jti && named.as_ref().is_none_or(|n| *n == tenant) => {
                Ok(Subject::Own)
            }
            (Some(tenant), jti) => Ok(Subject::Of { tenant, jti }),
            (None, Some(_)) => Err(AmbiguousSubject(())),
        }
    }
}

/// The body of the usage reply: one JSON object.
pub fn reply_body(account: &Account<'_>, totals: &Totals, allowances: &[Allowance]) -> String {
    let mut text = String::new();
    let mut reply = Object::open(&mut text);
    reply.text("jti", account.jti);
    reply.text("tenant", account.tenant);
    reply.text("tier", account.tier);
    reply.number("since", account.since_secs);
    if account.is_unknown {
        reply.member("known").push_str("false");
    }
    reply.number("seen", Some(totals.seen()));
    reply.number("allowed", Some(totals.allowed));
    let mut denied = Object::open(reply.member("denied"));
    for (class, count) in DenyClass::ALL.into_iter().zip(totals.denied) {
        denied.number(class.name(), Some(count));
    }
    denied.close();
    let limits = reply.member("limits");
    for (index, allowance) in allowances.iter().enumerate() {
        limits.push(if index == 0 { '[' } else { ',' });
        allowance.write(limits);
    }
    limits.push_str(if allowances.is_empty() { "[]" } else { "]" });
    reply.close();
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
    fn only_what_is_unknown_has_another_member() {
        let tenant = Account { tenant: Some("acme"), since_secs: Some(7), ..Account::default() };
        let body = |account| reply_body(&account, &Totals::default(), &[]);
        let denied = r#"{"unauthenticated":0,"forbidden":0,"bad_request":0,"limited":0,"upstream":0,"unavailable":0}"#;
        let rest = format!(r#""seen":0,"allowed":0,"denied":{denied},"limits":[]}}"#);
        let start = r#"{"jti":null,"tenant":"acme","tier":null,"since":7,"#;
        assert_eq!(body(tenant), [start, &rest].concat());
        let unknown = Account { is_unknown: true, ..tenant };
        assert_eq!(body(unknown), [start, r#""known":false,"#, &rest].concat());
    }

    #[test]
    fn a_query_names_one_subject() {
        let read = |target: &str| SubjectQuery::parse(target.as_bytes())?.subject("acme", "k_0");
        let subject = |target: &str| read(target).ok();
        let key = |tenant: &str, jti: &str| {
            Some(Subject::Of { tenant: tenant.to_owned(), jti: Some(jti.to_owned()) })
        };
        assert_eq!(subject("/.vkey/usage"), Some(Subject::Own));
        assert_eq!(subject("/.vkey/usage?"), Some(Subject::Own));
        assert_eq!(subject("/.vkey/usage?pretty"), Some(Subject::Own));
        for own in ["/u?jti=k_0", "/u?jti=k_0&tenant=acme", "/u?tenant=acme&x&jti=k_0"] {
            assert_eq!(subject(own), Some(Subject::Own), "{own}");
        }
        assert_eq!(subject("/u?jti=k_0&tenant=Acme"), key("Acme", "k_0"));
        assert_eq!(subject("/u?tenant=beta&jti=k_0"), key("beta", "k_0"));
        assert_eq!(subject("/u?jti=K_0&tenant=acme"), key("acme", "K_0"));
        assert_eq!(
            subject("/u?a=b&tenant=acme"),
            Some(Subject::Of { tenant: "acme".to_owned(), jti: None })
        );
        for ambiguous in [
            "/u?jti=",
            "/u?jti=k_0&jti=k_0",
            "/u?tenant=b&jti=a&tenant=b",
            "/u?tenant=a%20b",
            "/u?jti=\u{e9}",
            "/u?jti=k_1",
            "/u?jti=K_0",
        ] {
            assert_eq!(subject(ambiguous), None, "{ambiguous}");
        }
    }
}
