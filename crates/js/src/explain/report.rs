//! What `explain` reports.

use vkey::decision::DenyReason;
use vkey::issuing::KeyFlaw;
use vkey::json::Json;
use vkey::key::claims::Claims;
use vkey::key::token::Kid;

/// The stages of a decision.
pub(super) struct Report {
    now_secs: u64,
    key: Json,
    is_verified: bool,
    stages: Vec<Json>,
    refusal: Option<DenyReason>,
    /// What is not known and decides, unless something else refuses.
    lacks: Option<&'static str>,
}

const UNVERIFIED: &str =
    "the tag is not checked: anyone can write such a key; secret in the options checks it";

impl Report {
    pub(super) fn new(now_secs: u64) -> Self {
        Self {
            now_secs,
            key: Json::Null,
            is_verified: false,
            stages: Vec::new(),
            refusal: None,
            lacks: None,
        }
    }

    /// Adds what the key says of itself.
    pub(super) fn open(&mut self, kid: &Kid, claims: &Claims, caveats: usize, is_verified: bool) {
        let text = |text: &Option<String>| text.as_deref().map_or(Json::Null, Json::from);
        self.is_verified = is_verified;
        if is_verified {
            self.push("key", Ok(()));
        }
        self.key = Json::object([
            ("kid", kid.as_str().into()),
            ("jti", claims.jti.as_str().into()),
            ("tenant", claims.tenant.as_str().into()),
            ("sub", text(&claims.sub)),
            ("tier", claims.tier().into()),
            ("caveats", u64::try_from(caveats).unwrap_or(u64::MAX).into()),
        ]);
    }

    /// Adds a stage.
    pub(super) fn push(&mut self, stage: &str, verdict: Result<(), DenyReason>) {
        let reason = verdict.err();
        self.add(stage, reason.map(|reason| (reason.code(), reason.message())));
        self.refusal = self.refusal.or(reason);
    }

    /// Adds the refusal of what has not the form of a key.
    pub(super) fn refuse_form(&mut self, flaw: &KeyFlaw) {
        let reason = DenyReason::KeyMalformed;
        let message = match flaw {
            KeyFlaw::Form => reason.message().to_owned(),
            KeyFlaw::Header(_) | KeyFlaw::Claims(_) => flaw.to_string(),
        };
        self.add("key", Some((reason.code(), &message)));
        self.refusal = Some(reason);
    }

    /// Adds a stage with a result for each alternative of what is not known.
    pub(super) fn push_known(
        &mut self,
        stage: &str,
        mut refusals: impl Iterator<Item = Option<DenyReason>>,
        lacks: &'static str,
    ) {
        let first = refusals.next().flatten();
        if refusals.all(|refusal| refusal == first) {
            return self.push(stage, first.map_or(Ok(()), Err));
        }
        self.add(stage, Some(("undecided", lacks)));
        self.lacks = Some(lacks);
    }

    fn add(&mut self, stage: &str, refusal: Option<(&str, &str)>) {
        let (verdict, message) =
            refusal.map_or(("ok", Json::Null), |(code, why)| (code, why.into()));
        let stage = [("stage", stage.into()), ("verdict", verdict.into()), ("message", message)];
        self.stages.push(Json::object(stage));
    }

    pub(super) fn into_json(self) -> Json {
        let word = match (self.refusal, self.lacks) {
            (Some(_), _) => "deny",
            (None, Some(_)) => "undecided",
            (None, None) => "allow",
        };
        let unverified = (!self.is_verified && self.key != Json::Null).then_some(UNVERIFIED);
        let lacks = self.lacks.filter(|_| self.refusal.is_none());
        let notes = unverified.into_iter().chain(lacks).map(Json::from);
        Json::object([
            ("now", self.now_secs.into()),
            ("verified", Json::Bool(self.is_verified)),
            ("key", self.key),
            ("stages", Json::Array(self.stages)),
            ("decision", word.into()),
            ("reason", self.refusal.map_or(Json::Null, |reason| reason.code().into())),
            ("notes", Json::Array(notes.collect())),
        ])
    }
}
