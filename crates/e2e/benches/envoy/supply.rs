//! The keys of a load: in its headers, or in a file with one key to a line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::thread;

use crate::cases::{Ask, Case, Credential, Fresh};
use crate::filters::tenant_name;
use crate::keys::{Claims, Issuer, broken};
use crate::support::{Request, TempDir};
use crate::wrk::{KeyFile, Load};

/// The smallest file of keys, so that reading it takes the same however many keys there are.
const MIN_LINES: usize = 1000;

/// The number of the first fresh key; below are those of `Credential::Many`.
const FIRST_FRESH: usize = 1_000_000_000;

/// Mints what the cases of a group send.
pub(crate) struct Supply<'a> {
    issuer: &'a Issuer,
    files: TempDir,
    /// The number of the next fresh key.
    next: usize,
    /// How many single requests had a key of a limited number.
    turns: usize,
    /// How many keys of a case's file were sent.
    sent: BTreeMap<&'static str, usize>,
}

impl<'a> Supply<'a> {
    pub(crate) fn new(issuer: &'a Issuer) -> Self {
        let files = TempDir::new("bench-keys");
        Self { issuer, files, next: FIRST_FRESH, turns: 0, sent: BTreeMap::new() }
    }

    /// A request with a key of those that the case sends.
    pub(crate) fn request(&mut self, ask: &Ask) -> Request {
        let mut request = match (ask.chat, ask.message) {
            (Some(chat), _) => chat.request(),
            (None, Some(message)) => message.request(ask.path),
            (None, None) => Request::new("GET", ask.path),
        };
        if let Some(host) = ask.host {
            request = request.header("host", host);
        }
        for (name, value) in usual_headers(ask.headers) {
            request = request.header(&name, value);
        }
        match &ask.credential {
            Credential::None => request,
            Credential::One(key) => request.bearer(key),
            Credential::Fresh(fresh) => {
                self.next += 1;
                request.bearer(&fresh_key(self.issuer, *fresh, self.next - 1))
            }
            Credential::Many(count) => {
                self.turns += 1;
                request.bearer(&self.numbered((self.turns - 1) % count))
            }
        }
    }

    /// One request for each key of a case that has a limited number of them.
    pub(crate) fn requests(&self, ask: &Ask) -> impl Iterator<Item = Request> {
        let count = match ask.credential {
            Credential::Many(count) => count,
            _ => 0,
        };
        let path = ask.path;
        (0..count).map(move |number| Request::new("GET", path).bearer(&self.numbered(number)))
    }

    /// What wrk is to send. There are as many fresh keys as are wanted.
    pub(crate) fn load(&mut self, case: &Case, wanted: usize) -> io::Result<Load> {
        let ask = &case.request;
        let mut load = Load { path: ask.path, headers: Vec::new(), keys: None };
        match &ask.credential {
            Credential::None => {}
            Credential::One(key) => {
                load.headers.push(("authorization".to_owned(), format!("Bearer {key}")));
            }
            Credential::Fresh(fresh) => load.keys = Some(self.once(case, *fresh, wanted)?),
            Credential::Many(count) => load.keys = Some(self.again(case, *count)?),
        }
        load.headers.extend(usual_headers(ask.headers));
        // wrk replaces its own by this spelling only.
        load.headers.extend(ask.host.map(|host| ("Host".to_owned(), host.to_owned())));
        Ok(load)
    }

    /// Where the next load of the case goes on, after this many keys of its file were sent.
    pub(crate) fn sent(&mut self, case: &Case, count: usize) {
        *self.sent.entry(case.id).or_default() += count;
    }

    /// Mints on all cores, since nothing is measured at that time.
    fn once(&mut self, case: &Case, fresh: Fresh, wanted: usize) -> io::Result<KeyFile> {
        let file = self.files.file(case.id);
        let first = self.next;
        self.next += wanted;
        let halves = [first..first + wanted / 2, first + wanted / 2..self.next];
        let issuer = self.issuer;
        let mint = |numbers: Range<usize>| numbers.map(|number| fresh_key(issuer, fresh, number));
        let halves = thread::scope(|scope| {
            let threads = halves.map(|half| scope.spawn(|| mint(half).collect::<Vec<_>>()));
            threads.map(|thread| thread.join().expect("minting does not fail"))
        });
        write(&file, halves.into_iter().flatten())?;
        Ok(KeyFile { file, offset: 0, again: false })
    }

    fn again(&self, case: &Case, count: usize) -> io::Result<KeyFile> {
        let file = self.files.file(case.id);
        let lines = count.max(MIN_LINES);
        if !file.exists() {
            write(&file, (0..lines).map(|line| self.numbered(line % count)))?;
        }
        let line_bytes = self.numbered(0).len() + 1;
        let sent = self.sent.get(case.id).copied().unwrap_or(0);
        Ok(KeyFile { file, offset: sent % lines * line_bytes, again: true })
    }

    /// One of a limited number of keys, of one of the tenants. They are all of one length.
    fn numbered(&self, number: usize) -> String {
        self.issuer.key(&Claims::new(tenant_name(number), number))
    }
}

/// What makes it that number of headers: the host and the credential are headers too.
fn usual_headers(count: usize) -> impl Iterator<Item = (String, String)> {
    (2..count).map(|number| {
        let value = format!("the-value-of-a-usual-header-{number:02}");
        (format!("x-client-header-{number:02}"), value)
    })
}

fn fresh_key(issuer: &Issuer, fresh: Fresh, number: usize) -> String {
    let claims = Claims { caveats: fresh.caveats, ..Claims::new(tenant_name(0), number) };
    let key = issuer.key(&claims);
    if fresh.valid { key } else { broken(&key) }
}

fn write(path: &Path, keys: impl Iterator<Item = String>) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for key in keys {
        writeln!(file, "{key}")?;
    }
    file.flush()
}
