//! What a host shows of the cluster and of the connection to the upstream.

use vkey::host::{FilterState, Property};
use vkey::json::{Invalid, Json, Node};
use vkey::upstream_tls::{Stamp, Verdict};

/// The local address of the connection.
const LOCAL_ADDRESS: &str = "192.0.2.1:40001";

use super::format::owned;

/// The members of `upstream_tls` in a step. A fact that the host does not show is absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upstream {
    pub(crate) cluster: Option<String>,
    stamp: Option<StampSpec>,
    /// The final cluster of the request, if the route was changed.
    pub(crate) taken: Option<Taken>,
    gate: Option<String>,
    up: bool,
    tls_version: Option<String>,
    digest: Option<String>,
    first_name: Option<String>,
    local_certificate: Option<String>,
    code_details: Option<String>,
    /// The authority of the request as it was sent.
    pub(crate) authority: Option<String>,
}

/// The cluster of a changed route.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) cluster: String,
    stamp: Option<StampSpec>,
}

#[derive(Clone, Debug)]
struct StampSpec {
    policy: String,
    hosts: Option<Box<[String]>>,
}

/// Properties and their bytes.
pub(crate) type Shown = Vec<(Property, Vec<u8>)>;

impl Upstream {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&[
            "cluster", "stamp", "taken", "gate", "up", "tls_version", "certificate",
            "local_certificate", "code_details", "authority",
        ])?;
        let text = |name| members.read(name, owned);
        let tls_version = text("tls_version")?;
        let certificate = members.read("certificate", certificate)?;
        let (digest, first_name) = certificate.unwrap_or_default();
        Ok(Self {
            cluster: text("cluster")?,
            stamp: members.read("stamp", StampSpec::read)?,
            taken: members.read("taken", Taken::read)?,
            gate: text("gate")?,
            up: members.read("up", Node::bool)?.unwrap_or(tls_version.is_some()),
            tls_version,
            digest,
            first_name,
            local_certificate: text("local_certificate")?,
            code_details: text("code_details")?,
            authority: text("authority")?,
        })
    }

    /// Whether the upstream gate has checked the connection or refused the request.
    pub(crate) fn is_judged(&self) -> bool {
        let state = self.gate_state().unwrap_or_default();
        let (word, rest) = state.split_once(' ').unwrap_or_default();
        match Verdict::from_word(word) {
            Some(Verdict::Refused(_)) => true,
            Some(_) => rest == self.local_address().unwrap_or_default(),
            None => false,
        }
    }

    /// The final cluster of the request.
    pub(crate) fn taken_cluster(&self) -> Option<&str> {
        let taken = self.taken.as_ref().map(|taken| &taken.cluster);
        taken.or(self.cluster.as_ref()).map(String::as_str)
    }

    /// The properties that are available from the request on.
    pub(crate) fn of_cluster(&self) -> Shown {
        let stamp = self.stamp.as_ref().map(|stamp| (Property::ClusterMetadata, stamp.metadata()));
        let name = self.cluster.clone().map(|name| (Property::ClusterName, name.into_bytes()));
        stamp.into_iter().chain(name).collect()
    }

    /// The filter state that the upstream gate sets: the connection that it allowed, or whether anything
    /// was sent before it refused.
    fn gate_state(&self) -> Option<String> {
        let gate = self.gate.as_ref()?;
        if gate.contains(' ') {
            return Some(gate.clone());
        }
        let rest = match Verdict::from_word(gate) {
            Some(Verdict::Refused(_)) => "unsent",
            _ => self.local_address().unwrap_or_default(),
        };
        Some(format!("{gate} {rest}"))
    }

    fn local_address(&self) -> Option<&'static str> {
        self.up.then_some(LOCAL_ADDRESS)
    }

    /// Whether the request reached an upstream, unless the step says that the proxy sent the response.
    pub(crate) fn is_reached(&self) -> bool {
        self.up || self.code_details.as_deref().is_none_or(|details| details == "via_upstream")
    }

    /// The properties that are available from the response on.
    pub(crate) fn of_connection(&self) -> Shown {
        let text = |text: &Option<String>| text.clone();
        let shown = [
            (Property::FilterState(FilterState::Upstream), self.gate_state()),
            (Property::UpstreamLocalAddress, self.local_address().map(str::to_owned)),
            (Property::UpstreamTlsVersion, text(&self.tls_version)),
            (Property::UpstreamCertificateDigest, text(&self.digest)),
            (Property::UpstreamDnsName, text(&self.first_name)),
            (Property::UpstreamLocalSubject, text(&self.local_certificate)),
            (Property::ResponseCodeDetails, text(&self.code_details)),
        ];
        let known = shown.into_iter().filter_map(|(property, text)| Some((property, text?)));
        let known = known.map(|(property, text)| (property, text.into_bytes()));
        known.chain(self.taken.iter().flat_map(Taken::shown)).collect()
    }
}

impl Taken {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["cluster", "stamp"])?;
        Ok(Self {
            cluster: owned(&members.require("cluster")?)?,
            stamp: members.read("stamp", StampSpec::read)?,
        })
    }

    /// Its name and metadata, which replace those of the first cluster.
    fn shown(&self) -> Shown {
        let metadata = self.stamp.as_ref().map(StampSpec::metadata).unwrap_or_default();
        let name = self.cluster.clone().into_bytes();
        vec![(Property::ClusterName, name), (Property::ClusterMetadata, metadata)]
    }
}

fn certificate(node: &Node<'_>) -> Result<(Option<String>, Option<String>), Invalid> {
    let members = node.members(&["digest", "first_name"])?;
    Ok((members.read("digest", owned)?, members.read("first_name", owned)?))
}

// === the stamp ===

impl StampSpec {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["policy", "hosts"])?;
        Ok(Self {
            policy: owned(&members.require("policy")?)?,
            hosts: members.read("hosts", |node| node.list(owned))?,
        })
    }

    /// `Metadata.filter_metadata = 1`, `Struct.fields = 1`, `Value.string_value = 3`,
    /// `Value.list_value = 6`, `ListValue.values = 1`.
    fn metadata(&self) -> Vec<u8> {
        let text = |text: &String| field(3, text.as_bytes());
        let mut own = entry(Stamp::POLICY, &text(&self.policy));
        if let Some(hosts) = &self.hosts {
            let hosts: Vec<u8> = hosts.iter().flat_map(|host| field(1, &text(host))).collect();
            own.extend(entry(Stamp::HOSTS, &field(6, &hosts)));
        }
        entry(Stamp::NAMESPACE, &own)
    }
}

/// An entry of a map that is field 1 of its message.
fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    field(1, &[field(1, key.as_bytes()), field(2, value)].concat())
}

/// A length-delimited field (protobuf encoding, wire type 2).
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len >= 0x80 {
        field.push(u8::try_from(len & 0x7f).expect("seven bits") | 0x80);
        len >>= 7;
    }
    field.push(u8::try_from(len).expect("seven bits"));
    field.extend(bytes);
    field
}

/// The default of the member.
pub(super) fn nothing() -> Json {
    Json::Object(Vec::new())
}
