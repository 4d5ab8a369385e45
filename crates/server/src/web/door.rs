//! Who may see the trail: holders of keys of a tier with `usage_of_others`. And who may order from the ledger: holders of keys
//! with its audience.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::sync::oneshot;

use vkey::access::{Access, CanonicalPath, Mcp, Models};
use vkey::decision::DenyReason;
use vkey::engine::{Engine, Identity};

use crate::clock::now_secs;

/// Asks the thread that holds the rings.
#[derive(Clone)]
pub struct Door {
    to: Sender<Knock>,
}

/// What waits for an answer.
struct Knock {
    request: Asked,
    reply: oneshot::Sender<Result<Visitor, Refused>>,
}

/// What a key must be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To see the trail.
    Trail,
    /// To order from the ledger.
    Leases,
    /// To see accounts of the ledger: a key for either.
    Accounts,
}

/// A request for a part of the trail, or to the ledger.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// What the key must be for.
    pub(super) purpose: Purpose,
    /// The key.
    pub(super) credential: String,
    /// The HTTP method.
    pub(super) method: String,
    /// The path.
    pub(super) path: String,
    /// The address of the client.
    pub(super) source: IpAddr,
}

/// The holder of a key that may do this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Visitor {
    /// The id of the key.
    pub(super) key: String,
    /// The tenant.
    pub(super) tenant: String,
    /// The subject.
    pub(super) user: Option<String>,
    /// When the key expires, Unix seconds.
    pub(super) exp_secs: u64,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The key is not valid.
    Unauthenticated,
    /// The key is valid and may not do this.
    Forbidden(DenyReason),
    /// The server ends.
    Ending,
}

/// Answers requests with an engine, until all doors are gone.
pub struct Doorkeeper {
    engines: Engines,
    from: Receiver<Knock>,
}

/// The engines that know keys, each for one audience.
pub struct Engines {
    /// For keys that see the trail.
    pub trail: Engine,
    /// For keys that order from the ledger; `None` without a ledger.
    pub ledger: Option<Engine>,
}

/// A door, and who answers at it.
pub fn door(engines: Engines) -> (Door, Doorkeeper) {
    let (to, from) = channel();
    (Door { to }, Doorkeeper { engines, from })
}

// === impl Door ===

impl Door {
    /// Whether a request is allowed, and whose it is.
    pub(super) async fn ask(&self, request: Asked) -> Result<Visitor, Refused> {
        let (reply, answer) = oneshot::channel();
        self.to.send(Knock { request, reply }).map_err(|_| Refused::Ending)?;
        answer.await.unwrap_or(Err(Refused::Ending))
    }
}

// === impl Doorkeeper ===

impl Doorkeeper {
    /// Answers until all doors are gone.
    pub fn run(mut self) {
        while let Ok(Knock { request, reply }) = self.from.recv() {
            // Who asked may have left.
            let _ = reply.send(self.engines.decide(&request, now_secs()));
        }
    }
}

// === impl Engines ===

impl Engines {
    fn decide(&mut self, request: &Asked, now_secs: u64) -> Result<Visitor, Refused> {
        let Self { trail, ledger } = self;
        let mut leases = || match ledger {
            Some(engine) => decide(engine, request, now_secs, false),
            None => Err(Refused::Unauthenticated),
        };
        match request.purpose {
            Purpose::Trail => decide(trail, request, now_secs, true),
            Purpose::Leases => leases(),
            Purpose::Accounts => match leases() {
                Err(Refused::Unauthenticated) => decide(trail, request, now_secs, true),
                decided => decided,
            },
        }
    }
}

/// Decides as a gate does on a request for counts: what a tier, a tenant or the claims say about paths is about upstreams,
/// and a caveat is about this request too.
fn decide(
    engine: &mut Engine,
    request: &Asked,
    now_secs: u64,
    is_of_others: bool,
) -> Result<Visitor, Refused> {
    let identity = engine.identify(request.credential.as_bytes(), now_secs);
    let Identity::Known { key, validity: Ok(()) } = identity else {
        return Err(Refused::Unauthenticated);
    };
    let path = CanonicalPath::parse(request.path.as_bytes());
    let path = path.map_err(|_| Refused::Forbidden(DenyReason::PathAmbiguous))?;
    let access = Access {
        now_secs,
        method: &request.method,
        host: None,
        path,
        source: Some(request.source),
        client_cert: None,
        models: Models::None,
        mcp: Mcp::None,
    };
    engine
        .usage_verdicts(&key, &access)
        .try_for_each(|(_, verdict)| verdict)
        .map_err(Refused::Forbidden)?;
    if is_of_others && !key.sees_others() {
        return Err(Refused::Forbidden(DenyReason::Path));
    }
    Ok(Visitor {
        key: key.jti().to_owned(),
        tenant: key.tenant().to_owned(),
        user: key.sub().map(str::to_owned),
        exp_secs: key.exp_secs(),
    })
}
