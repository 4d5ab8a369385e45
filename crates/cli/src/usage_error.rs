//! Errors in the arguments, reported without repeating what was typed.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::error::Failure as _;
use super::exit::Exit;
use super::output::Output;

/// Replaces an argument that may be a secret.
const HIDDEN: &str = "(not shown)";

const DASHES: &str = "\n\nWrite -- before the server's command, e.g. vkey mcp --config FILE --key-file PATH -- npx SERVER";

/// Prints clap's help, or its error without anything that could be a secret.
pub(super) fn report(mut error: clap::Error, out: &mut Output) -> Exit {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let written = out.text(error.render()).and_then(|()| out.finish());
        return written.map_or_else(|error| error.exit(), |()| Exit::Success);
    }
    let hint = if lacks_dashes(&error) { DASHES } else { "" };
    hide(&mut error);
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    out.note(format_args!("{text}{hint}"));
    Exit::Usage
}

/// Whether a word stands where `vkey mcp` expects options only: the server's command, without `--` before it.
fn lacks_dashes(error: &clap::Error) -> bool {
    let (word, usage) = (error.get(ContextKind::InvalidArg), error.get(ContextKind::Usage));
    let (Some(ContextValue::String(word)), Some(ContextValue::StyledStr(usage))) = (word, usage)
    else {
        return false;
    };
    error.kind() == ErrorKind::UnknownArgument
        && !word.starts_with('-')
        && usage.to_string().contains("vkey mcp ")
}

/// Hides what was typed where clap repeats it. Drops the tips, because one of them repeats it too.
fn hide(error: &mut clap::Error) {
    let repeated = match error.kind() {
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        _ => ContextKind::InvalidValue,
    };
    error.remove(ContextKind::Suggested);
    error.remove(ContextKind::TrailingArg);
    let typed = match error.get(repeated) {
        Some(ContextValue::String(typed)) => is_harmless(typed),
        Some(_) => false,
        None => true,
    };
    if !typed {
        error.insert(repeated, ContextValue::String(HIDDEN.to_owned()));
    }
}

/// Whether a text can be neither a key, which has digits, nor a secret, which has three kinds of characters.
/// An empty text is how clap reports an absent value.
fn is_harmless(typed: &str) -> bool {
    typed.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}
