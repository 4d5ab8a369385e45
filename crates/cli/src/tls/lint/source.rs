//! The inputs of lint: files, standard input, and admin interfaces.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use zeroize::Zeroizing;

use super::super::super::error::Error;
use super::super::super::input::{InputError, InputProblem, Place};
use super::super::super::text::escape_line;
use super::super::admin::{AdminArgs, AdminUrl};
use super::super::document::{self, DocumentError, MAX_DOCUMENT_BYTES};
use super::super::error::{InputKind, TlsError};
use super::invalid::InvalidConfig;

/// Where to read a configuration from.
#[derive(Clone)]
pub(super) enum Source {
    /// The admin interface of a running Envoy.
    Admin(AdminUrl),
    /// A file; `-` is standard input.
    File(PathBuf),
}

/// What was read from one source.
pub(super) struct Input {
    /// The file or the URL, as it is shown.
    pub(super) name: String,
    /// The documents in it.
    pub(super) documents: Vec<Value>,
    kind: InputKind,
    /// Whether errors name the input, because there are several.
    is_one_of_many: bool,
}

impl Source {
    /// Parses an argument.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        match AdminUrl::is_url(text) {
            true => AdminUrl::parse(text).map(Self::Admin),
            false => Ok(Self::File(PathBuf::from(text))),
        }
    }

    /// Whether this is standard input.
    pub(super) fn is_stdin(&self) -> bool {
        matches!(self, Self::File(path) if path.as_os_str() == "-")
    }

    /// Reads all documents.
    fn read(&self, admin: &AdminArgs) -> Result<Vec<Value>, Error> {
        let text = match self {
            Self::Admin(url) => admin.ask(url, &url.config_dump(), MAX_DOCUMENT_BYTES)?.into(),
            Self::File(path) => read_file(path)?,
        };
        let read = document::parse_all(&text);
        Ok(read.map_err(|unreadable| TlsError::Document(self.kind(), unreadable))?)
    }

    fn kind(&self) -> InputKind {
        match self {
            Self::Admin(_) => InputKind::Response,
            Self::File(_) => InputKind::Input,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Admin(url) => url.config_dump(),
            Self::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

impl Input {
    /// Reads all sources.
    pub(super) fn read_all(sources: &[Source], admin: &AdminArgs) -> Result<Vec<Self>, Error> {
        let is_one_of_many = sources.len() > 1;
        let read = |source: &Source| {
            let (name, kind) = (source.name(), source.kind());
            let mut input = Self { name, documents: Vec::new(), kind, is_one_of_many };
            input.documents = source.read(admin).map_err(|error| input.located(error))?;
            Ok(input)
        };
        sources.iter().map(read).collect()
    }

    /// A document of a file that another command has read.
    pub(super) fn of_document(name: String, document: Value) -> Self {
        Self { name, documents: vec![document], kind: InputKind::Input, is_one_of_many: true }
    }

    /// The error for a configuration that cannot be checked.
    pub(super) fn unsuitable(inputs: &[Self], why: &InvalidConfig) -> Error {
        let kind = inputs.first().map_or(InputKind::Input, |input| input.kind);
        match why {
            InvalidConfig::Empty => TlsError::NoClusters(kind).into(),
            InvalidConfig::NotEnvoy(position) => match inputs.get(*position) {
                Some(input) => input.located(TlsError::NoEnvoyConfiguration(input.kind).into()),
                None => TlsError::NoEnvoyConfiguration(kind).into(),
            },
            InvalidConfig::TooMuch => TlsError::Document(kind, DocumentError::too_much()).into(),
        }
    }

    /// The error, with the name of this input if there are several.
    fn located(&self, error: Error) -> Error {
        if self.is_one_of_many {
            TlsError::InFile { file: escape_line(&self.name), error }.into()
        } else {
            error
        }
    }
}

/// Reads a file. If it does not exist and looks like an address, the error says how to write a URL.
fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, InputError> {
    let read = Place::file("FILE", path).read_bytes(MAX_DOCUMENT_BYTES);
    let may_be_address = path.to_string_lossy().contains(':');
    read.map_err(|error| match error {
        InputError::Unusable(origin, InputProblem::Io(error))
            if may_be_address && error.kind() == ErrorKind::NotFound =>
        {
            InputError::Unusable(origin, InputProblem::NoFile(error))
        }
        error => error,
    })
}
