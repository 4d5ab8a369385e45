//! The shipped `nginx.conf`, moved out of the way of other tests: free ports, files of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::support::root;

/// What the client and the service of the shipped file use.
const GATE: &str = "127.0.0.1:10000";
const GATE_TLS: &str = "127.0.0.1:10443";
const SERVICE: &str = "127.0.0.1:10001";

/// The directive that runs the module, and the line that it stands on.
const DIRECTIVE: (&str, &str) = ("proxy_wasm vkey '", "';\n");

/// The text of the configuration, and changes of it.
#[derive(Clone)]
pub(crate) struct Config(String);

/// Where a moved configuration listens, and what it forwards to.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) gate: SocketAddr,
    pub(crate) gate_tls: SocketAddr,
    pub(crate) service: SocketAddr,
}

impl Config {
    /// The shipped file as it is.
    pub(crate) fn shipped() -> Self {
        let path = root().join("examples/nginx/nginx.conf");
        Self(fs::read_to_string(path).expect("nginx.conf"))
    }

    /// The shipped file for an nginx without WasmX: `instead` stands where the module ran.
    pub(crate) fn plain(instead: &str) -> Self {
        let config = Self::shipped();
        let Self(text) = config.module(instead);
        let (before, block) = text.split_once("\nwasm {\n").expect("a wasm block");
        let (_, after) = block.split_once("\n}\n").expect("the end of the block");
        Self(format!("{before}\n{after}"))
    }

    /// With `instead` where the module ran.
    pub(crate) fn module(self, instead: &str) -> Self {
        let (before, after) = self.around_directive();
        Self(format!("{before}{instead}\n{after}"))
    }

    /// The configuration of the module.
    pub(crate) fn plugin(&self) -> &str {
        let (before, after) = self.around_directive();
        &self.0[before.len() + DIRECTIVE.0.len()..self.0.len() - after.len() - DIRECTIVE.1.len()]
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// With another configuration of the module.
    pub(crate) fn with_plugin(self, plugin: &str) -> Self {
        assert!(!plugin.contains('\''), "no quote can stand in {plugin}");
        self.module(&format!("{}{plugin}';", DIRECTIVE.0))
    }

    /// With `new` for `old`, which stands `times` times.
    pub(crate) fn replace(self, old: &str, new: &str, times: usize) -> Self {
        assert_eq!(self.0.matches(old).count(), times, "{old} in {}", self.0);
        Self(self.0.replace(old, new))
    }

    /// With a variant enabled.
    pub(crate) fn variant(self, name: &str) -> Self {
        let marker = format!("\n#{name} ");
        assert!(self.0.contains(&marker), "nginx.conf has no variant {name}");
        Self(self.0.replace(&marker, "\n"))
    }

    /// Without the lines that refuse targets, to see what they keep away.
    pub(crate) fn without_guards(self) -> Self {
        let kept = self.0.lines().filter(|line| !line.trim_start().starts_with("if ("));
        let kept: Vec<&str> = kept.collect();
        assert_eq!(self.0.lines().count() - kept.len(), 2, "guards in {}", self.0);
        Self(kept.join("\n") + "\n")
    }

    /// The names of the headers that go on.
    pub(crate) fn pass_list(&self) -> Vec<String> {
        let lines = self.0.lines().filter_map(|line| line.trim().strip_prefix("proxy_set_header "));
        let names = lines.map(|line| line.split_whitespace().next().expect("a name").to_owned());
        names.collect()
    }

    /// The text for those ports, with every file in `folder`.
    pub(crate) fn moved(&self, ports: &Ports, folder: &Path) -> String {
        let folder = folder.to_str().expect("a path in UTF-8");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("    {kind}_temp_path {folder}/{kind};\n"));
        self.0
            .replace(GATE_TLS, &ports.gate_tls.to_string())
            .replace(GATE, &ports.gate.to_string())
            .replace(SERVICE, &ports.service.to_string())
            .replace("/var/log/nginx", folder)
            .replace("/etc/nginx/tls", folder)
            .replace("worker_processes auto;", "worker_processes 2;")
            .replace("\nhttp {\n", &format!("\nhttp {{\n{}", temporary.concat()))
    }

    fn around_directive(&self) -> (&str, &str) {
        let (before, rest) = self.0.split_once(DIRECTIVE.0).expect("the module's directive");
        assert!(!rest.contains(DIRECTIVE.0), "one directive of the module");
        let (_, after) = rest.split_once(DIRECTIVE.1).expect("the end of the directive");
        (before, after)
    }
}
