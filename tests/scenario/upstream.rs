//! What a host shows of the cluster and of the connection to its upstream.

use vkey::host::Property;
use vkey::json::{Invalid, Json, Node};
use vkey::upstream_tls::{Stamp, Verdict};

use super::format::owned;

/// The members of a step's `upstream_tls`, each absent where the host does not show it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upstream {
    pub(crate) cluster: Option<String>,
    stamp: Option<StampSpec>,
    gate: Option<String>,
    up: bool,
    tls_version: Option<String>,
    digest: Option<String>,
    first_name: Option<String>,
    local_certificate: Option<String>,
    code_details: Option<String>,
    /// Of the request as it was sent in the end.
    pub(crate) authority: Option<String>,
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
            "cluster", "stamp", "gate", "up", "tls_version", "certificate", "local_certificate",
            "code_details", "authority",
        ])?;
        let text = |name| members.read(name, owned);
        let tls_version = text("tls_version")?;
        let certificate = members.read("certificate", certificate)?;
        let (digest, first_name) = certificate.unwrap_or_default();
        Ok(Self {
            cluster: text("cluster")?,
            stamp: members.read("stamp", StampSpec::read)?,
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

    /// Whether the gate of the cluster has judged.
    pub(crate) fn is_judged(&self) -> bool {
        self.gate.as_deref().and_then(Verdict::from_word).is_some()
    }

    /// What is shown from the request on.
    pub(crate) fn of_cluster(&self) -> Shown {
        let stamp = self.stamp.as_ref().map(|stamp| (Property::ClusterMetadata, stamp.metadata()));
        let name = self.cluster.clone().map(|name| (Property::ClusterName, name.into_bytes()));
        stamp.into_iter().chain(name).collect()
    }

    /// Whether the request reached an upstream, as far as the step does not say that the proxy answered.
    pub(crate) fn is_reached(&self) -> bool {
        self.up || self.code_details.as_deref().is_none_or(|details| details == "via_upstream")
    }

    /// What is shown from the answer on.
    pub(crate) fn of_connection(&self) -> Shown {
        let address = self.up.then(|| "192.0.2.1:40001".to_owned());
        // The gate says which connection it was.
        let of = address.clone().unwrap_or_default();
        let gate = self.gate.as_ref().map(|word| format!("{word} {of}"));
        let shown = [
            (Property::UpstreamVerdict, &gate),
            (Property::UpstreamLocalAddress, &address),
            (Property::UpstreamTlsVersion, &self.tls_version),
            (Property::UpstreamCertificateDigest, &self.digest),
            (Property::UpstreamDnsName, &self.first_name),
            (Property::UpstreamLocalSubject, &self.local_certificate),
            (Property::ResponseCodeDetails, &self.code_details),
        ];
        let known =
            shown.into_iter().filter_map(|(property, text)| Some((property, text.clone()?)));
        known.map(|(property, text)| (property, text.into_bytes())).collect()
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

/// The member as it is where a scenario says nothing of it.
pub(super) fn nothing() -> Json {
    Json::Object(Vec::new())
}
