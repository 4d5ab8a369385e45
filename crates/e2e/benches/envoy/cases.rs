//! What is compared: the cases, each a listener and the requests sent to it.

use crate::calls::Message;
use crate::filters::Chain;
use crate::keys::broken;
use crate::streams::Chat;

/// What all requests ask for, unless a case is about another path.
const PATH: &str = "/v1/models";

/// Cases that are measured in the same rounds.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) cases: Vec<Case>,
    /// What the cases are compared with: a title, and the id of a case.
    pub(crate) references: Vec<(&'static str, &'static str)>,
}

/// One Envoy.
pub(crate) struct Proxy {
    pub(crate) workers: u32,
    /// Where it may run, as `taskset -c` has it.
    pub(crate) cpus: &'static str,
    pub(crate) listeners: Vec<(&'static str, Chain)>,
}

/// Requests to one listener of one proxy of its group.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) proxy: usize,
    pub(crate) listener: &'static str,
    pub(crate) request: Ask,
    /// The status of every answer.
    pub(crate) expected: u16,
    /// The case without a filter that this one is measured over.
    pub(crate) base: &'static str,
    /// The case with the module that does nothing, where it is not the usual one.
    pub(crate) noop: &'static str,
    /// Requests that show, once before the first round, that the filter does what it is for.
    pub(crate) checks: Vec<(Ask, u16)>,
}

/// A request.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) path: &'static str,
    pub(crate) credential: Credential,
    /// The host that it names, where it is another than the address of the listener.
    pub(crate) host: Option<&'static str>,
    /// How many headers the client sends in all; 0 for no more than it needs.
    pub(crate) headers: usize,
    /// The chat that it asks for, whose answer is a stream.
    pub(crate) chat: Option<Chat>,
    /// The message of MCP that it is.
    pub(crate) message: Option<Message>,
}

/// What a request carries to be let in.
#[derive(Clone)]
pub(crate) enum Credential {
    None,
    /// The same in every request.
    One(String),
    /// In every request another, never seen before.
    Fresh(Fresh),
    /// So many, one after the other and all over again.
    Many(usize),
}

/// Keys that differ in their id.
#[derive(Clone, Copy)]
pub(crate) struct Fresh {
    pub(crate) caveats: usize,
    /// Whether their tag is that of the ring.
    pub(crate) valid: bool,
}

// === impl Ask ===

impl Ask {
    pub(crate) fn new(credential: Credential) -> Self {
        Self { path: PATH, credential, host: None, headers: 0, chat: None, message: None }
    }

    pub(crate) fn with(key: impl Into<String>) -> Self {
        Self::new(Credential::One(key.into()))
    }

    pub(crate) fn path(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    pub(crate) fn chat(mut self, chat: Chat) -> Self {
        self.path = Chat::PATH;
        self.chat = Some(chat);
        self
    }

    pub(crate) fn message(mut self, message: Message) -> Self {
        self.message = Some(message);
        self
    }

    pub(crate) fn host(mut self, host: &'static str) -> Self {
        self.host = Some(host);
        self
    }

    pub(crate) fn headers(mut self, count: usize) -> Self {
        self.headers = count;
        self
    }
}

// === impl Case ===

impl Case {
    pub(crate) fn new(
        id: &'static str,
        title: &'static str,
        listener: &'static str,
        request: Ask,
    ) -> Self {
        Self {
            id,
            title,
            proxy: 0,
            listener,
            request,
            expected: 200,
            base: "bare",
            noop: "noop",
            checks: Vec::new(),
        }
    }

    pub(crate) fn expected(mut self, status: u16) -> Self {
        self.expected = status;
        self
    }

    pub(crate) fn over(mut self, base: &'static str, noop: &'static str) -> Self {
        (self.base, self.noop) = (base, noop);
        self
    }

    pub(crate) fn listener(mut self, name: &'static str) -> Self {
        self.listener = name;
        self
    }

    pub(crate) fn on(mut self, proxy: usize) -> Self {
        self.proxy = proxy;
        self
    }

    pub(crate) fn check(mut self, ask: Ask, status: u16) -> Self {
        self.checks.push((ask, status));
        self
    }

    /// A credential that is broken and one that is missing are refused.
    pub(crate) fn guarded(self, key: &str) -> Self {
        self.check(Ask::with(broken(key)), 401).check(Ask::new(Credential::None), 401)
    }
}

// === impl Group ===

impl Group {
    /// The cases with that text in their id, and those they are compared with.
    pub(crate) fn only(mut self, wanted: &str) -> Option<Self> {
        let chosen: Vec<Case> =
            self.cases.iter().filter(|case| case.id.contains(wanted)).cloned().collect();
        if chosen.is_empty() {
            return None;
        }
        let mut needed: Vec<&str> = self.references.iter().map(|(_, id)| *id).collect();
        needed.extend(chosen.iter().flat_map(|case| [case.id, case.base, case.noop]));
        let bases: Vec<&str> = self
            .cases
            .iter()
            .filter(|case| needed.contains(&case.id))
            .map(|case| case.base)
            .collect();
        needed.extend(bases);
        self.cases.retain(|case| needed.contains(&case.id));
        for (number, proxy) in self.proxies.iter_mut().enumerate() {
            let cases = || self.cases.iter().filter(|case| case.proxy == number);
            proxy.listeners.retain(|(name, _)| cases().any(|case| case.listener == *name));
        }
        Some(self)
    }
}
