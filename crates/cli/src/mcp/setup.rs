//! `vkey mcp --setup`: makes a ring, an audience and a key for a single MCP server.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{self, Path, PathBuf};

use zeroize::Zeroizing;

use vkey::config::Config;
use vkey::issuing::{self, CannotMint};
use vkey::json::Json;
use vkey::key::claims::Claims;

use super::super::error::Error;
use super::super::exit::Exit;
use super::super::input::{self, InputError};
use super::super::output::Output;
use super::super::private::{CannotCreate, CreateError, check, create};
use super::super::ring::RingError;
use super::super::text::{escape_sentence, pretty};
use super::super::{secret, time};
use super::error::McpError;
use super::route::route;

/// The ring, and the environment variable that the configuration names for its secret.
const RING: &str = "mcp";
const VARIABLE: &str = "VKEY_MCP_SECRET";

/// The path that the module sees unless `--path` names another.
const PATH: &str = "/mcp";

/// File names.
const CONFIG: &str = "config.json";
const SECRET: &str = "secret";
const KEY: &str = "key";
const AUDIT: &str = "audit.log";

#[derive(clap::Args)]
pub(super) struct SetupArgs {
    /// Start nothing: write a configuration with its own ring and audience, the ring's secret and a key to
    /// this directory, and print the entry for the client's configuration
    #[arg(long, value_name = "DIR")]
    #[arg(conflicts_with_all = ["config", "secret_file", "key_file", "key_env", "audit"])]
    setup: Option<PathBuf>,
    /// With --setup: the tenant of the key
    #[arg(long, value_name = "NAME", default_value = "local", requires = "setup")]
    tenant: String,
    /// With --setup: how long the key is valid, e.g. 1h or 30d
    #[arg(long, value_name = "DURATION", default_value = "30d", requires = "setup")]
    #[arg(value_parser = time::parse_duration)]
    lifetime: u64,
    /// With --setup: replace the files of an earlier setup
    #[arg(long, requires = "setup")]
    force: bool,
}

/// The content of the files.
struct Made {
    config: Json,
    secret: Zeroizing<String>,
    key: Zeroizing<String>,
    claims: Claims,
}

impl SetupArgs {
    /// The directory to set up, if any.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.setup.as_deref()
    }

    /// Writes the files, and prints the entry with which a client starts the server.
    pub(super) fn run(
        &self,
        folder: &Path,
        command: &[OsString],
        out: &mut Output,
    ) -> Result<Exit, Error> {
        let folder = path::absolute(folder).map_err(|error| cannot_create(error.into()))?;
        let entry = entry(&folder, command).ok_or(McpError::SetupNotText)?;
        let made = self.make()?;
        self.write(&folder, &made)?;
        let expires = time::rfc3339(made.claims.exp);
        out.note(format_args!("minted {}, expires {expires}", made.claims.jti));
        out.note(format_args!(
            "whoever can read the file {SECRET} can mint keys for this server, and for nothing else: keep \
             it from those that a key is to limit"
        ));
        out.note(format_args!("to explain a refusal: {}", explain_command(&folder)));
        if !command.first().is_some_and(|program| is_found(program)) {
            out.note(
                "warning: the server's command, the first word after --, is not found; install it, or name it by \
                 its absolute path",
            );
        }
        out.text(format_args!("{}\n", pretty(&entry)))?;
        Ok(Exit::Success)
    }

    fn make(&self) -> Result<Made, Error> {
        let now_secs = time::now(None)?;
        let exp = now_secs.saturating_add(self.lifetime);
        if exp > time::LAST {
            return Err(CannotMint::Lifetime.into());
        }
        let id = secret::random_id()?;
        let audience = format!("{RING}-{}", id.trim_start_matches("k_"));
        let config = config(&audience);
        let secret = secret::fresh()?;
        let parsed = Config::parse(config.to_string().as_bytes()).map_err(InputError::Config)?;
        let environment = |_: &str| Some(secret.to_string());
        let ring = parsed.rings().first().and_then(|ring| ring.compile(environment).0);
        let ring = ring.ok_or_else(|| RingError::None(Vec::new()))?;
        let claims = issuing::valid(&Claims {
            jti: secret::random_id()?,
            tenant: self.tenant.clone(),
            sub: None,
            tier: None,
            iat: now_secs,
            exp,
            nbf: None,
            aud: Some(vec![audience]),
            only: None,
            meta: None,
        })?;
        let key = Zeroizing::new(issuing::mint(ring, &claims, &[], now_secs)?);
        Ok(Made { config, secret, key, claims })
    }

    /// Writes all files or none.
    fn write(&self, folder: &Path, made: &Made) -> Result<(), Error> {
        let config = pretty(&made.config);
        let files = [(CONFIG, config.as_str()), (SECRET, &made.secret), (KEY, &made.key)];
        let is_new = make_folder(folder)?;
        let mut created = Vec::new();
        let written =
            files.iter().try_for_each(|(name, _)| self.check(folder, name)).and_then(|()| {
                files.iter().try_for_each(|(name, content)| {
                    let content = Zeroizing::new(format!("{content}\n"));
                    create(&folder.join(name), content.as_bytes(), self.force)?;
                    created.push(folder.join(name));
                    Ok(())
                })
            });
        Ok(written.map_err(|problem| {
            if !self.force {
                created.iter().for_each(|path| _ = fs::remove_file(path));
            }
            if is_new {
                _ = fs::remove_dir(folder);
            }
            cannot_create(problem)
        })?)
    }

    fn check(&self, folder: &Path, name: &str) -> Result<(), CannotCreate> {
        check(&folder.join(name), self.force)
    }
}

/// Creates the directory; `false` if it exists.
fn make_folder(folder: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => Ok(false),
        Ok(_) => Err(McpError::SetupNoFolder.into()),
        Err(_) => {
            let made = DirBuilder::new().mode(0o700).create(folder);
            Ok(made.map(|()| true).map_err(|error| cannot_create(error.into()))?)
        }
    }
}

fn cannot_create(problem: CannotCreate) -> CreateError {
    CreateError { what: "a file that --setup makes in its directory", problem }
}

/// A configuration that accepts keys for one server only: of one ring, for one audience.
fn config(audience: &str) -> Json {
    let only = Json::object([
        ("methods", Json::Array(vec!["POST".into()])),
        ("paths", Json::Array(vec![PATH.into()])),
    ]);
    let ring = [("name", RING.into()), ("secret", format!("${{{VARIABLE}}}").as_str().into())];
    Json::object([
        ("keyring", Json::Array(vec![Json::object(ring)])),
        ("audience", audience.into()),
        ("mcp", Json::object([("routes", Json::Array(vec![route(PATH)]))])),
        ("tiers", Json::object([("default", Json::object([("only", only)]))])),
    ])
}

/// The entry for the client's configuration; `None` if a path or an argument is not UTF-8.
fn entry(folder: &Path, command: &[OsString]) -> Option<Json> {
    let file = |name: &str| folder.join(name).to_str().map(Json::from);
    let mut args = vec![Json::from("mcp")];
    let options =
        [("--config", CONFIG), ("--secret-file", SECRET), ("--key-file", KEY), ("--audit", AUDIT)];
    for (option, name) in options {
        args.extend([option.into(), file(name)?]);
    }
    args.push("--".into());
    for word in command {
        args.push(word.to_str()?.into());
    }
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or(RING);
    let server = Json::object([("command", own_command()?), ("args", Json::Array(args))]);
    Some(Json::object([("mcpServers", Json::object([(name, server)]))]))
}

/// The absolute path of this command, because clients start servers with a search path of their own. `None` if it is
/// not UTF-8.
fn own_command() -> Option<Json> {
    env::current_exe().map_or_else(|_| Some("vkey".into()), |path| path.to_str().map(Json::from))
}

/// The command that shows why the gate of a directory refuses its key.
fn explain_command(folder: &Path) -> String {
    let file = |name: &str| quote(&folder.join(name).to_string_lossy());
    let (config, secret, key) = (file(CONFIG), file(SECRET), file(KEY));
    let command = format!(
        "vkey explain --config {config} --secret-file {secret} --key-file {key} --method POST --path {PATH}"
    );
    escape_sentence(&command)
}

/// A word as a POSIX shell reads it.
fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Whether a program can be started by this name here.
fn is_found(program: &OsStr) -> bool {
    let is_program = |path: &Path| {
        let metadata = fs::metadata(path);
        metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if Path::new(program).components().count() > 1 {
        return is_program(Path::new(program));
    }
    let search_path = input::environment("PATH").unwrap_or_default();
    env::split_paths(&search_path).any(|folder| is_program(&folder.join(program)))
}
