//! `vkey config envoy`: writes a plugin configuration as the file from which Envoy discovers the module's
//! filter (ECDS).

mod earlier;

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
use super::plugins::Vm;
use super::private::OutArgs;
use super::strength;
use earlier::Earlier;

/// The path of the module if nothing else names one.
const MODULE: &str = "target/vkey.wasm";

/// The name of the filter, and the id of its VM, if nothing else names them.
const NAME: &str = "vkey";

/// The digits of digests in the file.
const DIGEST_DIGITS: usize = 12;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The plugin configuration, or the configuration of a proxy with it (FILE#NAME if there are several)
    #[arg(long, value_name = "FILE")]
    config: ConfigFile,
    /// The path of the module in the proxy. By default that of the file that --force replaces, else that of
    /// --config, else target/vkey.wasm
    #[arg(long, value_name = "FILE")]
    module: Option<String>,
    /// The name of the filter, as the listener's config_discovery has it. By default as for --module, else vkey
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The VM's id, under which the counts are kept. By default as for --module, else vkey
    #[arg(long, value_name = "ID")]
    vm_id: Option<String>,
    /// Write the value of this variable of the command's environment into the file, for a secret that the
    /// running Envoy does not have in its own; /config_dump shows it. A later file keeps the value
    #[arg(long, value_name = "NAME", value_parser = variable_name)]
    literal: Vec<String>,
    /// Take this variable from Envoy's environment, although the file that is replaced, or that of --config, has
    /// its value
    #[arg(long, value_name = "NAME", value_parser = variable_name)]
    inherit: Vec<String>,
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
    let earlier = Earlier::read(&plugin, &args.out, out);
    let environment = VmEnvironment::new(&config, args.literals(&earlier)?)?;
    let vm = args.vm(&earlier, out);
    args.note_variables(&environment, &earlier, out);
    let configuration = String::from_utf8_lossy(&plugin.text);
    let filter = filter(&configuration, &vm, &environment);
    let version = digest(&filter.to_string());
    let name = args.name.clone().or_else(|| earlier.vm(|vm| vm.filter.as_ref()));
    let extension = json!({
        "@type": message("envoy.config.core.v3.TypedExtensionConfig"),
        "name": name.as_deref().unwrap_or(NAME),
        "typed_config": filter,
    });
    let response = json!({"version_info": version, "resources": [extension]});
    args.out.write(Zeroizing::new(format!("{response:#}")).as_str(), out)?;
    Ok(Exit::Success)
}

/// The filter, as in envoy.yaml.
fn filter(configuration: &str, vm: &Vm, environment: &VmEnvironment) -> Value {
    json!({
        "@type": message("envoy.extensions.filters.http.wasm.v3.Wasm"),
        "config": {
            "name": "vkey",
            "failure_policy": "FAIL_RELOAD",
            "allow_on_headers_stop_iteration": true,
            "vm_config": {
                "vm_id": vm.id,
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": vm.module}},
                "environment_variables": environment.message(),
                // Envoy 1.36 keeps a VM, with its old environment, while this is the same.
                "configuration": string(&environment.id()),
            },
            "configuration": string(configuration),
        },
    })
}

// === impl Args ===

impl Args {
    /// The VM. A note says if nothing names the module.
    fn vm(&self, earlier: &Earlier<'_>, out: &mut Output) -> Vm {
        let module = self.module.clone().or_else(|| earlier.vm(|vm| vm.module.as_ref()));
        if module.is_none() {
            out.note(format_args!(
                "the path of the module is {MODULE}, relative to the directory in which Envoy was \
                 started; --module names another"
            ));
        }
        let id = self.vm_id.clone().or_else(|| earlier.vm(|vm| vm.id.as_ref()));
        Vm {
            module: module.or_else(|| Some(MODULE.to_owned())),
            id: id.or_else(|| Some(NAME.to_owned())),
            filter: None,
        }
    }

    /// The values of variables that the file is to contain, if its configuration names them.
    fn literals(
        &self,
        earlier: &Earlier<'_>,
    ) -> Result<BTreeMap<String, Zeroizing<String>>, Error> {
        let mut literals = earlier.literals();
        literals.retain(|name, _| !self.inherit.contains(name));
        for name in &self.literal {
            let value = Place::Variable("--literal", name.clone()).read_line()?;
            literals.insert(name.clone(), value);
        }
        Ok(literals)
    }

    /// Notes which values are kept, and which variables Envoy must have from now on.
    fn note_variables(&self, environment: &VmEnvironment, earlier: &Earlier<'_>, out: &mut Output) {
        let is_kept = |name: &&String| earlier.is_kept(name) && !self.literal.contains(name);
        for name in environment.literal.keys().filter(is_kept) {
            out.note(format_args!(
                "the value of {name} is kept from the file that is replaced; with --inherit {name} \
                 Envoy takes it from its environment"
            ));
        }
        let is_new = |name: &&String| !earlier.inherits(name);
        let new = Vec::from_iter(environment.inherited.iter().filter(is_new).map(String::as_str));
        if !new.is_empty() {
            out.note(format_args!("Envoy must have {} in its environment", new.join(" and ")));
        }
    }
}

// === impl VmEnvironment ===

impl VmEnvironment {
    /// The variables that a configuration names. Those in `literals` have their values in the file.
    fn new(
        config: &Config,
        mut literals: BTreeMap<String, Zeroizing<String>>,
    ) -> Result<Self, Error> {
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
