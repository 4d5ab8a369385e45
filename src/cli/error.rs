//! What can go wrong in the command.

use std::time::Duration;
use std::{error, fmt, io};

use crate::config::NotReady;
use crate::decision::DenyReason;
use crate::json::Invalid;
use crate::key::keyring::InvalidSecret;
use crate::key::token::{CannotAttenuate, MAX_TOKEN_BYTES};
use crate::limits::ledger::MAX_FAMILY_LIMITS;
use crate::vm::{StartError, Unusable};

use super::client::{ADMIN, Failure};
use super::exit::Exit;
use super::private::CannotCreate;
use super::strength::MIN_BITS;
use super::text::sentence;
use super::tls::Unreadable;

/// Why the command cannot do what it is told. The texts name options and members, and quote nothing
/// that was typed or read: it may be a secret in the wrong place.
#[derive(Debug)]
pub(super) enum Error {
    /// The admin interface of an Envoy has no answer for us.
    Admin(Failure),
    /// What it answers would cross a network unencrypted.
    AdminCleartext,
    /// The audit lines cannot be written.
    Audit(io::Error),
    /// They would go to a file by a link.
    AuditLink,
    /// They go to standard error, which cannot be written.
    AuditStderr(io::Error),
    /// Nobody has read the stream that they go to for so long.
    AuditUnread(Duration),
    /// A bound of the key format stops an attenuation.
    Attenuate(CannotAttenuate),
    /// Authorities for a connection that has no certificate.
    CaForHttp,
    /// The claims that were asked for are none.
    Claims(Invalid),
    /// The key would cross a network unencrypted.
    Cleartext,
    /// The machine's clock is before 1970.
    Clock,
    /// The configuration is of the wrong form.
    Config(Invalid),
    /// A file that is named like this cannot be created.
    Create(&'static str, CannotCreate),
    /// A configuration of Envoy, or an answer of its admin interface, cannot be read.
    Document(Given, Unreadable),
    /// The system has no randomness.
    Entropy,
    /// A running gate has no usage answer for us.
    Gate(Failure),
    /// The key to mint is longer than any gate reads.
    KeyTooLong,
    /// An input cannot be used.
    Input(Origin, InputProblem),
    /// An option's JSON is refused.
    Json {
        /// The option.
        option: &'static str,
        /// Which one, from 1, where it may be repeated.
        number: Option<usize>,
        /// What is wrong.
        invalid: Invalid,
    },
    /// What was read is no key.
    Malformed,
    /// The key would never be valid, or for longer than there are dates.
    Lifetime,
    /// The module that is built in cannot be run.
    Module(Unusable),
    /// A configuration of Envoy has no cluster.
    NoClusters(Given),
    /// What was read is no configuration of Envoy.
    NoEnvoyConfiguration(Given),
    /// The configuration is that of a cluster's gate.
    NoGate,
    /// No ring to mint with.
    NoRing(Vec<String>),
    /// What was answered are no metrics of Envoy.
    NoStats,
    /// The configuration cannot be put in force in an environment it was checked against.
    NotInForce(NotReady),
    /// The environment lacks what the configuration names.
    NotReady(NotReady),
    /// The ring does not sign for the tenant.
    NotSigned {
        /// The first ring that could be meant.
        ring: String,
    },
    /// Standard output cannot be written.
    Output(io::Error),
    /// An upstream-TLS policy is refused, at a line of a file.
    Policy {
        /// What it is called.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        invalid: Invalid,
    },
    /// A ring's secret is unusable.
    Secret(InvalidSecret),
    /// The minted key does not verify.
    SelfCheck(DenyReason),
    /// There is something else where the directory of --setup should be.
    SetupNoFolder,
    /// What --setup prints cannot stand in JSON.
    SetupNotText,
    /// One secret is given for rings with several.
    SeveralSecrets,
    /// What was answered as metrics cannot be read.
    Stats(Unreadable),
    /// Two inputs want standard input.
    StdinTwice,
    /// An input wants standard input, where the messages come from.
    StdinTaken,
    /// The server does not read what is written to it.
    ServerStuck(Duration),
    /// The server's command does not start.
    Spawn(io::Error),
    /// The system denies a thread, a stream or a signal.
    System(io::Error),
    /// The caveats of the key set more limits than any gate counts.
    TooManyLimits,
    /// What the list of upstreams says cannot be rendered.
    Unrenderable {
        /// The member.
        member: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The list of upstreams is of the wrong form.
    Upstreams(Invalid),
    /// The list of upstreams is no YAML.
    UpstreamsText {
        /// What it is.
        what: &'static str,
        /// The line, from 1.
        line: Option<u64>,
    },
    /// The module does not start.
    Worker(StartError),
}

/// Where a configuration of Envoy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// An admin interface has answered with it.
    Answer,
    /// It was read from a file or standard input.
    Input,
}

/// Where an input comes from, by the option that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An environment variable that the configuration names.
    Configured(String),
    /// A file.
    File(&'static str),
    /// Standard input.
    Stdin,
    /// An environment variable.
    Variable(&'static str),
}

/// Why an input cannot be used.
#[derive(Debug)]
pub(super) enum InputProblem {
    /// There is nothing in it.
    Empty,
    /// It is a secret that can be guessed, with so many bits by the estimate.
    Guessable(u32),
    /// The system does not hand it out.
    Io(io::Error),
    /// There is no such file, and it looks like an address.
    NoFile(io::Error),
    /// It holds no certificate.
    NoCertificate,
    /// It is not text.
    NotUtf8,
    /// It is longer than so many bytes.
    TooLong(u64),
    /// The variable is not set.
    Unset,
}

impl Error {
    /// The error that a member of the list of upstreams keeps it from being rendered.
    pub(super) fn unrenderable(member: &str, reason: &str) -> Self {
        Self::Unrenderable { member: member.to_owned(), reason: reason.to_owned() }
    }

    /// What the command exits with.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::AdminCleartext
            | Self::CaForHttp
            | Self::Cleartext
            | Self::StdinTaken
            | Self::StdinTwice => Exit::Usage,
            Self::Admin(failure) | Self::Gate(failure) => failure.exit(),
            Self::Audit(_)
            | Self::AuditLink
            | Self::AuditStderr(_)
            | Self::AuditUnread(_)
            | Self::Clock
            | Self::Create(..)
            | Self::Entropy
            | Self::Module(_)
            | Self::NotReady(_)
            | Self::Output(_)
            | Self::ServerStuck(_)
            | Self::SetupNoFolder
            | Self::Spawn(_)
            | Self::System(_)
            | Self::Input(_, InputProblem::Io(_) | InputProblem::NoFile(_) | InputProblem::Unset) => {
                Exit::Environment
            }
            _ => Exit::Refused,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin(failure) => failure.write(f, &ADMIN),
            Self::AdminCleartext => f.write_str(
                "over http everybody on the way can read and change what is answered; use https, a \
                 tunnel to this machine, or --allow-http if nobody is on the way",
            ),
            Self::Attenuate(cannot) => write!(
                f,
                "the key cannot be narrowed: {cannot}; say less, or mint a key with it in --only"
            ),
            Self::Audit(error) => {
                write!(f, "the file named by --audit cannot be written: {error}; check the path")
            }
            Self::AuditLink => f.write_str(
                "the file named by --audit is a link, or has a second name, and could be any file; name \
                 the file itself",
            ),
            Self::AuditStderr(error) => write!(
                f,
                "standard error, where the audit lines go, cannot be written: {error}; name a file with --audit"
            ),
            Self::AuditUnread(waited) => write!(
                f,
                "nobody has read the audit lines for {waited:?}; read standard error, or the pipe named by \
                 --audit, or name a file there"
            ),
            Self::CaForHttp => f.write_str("--ca is for an https URL; leave it out, or use https"),
            Self::Claims(invalid) => {
                write!(f, "no key can say this: {invalid}; change the option of that name")
            }
            Self::Cleartext => f.write_str(
                "over http everybody on the way can read the key; use https, or --allow-http if \
                 nobody is on the way",
            ),
            Self::Clock => f.write_str("the clock shows a time before 1970; set it, or use --now"),
            Self::Config(invalid) => write!(f, "the configuration is refused: {invalid}"),
            Self::Create(what, problem) => write!(f, "{what} {problem}"),
            Self::Document(given, unreadable) => {
                let check = given.check();
                write!(f, "{given} is no configuration of Envoy: {unreadable}; {check}")
            }
            Self::Entropy => f.write_str("the system has no randomness; try again later"),
            Self::Gate(failure) => failure.fmt(f),
            Self::Input(origin, problem) => write_input(f, origin, problem),
            Self::Json { option, number: None, invalid } => write!(f, "{option}: {invalid}"),
            Self::Json { option, number: Some(number), invalid } => {
                write!(f, "{option} {number}: {invalid}")
            }
            Self::KeyTooLong => write!(
                f,
                "the key would be longer than {MAX_TOKEN_BYTES} bytes; shorten --only, --caveat or \
                 --meta"
            ),
            Self::Malformed => f.write_str(
                "the input is no key; expected vk1.<kid>.<claims>.<tag> on one line, as `vkey mint` \
                 prints it",
            ),
            Self::Lifetime => f.write_str(
                "no key can live like this; let --lifetime end after --not-before and before the \
                 year 10000",
            ),
            Self::NoClusters(given) => write!(
                f,
                "{given} has no cluster, so nothing can be said of it: expected clusters in \
                 static_resources.clusters, resources, configs, or a list; {}",
                given.check()
            ),
            Self::NoEnvoyConfiguration(given) => write!(
                f,
                "{given} is no configuration of Envoy: expected static_resources, resources, \
                 configs, or clusters; {}",
                given.check()
            ),
            Self::Module(unusable) => write!(
                f,
                "the module cannot be run: {unusable}; `make build` makes a command that has it built in"
            ),
            Self::NoGate => f.write_str(
                "the configuration is that of a cluster's gate, which only a proxy has; give that of \
                 the gate in front of the routes",
            ),
            Self::NoStats => f.write_str(
                "the answer has no metrics of Envoy; check the URL, which is that of its admin \
                 interface",
            ),
            Self::Stats(unreadable) => {
                write!(f, "the answer has no metrics of Envoy: {unreadable}; check the URL")
            }
            Self::NoRing(active) => write_no_ring(f, active),
            Self::NotInForce(not_ready) | Self::NotReady(not_ready) => {
                write!(f, "{not_ready}; this command takes it from its own environment")
            }
            Self::NotSigned { ring } => write!(
                f,
                "ring {ring} does not sign for this tenant: every gate would refuse the key; choose \
                 another --ring, or add the tenant to the ring's tenants in the configuration"
            ),
            Self::Output(error) => write!(f, "standard output cannot be written: {error}; make room there"),
            Self::Policy { file, line, invalid } => {
                write!(f, "the upstream-TLS policy is refused: {file}:{line}: {invalid}")
            }
            Self::Secret(invalid) => invalid.fmt(f),
            Self::SelfCheck(reason) => write!(
                f,
                "the minted key does not verify ({reason}) and is not printed; report this"
            ),
            Self::SetupNoFolder => f.write_str(
                "what is named by --setup is no directory; name one, or one that can be made",
            ),
            Self::SetupNotText => f.write_str(
                "the directory of --setup and the server's command must be UTF-8 text, to stand in JSON; \
                 choose other names",
            ),
            Self::SeveralSecrets => f.write_str(
                "--secret-file holds one secret, and the rings of the configuration name several \
                 variables; set those instead",
            ),
            Self::ServerStuck(timeout) => write!(
                f,
                "the server has read nothing for {timeout:?} and is ended; see what holds it, or give it \
                 a longer --timeout"
            ),
            Self::Spawn(error) => write!(
                f,
                "the server's command cannot be started: {error}; check the first word behind --"
            ),
            Self::StdinTaken => f.write_str(
                "standard input is where the messages come from; put the key into a variable \
                 (--key-env) or a file (--key-file), and the configuration and the secret into files",
            ),
            Self::System(error) => write!(f, "the system denies what is needed: {error}; try again"),
            Self::StdinTwice => f.write_str(
                "two inputs cannot both be read from standard input; put one into a file",
            ),
            Self::TooManyLimits => write!(
                f,
                "the caveats after the first would set more than {MAX_FAMILY_LIMITS} limits: every \
                 gate would refuse the key; say less, or mint a key with them in --only"
            ),
            Self::Unrenderable { member, reason } => {
                write!(f, "the list of upstreams cannot be rendered: {member}: {reason}")
            }
            Self::Upstreams(invalid) => write!(f, "the list of upstreams is refused: {invalid}"),
            Self::UpstreamsText { what, line } => {
                write!(f, "the list of upstreams is refused: {what}")?;
                line.map_or(Ok(()), |line| write!(f, ", line {line}"))
            }
            Self::Worker(StartError::Failed(failure)) => {
                write!(f, "{failure}; if a longer --deadline does not help, report this")
            }
            Self::Worker(StartError::Refused(log)) => {
                let said = log.last().map_or("and does not say why", |(_, line)| line);
                write!(f, "the module refuses the configuration: {}; report this", sentence(said))
            }
        }
    }
}

fn write_input(f: &mut fmt::Formatter<'_>, origin: &Origin, problem: &InputProblem) -> fmt::Result {
    match problem {
        InputProblem::Empty => write!(f, "{origin} is empty; put the text there, on one line"),
        InputProblem::Guessable(bits) => write!(
            f,
            "{origin} holds a secret that can be guessed: an estimate of {bits} bits, and {MIN_BITS} are \
             needed, since one key is enough to try guesses offline; `vkey secret new` makes one"
        ),
        InputProblem::Io(error) => write!(f, "{origin} cannot be read: {error}; check the path"),
        InputProblem::NoFile(error) => write!(
            f,
            "{origin} cannot be read: {error}; if it is an admin interface, write http:// or https:// \
             before its address"
        ),
        InputProblem::NoCertificate => {
            write!(f, "{origin} holds no certificate in PEM; put the authority's there")
        }
        InputProblem::NotUtf8 => write!(f, "{origin} is not UTF-8 text; check what it holds"),
        InputProblem::TooLong(max) => {
            write!(f, "{origin} is longer than {max} bytes; check what it holds")
        }
        InputProblem::Unset => write!(f, "{origin} is not set; export it"),
    }
}

fn write_no_ring(f: &mut fmt::Formatter<'_>, active: &[String]) -> fmt::Result {
    f.write_str("the configuration has no such active ring; ")?;
    match active {
        [] => f.write_str("make one active"),
        _ => write!(f, "active: {}", active.join(", ")),
    }
}

impl error::Error for Error {}

impl Given {
    /// What to do when it is not what it should be.
    fn check(self) -> &'static str {
        match self {
            Self::Answer => "check the URL",
            Self::Input => "check what it holds",
        }
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer => "the answer",
            Self::Input => "the input",
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured(name) => write!(f, "environment variable {name}"),
            Self::File(option) => write!(f, "the file named by {option}"),
            Self::Stdin => f.write_str("standard input"),
            Self::Variable(option) => write!(f, "the environment variable named by {option}"),
        }
    }
}
