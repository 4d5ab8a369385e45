//! The register of minted keys: a file with a line of JSON for each key, which says whose it is and how to revoke it,
//! and contains neither the key nor its tag.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use vkey::issuing::KeyFlaw;
use vkey::json::{Integers, Invalid, Json};
use vkey::key::claims::Claims;
use vkey::key::token::Kid;

use super::private::{CannotCreate, CreateError, check};
use super::text::ascii;

/// The members of an entry that are claims of the key.
const CLAIMS: [&str; 6] = ["jti", "tenant", "sub", "tier", "iat", "exp"];

/// A minted key.
pub(super) struct Entry {
    /// The claims that the register keeps, and no others.
    pub(super) claims: Claims,
    /// The signing key.
    pub(super) kid: Kid,
}

impl Entry {
    /// The entry of a key.
    pub(super) fn of(key: &str, claims: &Claims) -> Result<Self, KeyFlaw> {
        let unverified = KeyFlaw::read(key)?;
        Ok(Self { claims: claims.clone(), kid: unverified.kid().clone() })
    }

    /// Reads a line. Unknown members are ignored: a newer command may add some.
    pub(super) fn read(line: &[u8]) -> Result<Self, Invalid> {
        let json = Json::parse(line)?;
        let root = json.root(Integers::Digits);
        let kid = root.open_members()?.require("kid")?;
        let read_kid = Kid::parse(kid.string()?.as_bytes());
        let kid = read_kid.map_err(|_| kid.expected("the name of a ring, - and an epoch"))?;
        let is_kept = |name: &str, value: &Json| CLAIMS.contains(&name) && *value != Json::Null;
        let kept = root.entries()?.filter(|(name, node)| is_kept(name, node.value()));
        let kept = kept.map(|(name, node)| (name.to_owned(), node.value().clone()));
        let claims = Claims::parse(Json::Object(kept.collect()).to_string().as_bytes())?;
        Ok(Self { claims, kid })
    }

    /// The members of the line.
    pub(super) fn to_json(&self) -> Vec<(String, Json)> {
        let Claims { jti, tenant, sub, iat, exp, .. } = &self.claims;
        let members = [
            ("jti", jti.as_str().into()),
            ("tenant", tenant.as_str().into()),
            ("sub", sub.as_deref().map_or(Json::Null, Json::from)),
            ("tier", self.claims.tier().into()),
            ("iat", (*iat).into()),
            ("exp", (*exp).into()),
            ("kid", self.kid.as_str().into()),
        ];
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Appends the entry to a register, and waits until the disk has it.
    pub(super) fn append_to(&self, path: &Path) -> Result<(), CreateError> {
        let line = ascii(&Json::Object(self.to_json()));
        append(path, &line)
            .map_err(|problem| CreateError { what: "the file named by --register", problem })
    }
}

/// Appends a line in one write, so that lines of several processes do not mix. If the last line was cut, because there
/// was no room for it, the new one begins after it.
fn append(path: &Path, line: &str) -> Result<(), CannotCreate> {
    check(path, true)?;
    let flags = OFlags::APPEND | OFlags::CLOEXEC | OFlags::CREATE | OFlags::NOFOLLOW;
    let flags = flags | OFlags::NONBLOCK | OFlags::RDWR;
    let file = open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| match errno {
        Errno::LOOP => CannotCreate::NoFile,
        errno => io::Error::from(errno).into(),
    })?;
    let mut file = File::from(file);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(CannotCreate::NoFile);
    }
    let mut last = [b'\n'];
    if metadata.len() > 0 {
        file.read_exact_at(&mut last, metadata.len() - 1)?;
    }
    let start = if last == [b'\n'] { "" } else { "\n" };
    let text = format!("{start}{line}\n");
    if file.write(text.as_bytes())? < text.len() {
        return Err(CannotCreate::Io(ErrorKind::StorageFull));
    }
    file.sync_all()?;
    if metadata.len() == 0 { sync_folder(path) } else { Ok(()) }
}

/// Waits until the disk has the name of a new file.
fn sync_folder(path: &Path) -> Result<(), CannotCreate> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    Ok(File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"jti":"k_1","tenant":"acme","sub":"bob \u00e9","tier":"default","iat":1,"exp":2,"kid":"main-7"}"#;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let entry = Entry::read(LINE.as_bytes()).unwrap();
        assert_eq!((entry.claims.sub.as_deref(), entry.kid.epoch()), (Some("bob é"), 7));
        assert_eq!(ascii(&Json::Object(entry.to_json())), LINE);
        let newer = LINE.replacen('{', r#"{"only":{"x":1},"more":null,"#, 1);
        assert_eq!(Entry::read(newer.as_bytes()).unwrap().claims, entry.claims);
        let bare = LINE.replace(r#""bob \u00e9""#, "null");
        assert_eq!(Entry::read(bare.as_bytes()).unwrap().claims.sub, None);
    }

    #[test]
    fn what_is_no_entry_says_why() {
        let problem = |line: &str| Entry::read(line.as_bytes()).err().unwrap().to_string();
        assert_eq!(
            problem(&LINE.replace("k_1", "k 1")),
            "jti: expected 1 to 64 of A-Z a-z 0-9 _ -"
        );
        assert_eq!(
            problem(&LINE.replace("main-7", "main")),
            "kid: expected the name of a ring, - and an epoch"
        );
        assert!(problem(&LINE.replace("\"exp\":2,", "")).starts_with("exp: missing"));
        assert!(problem("vk1.main-0.e30.AAAA").starts_with("not valid JSON"));
    }
}
