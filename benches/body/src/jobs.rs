//! What is measured.

use vkey::body::eventstream::{self, Frames};
use vkey::body::json::{Limits, Names, Reader, Scanner, Span, Spot, Unreadable, Value};
use vkey::body::sse::{self, Events};

use crate::bodies;

/// One kind of body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// A chat request: long texts in English, with some escapes and other characters, and tools.
    Chat,
    /// Source code in a string: an escape every few bytes.
    Code,
    /// Text in Chinese.
    Chinese,
    /// The same, escaped.
    Escaped,
    /// An image as a data URL.
    Image,
    /// A schema, indented.
    Indented,
    /// A schema, compact: short names and values.
    Compact,
    /// A list of numbers.
    Numbers,
    /// An object with as many members as there may be.
    Members,
    /// A stream of short events.
    Events,
    /// A stream of Amazon's messages.
    Frames,
}

/// A proxy hands a body over in pieces of about that many bytes.
const PIECE_BYTES: usize = 16 * 1024;

const BODY_BYTES: usize = 1 << 20;

/// Looks for what a request for a chat says.
struct Facts(u64);

const ROOT: Names = Names::new(
    &[
        ("model", Spot(2)),
        ("models", Spot(3)),
        ("max_tokens", Spot(4)),
        ("max_completion_tokens", Spot(4)),
        ("n", Spot(5)),
        ("stream", Spot(6)),
        ("usage", Spot(7)),
    ],
    Spot::IGNORED,
);

const USAGE: Names =
    Names::new(&[("prompt_tokens", Spot(8)), ("completion_tokens", Spot(9))], Spot::IGNORED);

impl Reader for Facts {
    fn names(&self, at: Spot) -> &'static Names {
        if at == Spot::ROOT { &ROOT } else { &USAGE }
    }

    fn items(&self, at: Spot) -> Spot {
        at
    }

    fn value(&mut self, _: Spot, _: Value<'_>, span: Span) -> Result<(), Unreadable> {
        self.0 = self.0.max(span.end);
        Ok(())
    }
}

impl Job {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Chat,
        Self::Code,
        Self::Chinese,
        Self::Escaped,
        Self::Image,
        Self::Indented,
        Self::Compact,
        Self::Numbers,
        Self::Members,
        Self::Events,
        Self::Frames,
    ];

    /// A body of about a megabyte, or of as many members as there may be.
    pub fn body(self) -> Vec<u8> {
        match self {
            Self::Chat => bodies::chat(BODY_BYTES),
            Self::Code => bodies::text(bodies::CODE, BODY_BYTES),
            Self::Chinese => bodies::text(bodies::CHINESE, BODY_BYTES),
            Self::Escaped => bodies::text(&bodies::escaped(bodies::CHINESE), BODY_BYTES),
            Self::Image => bodies::image(BODY_BYTES),
            Self::Indented => bodies::list(bodies::INDENTED, BODY_BYTES),
            Self::Compact => bodies::list(bodies::COMPACT, BODY_BYTES),
            Self::Numbers => bodies::list("0.0123456789,-1.5e-05,17,-0.98765432101", BODY_BYTES),
            Self::Members => bodies::members(16_000).into(),
            Self::Events => bodies::events(BODY_BYTES),
            Self::Frames => bodies::frames(BODY_BYTES),
        }
    }

    /// Reads a body; false if it cannot be read.
    pub fn run(self, body: &[u8]) -> bool {
        match self {
            Self::Events => events(body) == Ok(()),
            Self::Frames => frames(body).is_ok(),
            _ => document(body) == Ok(()),
        }
    }
}

fn document(body: &[u8]) -> Result<(), Unreadable> {
    let mut scanner = Scanner::new(Limits::default());
    let mut facts = Facts(0);
    body.chunks(PIECE_BYTES).try_for_each(|piece| scanner.feed(piece, &mut facts))?;
    scanner.finish(&mut facts)
}

fn events(body: &[u8]) -> Result<(), Unreadable> {
    let mut events = Events::new();
    let mut scanner = Scanner::tolerant(Limits::default());
    let mut facts = Facts(0);
    for mut piece in body.chunks(PIECE_BYTES) {
        while let Some(part) = events.next(&mut piece) {
            match part {
                sse::Part::Begin => {}
                sse::Part::Data(data) => scanner.feed(data, &mut facts)?,
                sse::Part::End => {
                    scanner.finish(&mut facts)?;
                    scanner.reset();
                }
            }
        }
    }
    Ok(())
}

fn frames(body: &[u8]) -> Result<(), eventstream::Broken> {
    let mut frames = Frames::default();
    let mut len = 0;
    for mut piece in body.chunks(PIECE_BYTES) {
        while let Some(part) = frames.next(&mut piece)? {
            if let eventstream::Part::Payload(payload) = part {
                len += payload.len();
            }
        }
    }
    (len > 0 && frames.is_complete()).then_some(()).ok_or(eventstream::Broken)
}
