//! `vkey keys`: lists the minted keys of a register.

use std::path::{Path, PathBuf};

use vkey::config::{Config, RingConfig, UnlistedTenants};
use vkey::json::Json;
use vkey::key::claims::Claims;
use vkey::key::keyring::RingState;

use super::config_file::ConfigFile;
use super::error::Error;
use super::exit::Exit;
use super::input::{InputError, Place};
use super::lines::{Line, Lines};
use super::output::{Output, OutputError};
use super::register::Entry;
use super::text::{ascii, escape_word};
use super::time;
use super::usage::id;

/// The longest register that is read: some hundred thousand keys.
const MAX_REGISTER_BYTES: u64 = 128 * 1024 * 1024;

/// The longest line of a register: several times the longest entry.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The columns of the table.
const COLUMNS: [&str; 8] = ["tenant", "key", "sub", "tier", "kid", "minted", "expires", "state"];

/// Names no key of the table, so that nobody revokes one by copying it.
const HOW_TO_REVOKE: &str = "\nTo revoke a key, add {\"tenant\":\"TENANT\",\"jti\":\"KEY\"} with its tenant and its key to \
    revoked.keys in the configuration of the gate, raise revoked.version, and deploy it.";

#[derive(clap::Args)]
pub(super) struct Args {
    /// The register that `vkey mint --register` writes (- is standard input)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only keys of this tenant
    #[arg(long, value_name = "ID", value_parser = id)]
    tenant: Option<String>,
    /// Only keys that were given to this app, user or agent
    #[arg(long, value_name = "NAME")]
    sub: Option<String>,
    /// Also list keys that are no longer valid
    #[arg(long)]
    all: bool,
    /// Mark the keys that this plugin configuration revokes or does not know, and those whose signing key has aged out under it
    #[arg(long, value_name = "FILE")]
    config: Option<ConfigFile>,
    /// List as of this time, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    now: Option<u64>,
    /// Print one JSON object per key
    #[arg(long)]
    json: bool,
}

/// What has become of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its time is over.
    Expired,
    /// Its signing key is no longer accepted.
    Retired,
    /// The configuration revokes the key, its tenant's older keys, or its ring.
    Revoked,
    /// The configuration has no such signing key, or not for this tenant, or refuses the tenant.
    Unknown,
    /// None of these.
    Valid,
}

/// Runs `vkey keys`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    if args.file == Path::new("-") && args.config.as_ref().is_some_and(ConfigFile::is_stdin) {
        return Err(InputError::StdinTwice.into());
    }
    let now_secs = time::now(args.now)?;
    let config = args.config.as_ref().map(ConfigFile::gate).transpose()?.map(|(_, config)| config);
    let place = Place::file("FILE", &args.file);
    let text = place.read_bytes(MAX_REGISTER_BYTES)?;
    let (entries, exit) = read(&text, out);
    let selected = Vec::from_iter(entries.into_iter().filter(|entry| args.selects(entry)));
    if selected.is_empty() {
        match args.json {
            true => out.note(args.no_entry()),
            false => out.line(args.no_entry())?,
        }
        return Ok(exit);
    }
    let listed = selected.into_iter();
    let listed = listed.map(|entry| (State::of(&entry, config.as_ref(), now_secs), entry));
    let listed = Vec::from_iter(listed.filter(|(state, _)| args.all || state.is_shown()));
    if args.json {
        listed.iter().try_for_each(|(state, entry)| out.line(json(*state, entry)))?;
    } else {
        print(&listed, out)?;
    }
    Ok(exit)
}

impl Args {
    fn selects(&self, entry: &Entry) -> bool {
        let Claims { tenant, sub, .. } = &entry.claims;
        self.tenant.as_ref().is_none_or(|name| name == tenant)
            && self.sub.as_ref().is_none_or(|name| Some(name) == sub.as_ref())
    }

    /// What is said if no entry is selected.
    fn no_entry(&self) -> String {
        let filters = [("sub", &self.sub), ("tenant", &self.tenant)];
        let filters = filters.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let filters = filters.map(|(name, value)| format!("{name} {}", escape_word(value)));
        match &*Vec::from_iter(filters).join(" and ") {
            "" => "the register has no entry".to_owned(),
            filters => format!("no entry for {filters}"),
        }
    }
}

impl State {
    fn of(entry: &Entry, config: Option<&Config>, now_secs: u64) -> Self {
        let Entry { claims, kid } = entry;
        let ring = config.and_then(|config| config.rings().iter().find(|r| r.name() == kid.ring()));
        let rotation = ring.and_then(RingConfig::rotation);
        let revokes = |config: &Config| config.settings().revoked.covers(&claims.key_id());
        if now_secs >= claims.exp {
            Self::Expired
        } else if rotation.is_some_and(|rotation| now_secs >= rotation.end_of(kid.epoch())) {
            Self::Retired
        } else if config.is_some_and(revokes)
            || ring.is_some_and(|ring| ring.state() == RingState::Revoked)
        {
            Self::Revoked
        } else if config.is_some_and(|config| !is_known(entry, config, ring, now_secs)) {
            Self::Unknown
        } else {
            Self::Valid
        }
    }

    /// Whether the key is listed without `--all`. A revoked one is, so that its revocation can be seen, and an unknown one,
    /// because another gate may accept it.
    fn is_shown(self) -> bool {
        matches!(self, Self::Revoked | Self::Unknown | Self::Valid)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
            Self::Valid => "valid",
        }
    }
}

/// Whether a gate with this configuration has the signing key, for this tenant, and accepts the tenant.
fn is_known(
    Entry { claims, kid }: &Entry,
    config: &Config,
    ring: Option<&RingConfig>,
    now_secs: u64,
) -> bool {
    let settings = config.settings();
    let accepts_tenant = settings.unlisted_tenants == UnlistedTenants::Allow
        || settings.tenants.contains_key(&claims.tenant);
    let has_key = |ring: &RingConfig| {
        let latest = now_secs.saturating_add(config.clock_skew_secs());
        let has_begun = ring
            .rotation()
            .map_or(kid.epoch() == 0, |rotation| kid.epoch() <= rotation.epoch_at(latest));
        let has_kid = ring.kids().is_none_or(|mut kids| kids.any(|listed| listed == kid));
        let tenants = ring.tenants();
        has_begun && has_kid && tenants.is_none_or(|tenants| tenants.contains(&claims.tenant))
    };
    accepts_tenant && ring.is_some_and(has_key)
}

/// Reads the entries. A line that is not an entry is named, and hides no other.
fn read(text: &[u8], out: &mut Output) -> (Vec<Entry>, Exit) {
    let (mut entries, mut exit) = (Vec::new(), Exit::Success);
    let mut lines = Lines::new(text, MAX_LINE_BYTES);
    let mut number = 0_u64;
    // Memory can always be read.
    while let Ok(Some(line)) = lines.next() {
        number += 1;
        let read = match line {
            Line::Whole(line) if line.trim_ascii().is_empty() => continue,
            Line::Whole(line) => Entry::read(&line).map_err(|invalid| invalid.to_string()),
            Line::TooLong => Err(format!("longer than {MAX_LINE_BYTES} bytes")),
        };
        match read {
            Ok(entry) => entries.push(entry),
            Err(problem) => {
                out.note(format_args!("line {number} of the register is not a key: {problem}"));
                exit = Exit::Refused;
            }
        }
    }
    (entries, exit)
}

fn json(state: State, entry: &Entry) -> String {
    let mut members = entry.to_json();
    members.push(("state".to_owned(), state.word().into()));
    ascii(&Json::Object(members))
}

/// Prints the table, and how to revoke a key.
fn print(listed: &[(State, Entry)], out: &mut Output) -> Result<(), OutputError> {
    print_table(listed, out)?;
    if listed.is_empty() {
        return out.line("no key is valid any more; --all lists them");
    }
    match listed.iter().any(|(state, _)| *state == State::Valid) {
        true => out.line(HOW_TO_REVOKE),
        false => out.line("no key is valid"),
    }
}

fn print_table(listed: &[(State, Entry)], out: &mut Output) -> Result<(), OutputError> {
    if listed.is_empty() {
        return Ok(());
    }
    let rows = listed.iter().map(|(state, entry)| row(*state, entry));
    let rows = Vec::from_iter([COLUMNS.map(str::to_owned)].into_iter().chain(rows));
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let widths: [usize; COLUMNS.len()] =
        std::array::from_fn(|column| width(column).unwrap_or_default());
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        out.line(Vec::from_iter(cells).join("  ").trim_end())?;
    }
    Ok(())
}

fn row(state: State, entry: &Entry) -> [String; COLUMNS.len()] {
    let Claims { tenant, jti, sub, iat, exp, .. } = &entry.claims;
    [
        tenant.clone(),
        jti.clone(),
        sub.as_deref().map_or("-".to_owned(), escape_word),
        escape_word(entry.claims.tier()),
        entry.kid.to_string(),
        time::rfc3339(*iat),
        time::rfc3339(*exp),
        state.word().to_owned(),
    ]
}
