//! `vkey config envoy`: writes a plugin configuration as the file from which Envoy discovers the module's
//! filter (ECDS).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use vkey::config::{Config, NotReady, RingConfig};
use vkey::digest::sha256_hex;

use super::config_file::ConfigFile;
use super::error::Error;
use super::exit::Exit;
use super::input::{InputError, Place, variable_name};
use super::output::Output;
use super::private::OutArgs;
use super::strength;

/// The digits of digests in the file.
const DIGEST_DIGITS: usize = 12;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The plugin configuration, or the configuration of a proxy with it (FILE#NAME if there are several)
    #[arg(long, value_name = "FILE")]
    config: ConfigFile,
    /// The path of the module in the proxy
    #[arg(long, value_name = "FILE", default_value = "target/vkey.wasm")]
    module: String,
    /// The name of the filter, as the listener's config_discovery has it
    #[arg(long, value_name = "NAME", default_value = "vkey")]
    name: String,
    /// The VM's id, under which the counts are kept
    #[arg(long, value_name = "ID", default_value = "vkey")]
    vm_id: String,
    /// Write the value of this variable of the command's environment into the file, for a secret that the
    /// running Envoy does not have in its own; /config_dump shows it
    #[arg(long, value_name = "NAME", value_parser = variable_name)]
    literal: Vec<String>,
    #[command(flatten)]
    out: OutArgs,
}

/// The environment of the module.
struct VmEnvironment {
    /// Variables of Envoy.
    inherited: BTreeSet<String>,
    /// Variables with their values.
    literal: BTreeMap<String, Zeroizing<String>>,
}

/// Runs `vkey config envoy`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let (plugin, config) = args.config.gate()?;
    let literals = plugin.environment.map(|environment| environment.literal).unwrap_or_default();
    let environment = VmEnvironment::new(&config, literals, &args.literal)?;
    let configuration = String::from_utf8_lossy(&plugin.text);
    let filter = args.filter(&configuration, &environment);
    let version = digest(&filter.to_string());
    let extension = json!({
        "@type": message("envoy.config.core.v3.TypedExtensionConfig"),
        "name": args.name,
        "typed_config": filter,
    });
    let response = json!({"version_info": version, "resources": [extension]});
    args.out.write(Zeroizing::new(format!("{response:#}")).as_str(), out)?;
    Ok(Exit::Success)
}

// === impl Args ===

impl Args {
    /// The filter, as in envoy.yaml.
    fn filter(&self, configuration: &str, environment: &VmEnvironment) -> Value {
        json!({
            "@type": message("envoy.extensions.filters.http.wasm.v3.Wasm"),
            "config": {
                "name": "vkey",
                "failure_policy": "FAIL_RELOAD",
                "allow_on_headers_stop_iteration": true,
                "vm_config": {
                    "vm_id": self.vm_id,
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": self.module}},
                    "environment_variables": environment.message(),
                    // Envoy 1.36 keeps a VM, with its old environment, while this is the same.
                    "configuration": string(&environment.id()),
                },
                "configuration": string(configuration),
            },
        })
    }
}

// === impl VmEnvironment ===

impl VmEnvironment {
    /// The variables that a configuration names. Those in `literals`, and those named by an option, have
    /// their values in the file.
    fn new(
        config: &Config,
        mut literals: BTreeMap<String, Zeroizing<String>>,
        named: &[String],
    ) -> Result<Self, Error> {
        for name in named {
            let value = Place::Variable("--literal", name.clone()).read_line()?;
            literals.insert(name.clone(), value);
        }
        check_secrets(config, &literals)?;
        let variables = BTreeSet::from_iter(config.variables().map(str::to_owned));
        literals.retain(|name, _| variables.contains(name));
        let inherited = variables.into_iter().filter(|name| !literals.contains_key(name));
        Ok(Self { inherited: inherited.collect(), literal: literals })
    }

    fn message(&self) -> Value {
        let literal = self.literal.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let literal = BTreeMap::from_iter(literal);
        if literal.is_empty() {
            return json!({"host_env_keys": self.inherited});
        }
        json!({"host_env_keys": self.inherited, "key_values": literal})
    }

    /// A text that changes with the environment.
    fn id(&self) -> String {
        format!("environment {}", digest(&self.message().to_string()))
    }
}

/// Checks the secrets of rings that are in the file: with an unusable one the gate would refuse every request.
fn check_secrets(
    config: &Config,
    literals: &BTreeMap<String, Zeroizing<String>>,
) -> Result<(), Error> {
    let value = |name: &str| literals.get(name).map(|value| value.to_string());
    let is_literal = |ring: &&RingConfig| ring.variables().any(|name| literals.contains_key(name));
    for ring in config.rings().iter().filter(is_literal) {
        let (_, lacks) = ring.compile(value);
        let of_literal = |lack: &NotReady| literals.contains_key(lack.variable());
        if let Some(lack) = lacks.into_iter().find(of_literal) {
            return Err(InputError::NotReady(lack).into());
        }
        strength::check_rings([ring], value)?;
    }
    Ok(())
}

fn digest(text: &str) -> String {
    sha256_hex(text.as_bytes()).chars().take(DIGEST_DIGITS).collect()
}

fn string(value: &str) -> Value {
    json!({"@type": message("google.protobuf.StringValue"), "value": value})
}

fn message(kind: &str) -> String {
    format!("type.googleapis.com/{kind}")
}
