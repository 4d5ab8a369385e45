//! What the numbers were measured on.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The machine, and the programs that were measured.
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    envoy: String,
    pub(crate) module_bytes: u32,
    pub(crate) floor_bytes: u32,
    pub(crate) noop_bytes: u32,
}

impl Machine {
    /// The modules are the gate, that of unavoidable calls and that which does nothing.
    pub(crate) fn look(envoy: &Path, modules: [PathBuf; 3]) -> Self {
        let [module_bytes, floor_bytes, noop_bytes] = modules.map(|module| bytes(&module));
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let version = Command::new(envoy).arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        Self {
            cpu: field(&text("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            envoy: envoy_version(&version.unwrap_or_default()),
            module_bytes,
            floor_bytes,
            noop_bytes,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel, envoy, module_bytes, floor_bytes, noop_bytes } = self;
        write!(f, "Envoy {envoy} on {cores} cores of {cpu}, Linux {kernel}; ")?;
        write!(f, "vkey.wasm {module_bytes} bytes, floor {floor_bytes} bytes, ")?;
        write!(f, "no-op module {noop_bytes} bytes")
    }
}

/// The first `name : value` of `/proc/cpuinfo`.
pub(crate) fn field(text: &str, name: &str) -> String {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let value = fields.find(|(have, _)| have.trim() == name).map(|(_, value)| value.trim());
    value.unwrap_or("an unknown processor").to_owned()
}

/// The number in `<path>  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`.
pub(crate) fn envoy_version(text: &str) -> String {
    let version = text.split_once(" version: ").and_then(|(_, parts)| parts.split('/').nth(1));
    version.unwrap_or("of unknown version").to_owned()
}

fn bytes(path: &Path) -> u32 {
    let bytes = fs::metadata(path).map_or(0, |data| data.len());
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
