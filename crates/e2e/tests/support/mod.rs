//! What the end-to-end tests stand on: the shipped `envoy.yaml` on a real Envoy, and a client
//! that sends any bytes.
//!
//! ```ignore
//! let envoy = Envoy::start(Options::new("good_key").env("VKEY_MAIN_SECRET", secret));
//! let answer = envoy.send(&Request::new("GET", "/v1/models").bearer(&key));
//! assert_eq!(answer.status, 200);
//! let lines = envoy.wait_for_access_log(1);
//! ```
#![allow(
    dead_code,
    unused_imports,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "each test crate uses a part of this, and in a test a panic is the report"
)]
#![allow(clippy::disallowed_methods, reason = "a deadline on a real process needs a real clock")]

pub(crate) mod config;
mod envoy;
mod http;
pub(crate) mod origin;
pub(crate) mod page;
pub(crate) mod peers;
mod provider;
mod temp;
pub(crate) mod tls;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) use envoy::{Envoy, Options, Refused};
pub(crate) use http::{Connection, Request, Response};
pub(crate) use provider::{Latch, Provider, Replay};
pub(crate) use temp::TempDir;

/// Two busy cores start an Envoy with V8 in a few seconds; a minute without it is a failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).expect("crates/e2e is in a checkout")
}

/// A file that `make test` builds or installs and names by an environment variable.
pub(crate) fn artefact(variable: &str) -> PathBuf {
    let Some(path) = std::env::var_os(variable).map(PathBuf::from) else {
        panic!("{variable} is not set: run `make test`");
    };
    assert!(path.is_file(), "{variable} names no file: {}", path.display());
    path
}

/// The command.
pub(crate) fn vkey() -> PathBuf {
    artefact("VKEY_TEST_COMMAND")
}

/// Every Envoy that tests of more than one version run on: `VKEY_TEST_ENVOYS` names them, with
/// colons in between; where it is not set, `VKEY_TEST_ENVOY` names the only one.
pub(crate) fn envoys() -> Vec<PathBuf> {
    let Some(list) = std::env::var_os("VKEY_TEST_ENVOYS") else {
        return vec![artefact("VKEY_TEST_ENVOY")];
    };
    let binaries: Vec<PathBuf> = std::env::split_paths(&list).collect();
    for path in &binaries {
        assert!(path.is_file(), "VKEY_TEST_ENVOYS names no file: {}", path.display());
    }
    binaries
}

/// Runs a test on every Envoy; what it prints tells which of them failed.
pub(crate) fn each_envoy(test: impl Fn(&Path)) {
    for binary in envoys() {
        println!("on {}", binary.display());
        test(&binary);
    }
}

/// Polls until `probe` gives a value; panics with what `explain` says when the deadline passes.
pub(crate) fn wait_for<T>(probe: impl FnMut() -> Option<T>, explain: impl FnOnce() -> String) -> T {
    wait_within(DEADLINE, probe, explain)
}

/// The same for something that may take another time than `DEADLINE`.
pub(crate) fn wait_within<T>(
    most: Duration,
    mut probe: impl FnMut() -> Option<T>,
    explain: impl FnOnce() -> String,
) -> T {
    let deadline = Instant::now() + most;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "gave up after {most:?}: {}", explain());
        std::thread::sleep(Duration::from_millis(5));
    }
}
