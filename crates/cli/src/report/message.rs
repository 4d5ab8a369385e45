//! What `vkey explain` reports of a request for an MCP server.

use vkey::access::{Mcp, McpCall, Models};
use vkey::body::mcp::{Era, Message, MessageKind, Mirrors, ObjectKind, Purpose};
use vkey::decision::Decision;
use vkey::engine::{McpTarget, Reading};
use vkey::json::Json;

use super::super::evaluated::{Conditions, Evaluated, Known};
use super::super::request_body::{Refusal, RequestBody};
use super::Report;

const CALL: &str = "the decision depends on the MCP call, which is not given: pass the message with --body, or name the call with \
    --mcp-method and --mcp-name";

const ARGUMENTS: &str = "the decision depends on the arguments of the call, which are not given: pass the message with --body";

const ANY_CALL: &str =
    "the gate reads the message too, and refuses one that it cannot read; pass it with --body";

const NO_MESSAGE: &str =
    "the gate reads messages of POST requests only, so it does not read this body";

const SAID: &str = "mcp.verify is headers, and the headers say what the message is, so the gate does not read the body";

impl Report {
    /// Looks at a request for an MCP server as the gate does: its headers or its body say what it calls for.
    pub(super) fn evaluate_message(
        &mut self,
        request: &Evaluated<'_, '_>,
        (reading, target): (&Reading, &McpTarget),
        body: &RequestBody,
    ) {
        let by_head = Known::before_body(request, reading);
        if let Some(message) = request.engine.said_by_headers(request.head) {
            self.look_at_message(request, target, &message);
            return self.note_body(body, SAID);
        }
        if target.purpose != Ok(Purpose::Message) {
            self.look(request, &by_head);
            return self.note_body(body, NO_MESSAGE);
        }
        let settings = request.engine.settings();
        match (body.check(settings), body.named()) {
            (Err(refusal), _) => self.refuse_unread(request, &by_head, refusal),
            (Ok(()), _) if body.is_known() => match body.read_message(request.key, settings) {
                Ok(message) => self.look_at_message(request, target, &message),
                Err(refusal) => {
                    self.body = Some(Json::object([("error", (&*refusal.1).into())]));
                    self.refuse_unread(request, &by_head, refusal);
                }
            },
            (Ok(()), Some(named)) => self.look_at_call(request, target, named),
            (Ok(()), None) => self.look_without_call(request, &by_head),
        }
    }

    /// The message is read.
    fn look_at_message(
        &mut self,
        request: &Evaluated<'_, '_>,
        target: &McpTarget,
        message: &Message,
    ) {
        let mirrored = Mirrors::read(request.head.fields()).check(message);
        let call = target.call(message);
        self.describe_message(request, message, call, mirrored.ok());
        let checked = request.engine.check_message(request.head, message, mirrored);
        let (models, mcp) = (Models::None, Mcp::Call(call));
        self.look(request, &Known { models, mcp, is_read: true, checked });
    }

    /// The call is named, and its arguments are not known.
    fn look_at_call(&mut self, request: &Evaluated<'_, '_>, target: &McpTarget, named: &Message) {
        let call = McpCall { arguments: None, ..target.call(named) };
        let conditions = self.describe_message(request, named, call, None);
        let (models, mcp) = (Models::None, Mcp::Call(call));
        self.look(request, &Known { models, mcp, is_read: false, checked: Ok(()) });
        self.lacks = conditions.map(|_| ARGUMENTS);
    }

    /// Nothing is known of the message. A call for which no restriction of MCP calls holds shows whether the call decides.
    fn look_without_call(&mut self, request: &Evaluated<'_, '_>, by_head: &Known<'_>) {
        self.look(request, by_head);
        if request.verdicts(by_head.mcp) != request.verdicts(Mcp::None) {
            self.lacks = Some(CALL);
        } else if self.goes_on() {
            self.notes.push(ANY_CALL.to_owned());
        }
    }

    /// The message cannot be read. A request that is refused whatever it says keeps that reason.
    fn refuse_unread(
        &mut self,
        request: &Evaluated<'_, '_>,
        by_head: &Known<'_>,
        refusal: Refusal,
    ) {
        self.look(request, by_head);
        if self.goes_on() {
            let mode = request.engine.settings().mode;
            let decision = Decision::refused(refusal.0, mode);
            self.refuse("body", refusal, decision);
        }
    }

    /// Notes why the gate does not read a body that is there.
    fn note_body(&mut self, body: &RequestBody, why: &str) {
        if body.is_present() && self.goes_on() {
            self.notes.push(why.to_owned());
        }
    }

    /// Shows what a message calls for, and of its arguments only what they mean for the decision. `era`: the rules that it
    /// follows, if that is known. Returns what the arguments mean.
    fn describe_message(
        &mut self,
        request: &Evaluated<'_, '_>,
        message: &Message,
        call: McpCall<'_>,
        era: Option<Era>,
    ) -> Option<Conditions> {
        let word = |word: Option<&str>| word.map_or(Json::Null, Json::from);
        let names = call.names().iter().map(|name| Json::from(&**name)).collect();
        let conditions = request.conditions(call);
        let said = Mirrors::read(request.head.fields()).revision();
        let method = Some(&*message.method).filter(|method| !method.is_empty());
        self.body = Some(Json::object([
            ("message", kind_word(message.kind).into()),
            ("method", word(method)),
            ("object", word(call.object.map(|(kind, _)| object_word(kind)))),
            ("names", Json::Array(names)),
            ("server", word(call.server)),
            ("revision", word(message.revision.as_deref().or(said))),
            ("era", word(era.map(era_word))),
            ("conditions", word(conditions.map(conditions_word))),
        ]));
        conditions
    }
}

fn kind_word(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Request => "request",
        MessageKind::Notification => "notification",
        MessageKind::Response => "response",
    }
}

fn object_word(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Tool => "tool",
        ObjectKind::Resource => "resource",
        ObjectKind::Prompt => "prompt",
        ObjectKind::Task => "task",
    }
}

fn era_word(era: Era) -> &'static str {
    match era {
        Era::Legacy => "legacy",
        Era::Modern => "modern",
    }
}

fn conditions_word(conditions: Conditions) -> &'static str {
    match conditions {
        Conditions::Met => "met",
        Conditions::NotMet => "not met",
        Conditions::Unknown => "unknown",
    }
}
